// Maths inside a model's text: cut out before Markdown, drawn by KaTeX afterwards.
// Markdown would eat the backslashes of \( \) and make <em> of $a_1*b*c$. A cut leaves a mark with an index; code is
// left alone, and so are amounts of money ("$5 and $10"). A formula that would hold up or end the tab (it is too large,
// nested too deeply, or defines macros) is shown as it is written.

// No text can spell a mark: its middle is drawn anew for each page.
const SECRET = [...crypto.getRandomValues(new Uint32Array(4))].map((each) => each.toString(36)).join("");
const OPEN = `\uE000${SECRET}x`, CLOSE = "\uE001";
/** The mark of a piece; its index is the first group. */
export const MARK = new RegExp(`${OPEN}(\\d+)${CLOSE}`, "g");

// A level is some seven elements inside each other, and a browser's tab dies of some thousands. An atom is 0.05 ms.
const DEEPEST = 30, MOST_ATOMS = 2000, MOST_CHARACTERS = 20000, MOST_ATOMS_OF_TEXT = 15000;
const ATOMS_AT_ONCE = 4000; // drawn before the page is given a turn
// Half a megabyte of atoms can come of one line that defines a macro.
const DEFINES = /\\(?:[egx]?def|let|futurelet|global|long|expandafter|(?:re)?newcommand|providecommand)(?![a-zA-Z])/;
// What changes everything up to the end of its group, which lies inside it then.
const SWITCHES = new Set(("displaystyle textstyle scriptstyle scriptscriptstyle color rm sf tt bf it cal middle over "
  + "above atop choose brace brack tiny sixptsize scriptsize footnotesize small normalsize large Large LARGE huge Huge")
  .split(" "));
const TAKES_OPTION = /^(?:sqrt|x[a-zA-Z]+|cfrac|smash)$/;

const ENVIRONMENT = /^\\begin\{(align|aligned|equation|gather|gathered|alignat|cases|[bpvBV]?matrix|array)(\*?)\}/;

/** {text, pieces}: pieces[i] = {tex, display, source, atoms, isHeavy, isOpen}. isOpen: the end is yet to be written. */
export function cutMaths(text, isGrowing) {
  const pieces = [], absent = new Set();
  let out = "", at = 0, atoms = 0;
  while (at < text.length) {
    const code = codeAt(text, at);
    if (code) {
      out += text.slice(at, code);
      at = code;
      continue;
    }
    const found = mathsAt(text, at, isGrowing, absent);
    if (found) {
      const weight = weigh(found.tex);
      atoms += weight.atoms;
      const isHeavy = weight.isHeavy || atoms > MOST_ATOMS_OF_TEXT;
      out += `${OPEN}${pieces.length}${CLOSE}`;
      pieces.push({ ...found, source: text.slice(at, found.end), atoms: weight.atoms, isHeavy });
      at = found.end;
    } else {
      const step = text[at] === "\\" && at + 1 < text.length ? 2 : 1;
      out += text.slice(at, at + step);
      at += step;
    }
  }
  return { text: out, pieces };
}

/** Where code that begins here ends: a fence at the start of a line, or a run of backticks. */
function codeAt(text, at) {
  const isLineStart = at === 0 || text[at - 1] === "\n";
  if (isLineStart) {
    const fence = /^ {0,3}(`{3,}|~{3,})[^\n]*/.exec(text.slice(at, at + 200));
    if (fence) {
      const mark = fence[1];
      const end = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`, "gm");
      end.lastIndex = at + fence[0].length;
      const close = end.exec(text);
      return close ? close.index + close[0].length : text.length;
    }
  }
  if (text[at] !== "`") return 0;
  const run = /^`+/.exec(text.slice(at))[0];
  for (let from = at + run.length; ;) {
    const close = text.indexOf(run, from);
    if (close < 0) return at + run.length;
    const length = /^`+/.exec(text.slice(close))[0].length;
    if (length === run.length) return close + length;
    from = close + length;
  }
}

/** {atoms, isHeavy}: how much there is to draw, and whether it is too much or too deep to be drawn. */
export function weigh(tex) {
  if (tex.length > MOST_CHARACTERS || DEFINES.test(tex)) return { atoms: 0, isHeavy: true };
  const outer = [];
  let atoms = 0, depth = 0, deepest = 0, before = "";
  for (const [token, name] of tex.matchAll(/\\([a-zA-Z]+|[^])|\S/gu)) {
    atoms += 1;
    const isOption = token === "[" && TAKES_OPTION.test(before);
    if (token === "{" || name === "begin" || name === "left" || isOption) {
      outer.push([depth, token]);
      depth += 1;
    } else if (token === "}" || name === "end" || name === "right" || (token === "]" && outer.at(-1)?.[1] === "[")) {
      depth = outer.pop()?.[0] ?? 0;
    } else if (SWITCHES.has(name)) {
      depth += 1;
    }
    deepest = Math.max(deepest, depth);
    before = name ?? "";
  }
  return { atoms, isHeavy: deepest > DEEPEST || atoms > MOST_ATOMS };
}

function mathsAt(text, at, isGrowing, absent) {
  const two = text.slice(at, at + 2);
  if (two === "\\[") return upTo(text, at, 2, "\\]", true, isGrowing, absent);
  if (two === "\\(") return upTo(text, at, 2, "\\)", false, isGrowing, absent);
  if (two === "$$") return upTo(text, at, 2, "$$", true, isGrowing, absent);
  if (text[at] === "$") return dollars(text, at);
  const environment = two === "\\b" && ENVIRONMENT.exec(text.slice(at, at + 40));
  if (!environment) return null;
  const close = `\\end{${environment[1]}${environment[2]}}`;
  const end = nextOf(text, close, at, absent);
  return end < 0 ? null : { tex: text.slice(at, end + close.length), display: true, end: end + close.length };
}

/** Where the next `close` is; one that was not found once is not looked for again, further on. */
function nextOf(text, close, at, absent) {
  const end = absent.has(close) ? -1 : text.indexOf(close, at);
  if (end < 0) absent.add(close);
  return end;
}

function upTo(text, at, skip, close, display, isGrowing, absent) {
  const end = nextOf(text, close, at + skip, absent);
  if (end >= 0) return { tex: text.slice(at + skip, end), display, end: end + close.length };
  return isGrowing ? { tex: text.slice(at + skip), display, end: text.length, isOpen: true } : null;
}

/** $...$ on one line: no space inside the dollars, and no digit after the second. */
function dollars(text, at) {
  const found = /^\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s\\$]|\\.)\$(?![\d$])/.exec(text.slice(at, at + 1000));
  return found ? { tex: found[1], display: false, end: at + found[0].length } : null;
}

/** An element for one piece: as KaTeX draws it, with MathML beside it for those who listen. */
export function drawMaths(piece) {
  const box = document.createElement(piece.display ? "div" : "span");
  const name = piece.display ? "maths display" : "maths";
  if (piece.display) box.tabIndex = 0;
  box.className = `${name} source`; // half a formula, or one that can't be drawn: its source is there to be read
  box.textContent = piece.source;
  if (!piece.isOpen && !piece.isHeavy) inTurn(piece.atoms, () => draw(box, name, piece));
  return box;
}

function draw(box, name, piece) {
  const drawn = document.createElement("div");
  try {
    globalThis.katex.render(piece.tex.trim(), drawn, { displayMode: piece.display, throwOnError: true,
      strict: "ignore", trust: false, maxSize: 20, maxExpand: 500 });
  } catch {
    return;
  }
  box.className = name;
  box.replaceChildren(...drawn.childNodes);
}

const waiting = [];
let spent = 0;

/** Do it now, or when the page has had a turn if much was drawn since its last one. */
function inTurn(atoms, work) {
  if (spent === 0) setTimeout(nextTurn);
  if (waiting.length === 0 && spent + atoms <= ATOMS_AT_ONCE) {
    spent += atoms + 1;
    work();
  } else {
    waiting.push({ atoms, work });
  }
}

function nextTurn() {
  spent = 0;
  while (waiting.length > 0 && (spent === 0 || spent + waiting[0].atoms <= ATOMS_AT_ONCE)) {
    const { atoms, work } = waiting.shift();
    spent += atoms + 1;
    work();
  }
  if (spent > 0) setTimeout(nextTurn);
}
