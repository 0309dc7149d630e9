// The list of conversations, with what can be done to each, and the page's own switches below it.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { download } from "./copy.js";
import { focusMessage, Icon, IconButton, Menu } from "./parts.js";
import { set, state } from "./state.js";
import { changeSettings, hideSide, isBusy, open, remove, rename, startNew, undoRemove } from "./store.js";
import { asMarkdown } from "./tree.js";
import { currentLanguage, LANGUAGES, moment, rememberLanguage, t, useLanguage } from "./words.js";

export function Side({ inert }) {
  const { conversations, deleted } = state;
  const begin = (event) => { event.preventDefault(); startNew(); focusMessage(); };
  return html`<nav class="side" id="side" aria-label=${t("side.name")} inert=${inert}>
    <div class="side-top"><a class="brand" href="/" onClick=${begin}>groschen</a>
      <${IconButton} icon="close" class="narrow-only" name=${t("side.close")} onClick=${hideSide} />
    </div>
    <button type="button" class="new" onClick=${begin}><${Icon} name="plus" />${t("side.new")}</button>
    <h2 class="hidden">${t("side.conversations")}</h2>
    <ul class="conversations">
      ${conversations.map((each) => html`<${Item} key=${each.id} conversation=${each} />`)}
      ${conversations.length === 0 && html`<li class="note">${t("side.none")}</li>`}</ul>
    ${deleted.length > 0 && html`<p class="undo"><span>${t("deleted.last", { title: deleted.at(-1).title })}</span>
      <button type="button" class="quiet" onClick=${undoRemove}>${t("action.undo")}</button>
      <${IconButton} icon="close" name=${t("action.dismiss")} onClick=${() => set({ deleted: [] })} /></p>`}
    <${Switches} />
  </nav>`;
}

function Item({ conversation }) {
  const { id, title, updated } = conversation, isCurrent = id === state.current;
  if (state.renaming === id) return html`<li><${Rename} conversation=${conversation} /></li>`;
  const show = () => {
    const wasDrawer = state.drawer;
    open(id);
    if (wasDrawer) focusMessage(); // the list is out of reach now
  };
  const actions = [
    [t("action.rename"), () => set({ renaming: id })],
    [t("action.export_markdown"), () => exportAs(conversation, "md")],
    [t("action.export_json"), () => exportAs(conversation, "json")],
    [t("action.delete"), () => { remove(id); focusMessage(); }, true],
  ];
  return html`<li class=${isCurrent ? "current" : ""}>
    <button type="button" class="conversation" aria-current=${isCurrent ? "page" : null} title=${moment(updated)}
      onClick=${show}>${title}
      ${isBusy(conversation) && html`<span class="pulse" role="img" aria-label=${t("status.answering")}></span>`}
    </button>
    <${Menu} id=${`menu-${id}`} name=${t("side.actions", { title })} actions=${actions} />
  </li>`;
}

function Rename({ conversation: { id, title } }) {
  const field = useRef(null);
  useEffect(() => { field.current.focus(); field.current.select(); }, []);
  const onKeyDown = (event) => {
    if (event.key === "Enter") rename(id, field.current.value);
    if (event.key === "Escape") { event.stopPropagation(); set({ renaming: null }); }
  };
  const onBlur = () => { if (state.renaming === id) rename(id, field.current.value); };
  return html`<input class="rename" ref=${field} value=${title} maxlength="120"
    aria-label=${t("side.title_of", { title })} onKeyDown=${onKeyDown} onBlur=${onBlur} />`;
}

function exportAs(conversation, kind) {
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
  if (kind === "json") {
    download(`${name}.json`, `${JSON.stringify(conversation, null, 1)}\n`, "application/json");
  } else {
    const words = { you: t("message.you"), reasoning: t("reasoning.name"), nothing: t("answer.empty") };
    download(`${name}.md`, asMarkdown(conversation, words), "text/markdown");
  }
}

const THEMES = { // what is drawn for each, and which one comes next
  system: { icon: "auto", next: "light" }, light: { icon: "sun", next: "dark" }, dark: { icon: "moon", next: "system" },
};
const NAMES = { en: "EN: English", de: "DE: Deutsch" };

function Switches() {
  const { theme } = state.settings, { icon, next } = THEMES[theme];
  const choose = async (language) => {
    await useLanguage(language);
    rememberLanguage(language);
    set({ said: t("language.changed") });
  };
  return html`<div class="switches">
    <button type="button" class="quiet" onClick=${() => set({ dialog: "settings" })}>
      <${Icon} name="settings" />${t("settings.title")}</button>
    <span class="switch-row">
      <${IconButton} icon=${icon} name=${t(`theme.${theme}`)} onClick=${() => changeSettings({ theme: next })} />
      <${IconButton} icon="help" name=${t("help.title")} onClick=${() => set({ dialog: "help" })} />
      <span class="languages" role="group" aria-label=${t("language.name")}>
        ${LANGUAGES.map((each) => html`<button type="button" lang=${each} aria-label=${NAMES[each]}
          aria-pressed=${String(each === currentLanguage())}
          onClick=${() => choose(each)}>${each.toUpperCase()}</button>`)}
      </span></span>
  </div>`;
}
