// The countdown task's own check, for the puzzle that the built-in model plays: does the sum in <answer> use each
// number once and make the target? The page works it out itself, in whole fractions. Anything else has no verdict.

const PUZZLE = /\bMake (\d+) from ([\d, ]+ and \d+)\. Use each number once\b/;

/** {kind: "right" | "wrong" | "numbers" | "unreadable" | "missing", value, target}.
 * Null where nothing can be checked. */
export function verdictOf(question, answer) {
  const puzzle = PUZZLE.exec(question);
  if (!puzzle) return null;
  const target = Number(puzzle[1]), numbers = puzzle[2].match(/\d+/g).map(Number);
  const slot = /<answer>([^<]*)<\/answer>\s*$/.exec(answer);
  if (!slot) return { kind: "missing", target };
  const found = calculate(slot[1]);
  if (!found) return { kind: "unreadable", target };
  const value = found.below === 1 ? String(found.above) : `${found.above}/${found.below}`;
  if (found.above === target * found.below) {
    return { kind: sameNumbers(found.numbers, numbers) ? "right" : "numbers", value, target };
  }
  return { kind: "wrong", value, target };
}

function sameNumbers(one, other) {
  const sorted = (list) => [...list].sort((a, b) => a - b).join(" ");
  return sorted(one) === sorted(other);
}

/** A sum of whole numbers with + - * / and brackets: {above, below, numbers}, or null if it is none. */
function calculate(text) {
  const tokens = text.replaceAll("[", "(").replaceAll("]", ")").match(/\d+|[-+*/()]|\S/g) ?? [];
  const numbers = [];
  let at = 0;
  const fraction = (above, below) => {
    if (below === 0 || above === null) return null;
    const divisor = (a, b) => (b ? divisor(b, a % b) : Math.abs(a));
    const common = (divisor(above, below) || 1) * Math.sign(below);
    return { above: above / common, below: below / common };
  };
  const atom = () => {
    const token = tokens[at++];
    if (token === "(") {
      const inside = chain(["+", "-"], term);
      return tokens[at++] === ")" ? inside : null;
    }
    if (!/^\d{1,9}$/.test(token ?? "")) return null;
    numbers.push(Number(token));
    return { above: Number(token), below: 1 };
  };
  const apply = { "+": (a, b) => fraction(a.above * b.below + b.above * a.below, a.below * b.below),
    "-": (a, b) => fraction(a.above * b.below - b.above * a.below, a.below * b.below),
    "*": (a, b) => fraction(a.above * b.above, a.below * b.below),
    "/": (a, b) => fraction(a.above * b.below, a.below * b.above) };
  const chain = (signs, part) => {
    let value = part();
    while (value && signs.includes(tokens[at])) {
      const sign = tokens[at++], right = part();
      value = right && apply[sign](value, right);
    }
    return value;
  };
  const term = () => chain(["*", "/"], atom);
  const value = tokens.length > 100 ? null : chain(["+", "-"], term);
  return value && at === tokens.length && numbers.length ? { ...value, numbers } : null;
}
