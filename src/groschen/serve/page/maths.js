// Maths inside a model's text: cut out before Markdown, drawn by KaTeX afterwards.
// Markdown would eat the backslashes of \( \) and make <em> of $a_1*b*c$. A cut leaves one private character,
// an index and another private character; code is left alone, and so are amounts of money ("$5 and $10").

const OPEN = "\uE000", CLOSE = "\uE001";
export const MARK = /\uE000(\d+)\uE001/g;

const ENVIRONMENT = /^\\begin\{(align|aligned|equation|gather|gathered|alignat|cases|[bpvBV]?matrix|array)(\*?)\}/;

/** {text, pieces}: pieces[i] = {tex, display, source, isOpen}. isOpen: the end has not been written yet. */
export function cutMaths(input, isGrowing) {
  const text = input.replace(/[\uE000\uE001]/g, "\uFFFD");
  const pieces = [];
  let out = "", at = 0;
  while (at < text.length) {
    const code = codeAt(text, at);
    if (code) {
      out += text.slice(at, code);
      at = code;
      continue;
    }
    const found = mathsAt(text, at, isGrowing);
    if (found) {
      out += `${OPEN}${pieces.length}${CLOSE}`;
      pieces.push({ ...found, source: text.slice(at, found.end) });
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

function mathsAt(text, at, isGrowing) {
  const two = text.slice(at, at + 2);
  if (two === "\\[") return upTo(text, at, 2, "\\]", true, isGrowing);
  if (two === "\\(") return upTo(text, at, 2, "\\)", false, isGrowing);
  if (two === "$$") return upTo(text, at, 2, "$$", true, isGrowing);
  if (text[at] === "$") return dollars(text, at);
  const environment = two === "\\b" && ENVIRONMENT.exec(text.slice(at, at + 40));
  if (!environment) return null;
  const close = `\\end{${environment[1]}${environment[2]}}`;
  const end = text.indexOf(close, at);
  return end < 0 ? null : { tex: text.slice(at, end + close.length), display: true, end: end + close.length };
}

function upTo(text, at, skip, close, display, isGrowing) {
  const end = text.indexOf(close, at + skip);
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
  box.className = piece.display ? "maths display" : "maths";
  if (piece.display) box.tabIndex = 0;
  try {
    if (piece.isOpen) throw new Error("not yet whole");
    globalThis.katex.render(piece.tex.trim(), box, { displayMode: piece.display, throwOnError: true, strict: "ignore",
      trust: false, maxSize: 20, maxExpand: 500 });
  } catch { // half a formula, or none at all: its source is what there is to be read
    box.classList.add("source");
    box.textContent = piece.source;
  }
  return box;
}
