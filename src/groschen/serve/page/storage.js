// What the browser keeps: settings and conversations in localStorage, the API key for this tab alone.
// One entry per conversation, so that saving one never costs writing them all.

const CHAT = "groschen.chat.", SETTINGS = "groschen.settings", KEY = "groschen.key";

export const DEFAULTS = {
  model: "", second: "", system: "", temperature: null, topP: null, maxTokens: null, seed: null,
  thinking: "default", budget: 256, probabilities: false, letters: true, live: true, theme: "system",
};

function read(storage, name) {
  try { return JSON.parse(storage.getItem(name)); } catch { return null; }
}

export const loadSettings = () => ({ ...DEFAULTS, ...(read(localStorage, SETTINGS) ?? {}) });

export function saveSettings(settings) {
  try { localStorage.setItem(SETTINGS, JSON.stringify(settings)); } catch { /* they hold until the tab closes */ }
}

export const loadKey = () => { try { return sessionStorage.getItem(KEY) ?? ""; } catch { return ""; } };

export function saveKey(key) {
  try { key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY); } catch { /* as above */ }
}

/** All conversations, the latest first. An answer that was cut off by closing the tab counts as stopped. */
export function loadConversations() {
  const found = [];
  try {
    for (const name of Object.keys(localStorage).filter((each) => each.startsWith(CHAT))) {
      const conversation = read(localStorage, name);
      if (!conversation || !Array.isArray(conversation.nodes)) continue;
      for (const answer of conversation.nodes.flatMap((node) => node.answers ?? [])) {
        if (!["done", "stopped", "failed"].includes(answer.state)) answer.state = "stopped";
      }
      found.push(conversation);
    }
  } catch { /* storage is shut */ }
  return found.sort((a, b) => b.updated - a.updated);
}

/** "saved"; "slim" if it only fitted without probabilities; "full" if it is not kept. */
export function saveConversation(conversation) {
  const name = CHAT + conversation.id;
  try {
    localStorage.setItem(name, JSON.stringify(conversation));
    return "saved";
  } catch { /* too large: try without the probabilities, which are nine tenths of it */ }
  try {
    localStorage.setItem(name, JSON.stringify(conversation, (field, value) =>
      (field === "tokens" || field === "reasoningTokens" ? null : value)));
    return "slim";
  } catch {
    return "full";
  }
}

export function forgetConversation(id) {
  try { localStorage.removeItem(CHAT + id); } catch { /* nothing was kept */ }
}

export const isConversationKey = (name) => Boolean(name?.startsWith(CHAT));
