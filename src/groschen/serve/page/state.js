// The state of the page. Components read `state` and are drawn again on `notify`; what changes it is in store.js.

import * as storage from "./storage.js";

export const state = {
  settings: storage.loadSettings(), key: storage.loadKey(),
  models: [], modelsFault: null, isLoading: true,
  conversations: storage.loadConversations(), current: null, deleted: [],
  editing: null, renaming: null, dialog: null, drawer: false,
  said: "", notice: null,
};

const listeners = new Set();
let isPlanned = false;
export function subscribe(listener) { listeners.add(listener); return () => listeners.delete(listener); }

/** Draws once per frame, however often it is asked; a hidden tab draws when it is seen again. */
export function notify() {
  if (isPlanned) return;
  isPlanned = true;
  const draw = () => { isPlanned = false; listeners.forEach((listener) => listener()); };
  document.hidden ? setTimeout(draw, 200) : requestAnimationFrame(draw);
}

export function set(changes) { Object.assign(state, changes); notify(); }

/** Tells a screen reader, and shows a short notice if it should be seen too. */
export function announce(text, { isSeen = true } = {}) {
  // A text that is the same as before would not be read out: an invisible blank makes it another one.
  const said = text === state.said ? `${text}\u200b` : text;
  set({ said, notice: isSeen ? { text, id: Math.random() } : state.notice });
  if (isSeen) {
    const { id } = state.notice;
    setTimeout(() => { if (state.notice?.id === id) set({ notice: null }); }, 5000);
  }
}
