// What a person said, with its versions and the field to say it differently.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { grow } from "./composer.js";
import { copyText } from "./copy.js";
import { focusMessage, IconButton } from "./parts.js";
import { set, state } from "./state.js";
import { choose, isBusy, resend } from "./store.js";
import { versions } from "./tree.js";
import { t } from "./words.js";

export function Question({ conversation, node }) {
  if (state.editing === node.id) {
    return html`<article class="question" aria-label=${t("message.you")}>
      <${Editor} key=${node.id} node=${node} /></article>`;
  }
  const copy = () => copyText(node.text, "copied.text");
  const edit = () => set({ editing: node.id });
  return html`<article class="question" data-node=${node.id} aria-label=${t("message.you")}>
    <h2 class="hidden">${t("message.you")}</h2>
    <div class="said" dir="auto">${node.text}</div>
    <div class="actions"><${Versions} ...${{ conversation, node }} />
      <${IconButton} icon="edit" name=${t("action.edit")} disabled=${isBusy(conversation)} onClick=${edit} />
      <${IconButton} icon="copy" name=${t("action.copy_question")} onClick=${copy} /></div>
  </article>`;
}

function Editor({ node }) {
  const field = useRef(null);
  const [text, setText] = useState(node.text);
  useEffect(() => {
    grow(field.current);
    field.current.focus();
    field.current.setSelectionRange(text.length, text.length);
  }, []);
  const close = () => { set({ editing: null }); focusMessage(); };
  const submit = () => { resend(node, text); focusMessage(); };
  const onInput = (event) => { setText(event.target.value); grow(event.target); };
  const onKeyDown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); close(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
  };
  return html`<div class="editor">
    <textarea ref=${field} value=${text} aria-label=${t("message.edit")} dir="auto" onInput=${onInput}
      onKeyDown=${onKeyDown}></textarea>
    <div class="editor-actions"><button type="button" class="plain" onClick=${close}>${t("action.cancel")}</button>
      <button type="button" class="strong" onClick=${submit}>${t("action.send_again")}</button></div></div>`;
}

/** < 1/2 >. At either end the button stays, so that the focus does too, and says that it can't be used. */
export function Versions({ conversation, node }) {
  const { index, ids } = versions(conversation, node);
  if (ids.length < 2) return null;
  const isFree = !isBusy(conversation);
  const step = (icon, name, by) => {
    const canGo = isFree && ids[index + by] !== undefined;
    const go = () => { if (canGo) choose(node, ids[index + by]); };
    return html`<${IconButton} icon=${icon} name=${name} aria-disabled=${String(!canGo)} onClick=${go} />`;
  };
  return html`<span class="versions" role="group" aria-label=${t("versions.name")}>
    ${step("left", t("versions.before"), -1)}
    <span><span aria-hidden="true">${index + 1}\u202f/\u202f${ids.length}</span>
      <span class="hidden">${t("versions.of", { index: index + 1, total: ids.length })}</span></span>
    ${step("right", t("versions.after"), 1)}
  </span>`;
}
