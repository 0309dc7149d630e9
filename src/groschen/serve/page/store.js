// Everything that changes the state of the page: settings, conversations, and talking to models.

import { isServerLoading, listModels } from "./api.js";
import { requestBody, runAnswer } from "./answer.js";
import { plainText } from "./markdown.js";
import { announce, notify, set, state } from "./state.js";
import * as storage from "./storage.js";
import * as tree from "./tree.js";
import { t } from "./words.js";

// -- settings and models

export function changeSettings(changes) {
  state.settings = { ...state.settings, ...changes };
  storage.saveSettings(state.settings);
  const { theme } = state.settings;
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  notify();
}

export function changeKey(key) {
  storage.saveKey(key);
  set({ key });
  return refreshModels();
}

const LOADING_LOOKS_MS = 2000; // between two looks at a server that is still loading
let nextLook = 0;

export async function refreshModels() {
  clearTimeout(nextLook);
  set({ isLoading: true });
  let models = [], modelsFault = null;
  try {
    models = await listModels(state.key);
    if (models.length === 0) modelsFault = { kind: (await isServerLoading()) ? "loading" : "none", message: "" };
  } catch (error) {
    modelsFault = { kind: error.kind ?? "offline", message: error.message };
  }
  set({ models, modelsFault, isLoading: false });
  if (modelsFault?.kind === "loading") nextLook = setTimeout(refreshModels, LOADING_LOOKS_MS);
  if (modelsFault) return;
  const ids = models.map((model) => model.id);
  const { model, second } = state.settings;
  if (!ids.includes(model)) changeSettings({ model: ids[0] });
  if (second && !ids.includes(second)) changeSettings({ second: "" });
}

export const chosenModels = () => [state.settings.model, state.settings.second]
  .filter((id) => state.models.some((model) => model.id === id));

// -- conversations

export const current = () => state.conversations.find((each) => each.id === state.current) ?? null;

export function open(id) {
  if (id !== state.current) history.pushState(null, "", id ? `#${id}` : location.pathname);
  set({ current: id, editing: null, renaming: null, drawer: false });
}

/** What the address names: the way back and a reload lead to the same conversation. */
export function openAddressed() {
  const id = location.hash.slice(1);
  if (id === "" || state.conversations.some((each) => each.id === id)) set({ current: id || null, editing: null });
}

const DRAWN_MS = 50; // after which what was inert can take the focus

/** The list of a narrow screen, and the focus with it. */
export function showSide() {
  set({ drawer: true });
  setTimeout(() => document.querySelector(".side .new")?.focus(), DRAWN_MS);
}

export function hideSide() {
  set({ drawer: false });
  setTimeout(() => document.getElementById("open-side")?.focus(), DRAWN_MS);
}

export function startNew() { open(null); }

function save(conversation) {
  const kept = storage.saveConversation(conversation);
  if (kept === "full") announce(t("storage.full"));
  if (kept === "slim") announce(t("storage.slim"));
}

export function rename(id, title) {
  const conversation = state.conversations.find((each) => each.id === id);
  if (conversation && title.trim()) {
    Object.assign(conversation, { title: title.trim(), isNamed: true });
    save(conversation);
  }
  set({ renaming: null });
}

const KEPT_DELETED = 10;

export function remove(id) {
  const conversation = state.conversations.find((each) => each.id === id);
  if (!conversation) return;
  stop(conversation);
  storage.forgetConversation(id);
  set({ conversations: state.conversations.filter((each) => each.id !== id),
    deleted: [...state.deleted, conversation].slice(-KEPT_DELETED) });
  announce(t("deleted.said", { title: conversation.title }), { isSeen: false });
  if (state.current === id) startNew();
}

export function undoRemove() {
  const conversation = state.deleted.at(-1);
  if (!conversation) return;
  save(conversation);
  set({ deleted: state.deleted.slice(0, -1),
    conversations: [conversation, ...state.conversations].sort((a, b) => b.updated - a.updated) });
  announce(t("deleted.undone", { title: conversation.title }), { isSeen: false });
  open(conversation.id);
}

// -- talking

const running = new Map(); // conversation id -> [AbortController]

export const isBusy = (conversation) => Boolean(conversation && running.has(conversation.id));

export function send(text) {
  const models = chosenModels();
  if (!text.trim() || models.length === 0) return;
  let conversation = current();
  if (isBusy(conversation)) return;
  if (!conversation) {
    conversation = tree.newConversation();
    state.conversations = [conversation, ...state.conversations];
    open(conversation.id);
  }
  const last = tree.path(conversation).at(-1);
  answer(conversation, tree.addUser(conversation, last?.id ?? null, text.trim()).id);
}

export function resend(node, text) {
  const conversation = current();
  set({ editing: null });
  if (!conversation || isBusy(conversation) || !text.trim() || chosenModels().length === 0) return;
  answer(conversation, tree.addUser(conversation, node.parent, text.trim()).id);
}

export function regenerate(node) {
  const conversation = current();
  if (conversation && !isBusy(conversation) && chosenModels().length) answer(conversation, node.parent);
}

/** Asks again in the place of an answer that failed before it had said anything, else beside it. */
export async function retry(node) {
  const conversation = current();
  if (chosenModels().length === 0) await refreshModels();
  if (!conversation || isBusy(conversation) || chosenModels().length === 0) return;
  const isEmpty = node.answers.every((each) => each.state === "failed" && !each.text && !each.reasoning);
  if (isEmpty) tree.drop(conversation, node);
  answer(conversation, node.parent);
}

export function choose(node, id) {
  const conversation = current();
  tree.choose(conversation, node, id);
  save(conversation);
  notify();
}

/** Asks every chosen model at once for an answer to the user message `parent`. */
async function answer(conversation, parent) {
  const { settings, key } = state;
  const node = tree.addAnswers(conversation, parent, chosenModels());
  const controllers = node.answers.map(() => new AbortController());
  running.set(conversation.id, controllers);
  save(conversation);
  announce(t("status.answering"), { isSeen: false });
  await Promise.all(node.answers.map((each, column) => {
    const messages = tree.messagesAbove(conversation, node, column, settings.system.trim());
    const model = state.models.find((one) => one.id === each.model);
    return runAnswer(each, requestBody(model, messages, settings), key, controllers[column].signal, notify);
  }));
  running.delete(conversation.id);
  conversation.updated = Date.now();
  if (state.conversations.includes(conversation)) save(conversation);
  if (state.current === conversation.id) announce(spoken(node), { isSeen: false });
  notify();
}

/** The whole answer once, for those who listen. */
function spoken(node) {
  return node.answers.map((each) => {
    const name = node.answers.length > 1 ? `${each.model}: ` : "";
    const said = plainText(each.text) || (each.state === "done" ? t("answer.empty") : "");
    const end = each.state === "failed" ? t(`fault.${each.fault.kind}`)
      : each.state === "stopped" ? t("finish.stopped") : "";
    return `${name}${said} ${end}`.trim();
  }).join(" ");
}

export function stop(conversation = current()) {
  running.get(conversation?.id)?.forEach((controller) => controller.abort());
}

// What is being written when the tab is closed is kept as far as it came.
addEventListener("pagehide", () => state.conversations.filter(isBusy).forEach(storage.saveConversation));

// Another tab of this browser has written: read again what is not being written here.
addEventListener("storage", (event) => {
  if (!storage.isConversationKey(event.key)) return;
  const ours = new Map(state.conversations.filter(isBusy).map((each) => [each.id, each]));
  const read = storage.loadConversations().map((each) => ours.get(each.id) ?? each);
  set({ conversations: read, current: read.some((each) => each.id === state.current) ? state.current : null });
});
