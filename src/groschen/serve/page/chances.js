// The probability view: every token marked by how likely it was, and on demand what else could have stood there.
// Marks differ in underline as well as in colour. One tab stop for all tokens; arrow keys walk between them.

import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { percent, t } from "./words.js";

/** Lower ends of the classes, the likeliest first. */
export const CLASSES = [0.9, 0.6, 0.3, 0.1, 0];
const classOf = (chance) => CLASSES.findIndex((low) => chance >= low);
const CHUNK = 64; // tokens that are drawn, and left alone, together
const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };

export function Chances({ tokens, name }) {
  const [at, setAt] = useState(null);
  const [focus, setFocus] = useState(0);
  const box = useRef(null);
  useCloseOnEscape(at !== null, () => setAt(null));
  const show = (event) => {
    const token = event.target.closest("[data-token]");
    if (token) setAt(Number(token.dataset.token));
  };
  // What appears under a mouse that rests was not pointed at.
  const point = (event) => { if (event.movementX || event.movementY) show(event); };
  const walk = (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(tokens.length - 1, focus + step));
    setFocus(next);
    box.current.querySelector(`[data-token="${next}"]`)?.focus();
  };
  const onFocus = (event) => { show(event); setFocus(Number(event.target.dataset.token ?? focus)); };
  const onBlur = (event) => { if (!box.current.contains(event.relatedTarget)) setAt(null); };
  const onMouseLeave = () => { if (!box.current.contains(document.activeElement)) setAt(null); };
  const chunks = Array.from({ length: Math.ceil(tokens.length / CHUNK) }, (_, index) => index);
  return html`<div class="chances" ref=${box} onMouseLeave=${onMouseLeave} onfocusout=${onBlur}>
    <div class="tokens" role="group" aria-label=${t("chances.group", { name })} dir="auto"
      onMouseMove=${point} onfocusin=${onFocus} onClick=${show} onKeyDown=${walk}>
      ${chunks.map((index) => html`<${Chunk} key=${index} from=${index * CHUNK}
        tokens=${tokens.slice(index * CHUNK, (index + 1) * CHUNK)}
        focus=${Math.floor(focus / CHUNK) === index ? focus : -1} />`)}
    </div>
    ${at !== null && tokens[at] && html`<${Alternatives} token=${tokens[at]} index=${at} box=${box} />`}
  </div>`;
}

/** Esc closes the table wherever the focus is, before it would stop an answer. */
function useCloseOnEscape(isOpen, close) {
  useEffect(() => {
    if (!isOpen) return undefined;
    const listen = (event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } };
    addEventListener("keydown", listen, true);
    return () => removeEventListener("keydown", listen, true);
  }, [isOpen]);
}

class Chunk extends Component {
  shouldComponentUpdate(next) {
    return next.tokens.length !== this.props.tokens.length || next.focus !== this.props.focus;
  }
  render({ tokens, from, focus }) {
    return tokens.map((token, index) => html`<${Token} key=${index} token=${token} index=${from + index}
      isStop=${from + index === focus} />`);
  }
}

function Token({ token: [text, logprob], index, isStop }) {
  const chance = Math.exp(logprob);
  return html`<span class=${`token class${classOf(chance)}`} data-token=${index} role="button"
    tabindex=${isStop ? 0 : -1} aria-label=${`${spoken(text)}, ${percent(chance)}`}>
    ${drawn(text)}</span>${text.includes("\n") ? "\n" : ""}`;
}

const signs = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");

/** As it stands in the text, with signs for what can't be seen; a line break breaks the line after its token too. */
const drawn = (text) => signs(text).replace(/^ +$/, (blanks) => "·".repeat(blanks.length)) || "∅";

/** As it stands alone, every blank a dot. */
const quoted = (text) => signs(text).replace(/ /g, "·") || "∅";

function spoken(text) {
  if (text.trim()) return text.trim();
  return t(text.includes("\n") ? "chances.newline" : text ? "chances.blank" : "chances.nothing");
}

/** The small table of what could have stood at this place, below its token or above it where there is no room. */
function Alternatives({ token: [text, logprob, others], index, box }) {
  const panel = useRef(null);
  useLayoutEffect(() => {
    const token = box.current.querySelector(`[data-token="${index}"]`);
    if (!token) return;
    const frame = box.current.getBoundingClientRect();
    const place = token.getClientRects()[0] ?? token.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = panel.current;
    const left = Math.max(0, Math.min(place.left - frame.left, frame.width - width));
    const end = box.current.closest("main").getBoundingClientRect().bottom;
    const top = place.bottom + height + 10 > end ? place.top - height - 6 : place.bottom + 6;
    Object.assign(panel.current.style, { left: `${left}px`, top: `${top - frame.top}px` });
  });
  const rows = [...others.filter(([other]) => other !== text), [text, logprob]].sort((a, b) => b[1] - a[1]);
  const rest = 1 - rows.reduce((sum, [, each]) => sum + Math.exp(each), 0);
  return html`<div class="alternatives" ref=${panel} role="status">
    <table><caption>${t("chances.caption", { place: index + 1 })}</caption>
      <thead><tr><th scope="col">${t("chances.token")}</th><th scope="col">${t("chances.chance")}</th></tr></thead>
      <tbody>
        ${rows.map(([other, each], place) => html`<${Row} key=${place} text=${other} chance=${Math.exp(each)}
          isTaken=${other === text} />`)}
        ${rest > 0.0005 && html`<tr class="rest"><th scope="row">${t("chances.rest")}</th>
          <td>${percent(rest)}</td></tr>`}
      </tbody></table></div>`;
}

function Row({ text, chance, isTaken }) {
  return html`<tr class=${isTaken ? "taken" : ""}>
    <th scope="row"><code>${quoted(text)}</code>
      ${isTaken && html`${" "}<span class="mark">${t("chances.taken")}</span>`}</th>
    <td><span class="share" style=${{ inlineSize: `${chance * 3}rem` }}></span>${percent(chance)}</td></tr>`;
}

/** What the marks mean. */
export function Legend() {
  const text = (low, index) => {
    if (index === 0) return t("chances.over", { low: percent(low) });
    const high = percent(CLASSES[index - 1]);
    return low === 0 ? t("chances.under", { high }) : t("chances.between", { low: percent(low), high });
  };
  return html`<div class="legend"><span id="legend-name">${t("chances.legend")}</span>
    <ul aria-labelledby="legend-name">${CLASSES.map((low, index) => html`<li key=${low}>
      <span class=${`token class${index}`}>${text(low, index)}</span></li>`)}</ul>
    <span class="note">${t("chances.how")}</span></div>`;
}
