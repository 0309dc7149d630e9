// Where a message is written. Enter sends, Shift+Enter breaks the line; while an answer runs the button stops it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { focusMessage, Icon } from "./parts.js";
import { chosenModels, current, isBusy, send, stop } from "./store.js";
import { t } from "./words.js";

const drafts = new Map(); // by conversation, so that switching loses nothing

export function Composer() {
  const conversation = current(), name = conversation?.id ?? "new";
  const [text, setText] = useState(drafts.get(name) ?? "");
  const field = useRef(null);
  const isRunning = isBusy(conversation), canSend = text.trim() !== "" && chosenModels().length > 0;
  useEffect(() => { setText(drafts.get(name) ?? ""); }, [name]);
  useEffect(focusMessage, []);
  useLayoutEffect(() => grow(field.current), [text]);
  const write = (value) => { drafts.set(name, value); setText(value); };
  const submit = () => {
    if (isRunning || !canSend) return;
    send(text);
    drafts.delete(name);
    setText("");
    field.current.focus();
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      submit();
    }
  };
  return html`<form class="composer" onSubmit=${(event) => { event.preventDefault(); submit(); }}>
    <label class="hidden" for="message">${t("composer.label")}</label>
    <textarea id="message" ref=${field} rows="1" value=${text} placeholder=${t("composer.placeholder")} dir="auto"
      enterkeyhint="send" autocomplete="off" aria-describedby="composer-hint"
      onInput=${(event) => write(event.target.value)} onKeyDown=${onKeyDown}></textarea>
    ${isRunning
      ? html`<button key="stop" type="button" class="round" aria-label=${t("action.stop")} title=${t("action.stop_key")}
          onClick=${() => { stop(); focusMessage(); }}><${Icon} name="stop" /></button>`
      : html`<button key="send" type="submit" class="round" aria-label=${t("action.send")} title=${t("action.send_key")}
          aria-disabled=${String(!canSend)}><${Icon} name="send" /></button>`}
  </form><p id="composer-hint" class="hint">${t("composer.hint")}</p>`;
}

/** As high as its text, up to a third of the window. */
export function grow(field) {
  if (!field) return;
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight / 3)}px`;
}
