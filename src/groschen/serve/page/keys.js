// Every key of the page, in one table: what is pressed, what it is called in the help, and what it does.
// Single letters never act while something is typed, and can be switched off (WCAG 2.1.4).

import { copyText } from "./copy.js";
import { focusMessage } from "./parts.js";
import { set, state } from "./state.js";
import {
  changeSettings, choose, current, hideSide, isBusy, open, regenerate, startNew, stop, undoRemove,
} from "./store.js";
import { childrenOf, path } from "./tree.js";

const last = (role) => current() && path(current()).filter((node) => node.role === role).at(-1);

function toggleReasoning() {
  [...document.querySelectorAll(".answers:last-of-type .reasoning summary")].forEach((summary) => summary.click());
}

function copyLast() {
  const text = last("assistant")?.answers[0].text;
  if (text) copyText(text, "copied.text");
}

function version(step) {
  const nodes = current() && !isBusy(current()) ? path(current()) : [];
  const node = nodes.filter((each) => childrenOf(current(), each.parent).length > 1).at(-1);
  if (!node) return;
  const ids = childrenOf(current(), node.parent).map((each) => each.id);
  const next = ids[ids.indexOf(node.id) + step];
  if (next) choose(node, next);
}

function neighbour(step) {
  const ids = state.conversations.map((each) => each.id), place = ids.indexOf(state.current);
  const next = ids[place < 0 ? 0 : place + step];
  if (next) open(next);
}

/** [key, name in the catalogue, what it does]; an action of null is handled where it is typed. */
export const KEYS = [
  ["Enter", "keys.send", null], ["Shift+Enter", "keys.line", null], ["Esc", "keys.stop", null],
  ["/", "keys.focus", () => document.getElementById("message")?.focus()],
  ["n", "keys.new", () => { startNew(); focusMessage(); }],
  ["j", "keys.next", () => neighbour(1)], ["k", "keys.before", () => neighbour(-1)],
  ["e", "keys.edit", () => { const node = last("user"); if (node && !isBusy(current())) set({ editing: node.id }); }],
  ["r", "keys.again", () => { const node = last("assistant"); if (node) { regenerate(node); focusMessage(); } }],
  ["<", "keys.version_before", () => version(-1)], [">", "keys.version_after", () => version(1)],
  ["c", "keys.copy", copyLast],
  ["t", "keys.reasoning", toggleReasoning],
  ["p", "keys.chances", () => changeSettings({ probabilities: !state.settings.probabilities })],
  ["u", "keys.undo", undoRemove], [",", "keys.settings", () => set({ dialog: "settings" })],
  ["?", "keys.help", () => set({ dialog: "help" })],
];

const isTyping = (element) => element?.closest(
  "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");

export function onKey(event) {
  if (event.defaultPrevented || event.isComposing) return;
  if (event.key === "Escape") {
    if (document.querySelector("dialog[open], :popover-open")) return;
    if (state.drawer) hideSide();
    else stop();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !state.settings.letters) return;
  if (state.dialog || isTyping(event.target) || document.querySelector(":popover-open")) return;
  const found = KEYS.find(([key, , action]) => key === event.key && action);
  if (!found) return;
  event.preventDefault();
  found[2]();
}
