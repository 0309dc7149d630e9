// What went wrong, in words: what it means, what the server said, what to do, and a way to try again.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { focusMessage } from "./parts.js";
import { set, state } from "./state.js";
import { current, isBusy, refreshModels, retry } from "./store.js";
import { t } from "./words.js";

/** The fault of one answer. */
export function Fault({ fault, node, hasText }) {
  const left = useCountdown(fault.retryAfter), isFree = !isBusy(current());
  const again = () => { retry(node); focusMessage(); };
  return html`<div class="fault"><p class="what">${t(`fault.${fault.kind}`)}${hasText ? ` ${t("fault.kept")}` : ""}</p>
    <${Told} message=${fault.message} />
    <p>${t(`remedy.${fault.kind}`)}</p>
    <div class="fault-actions"><${EnterKey} kind=${fault.kind} />
      <button type="button" class="plain" disabled=${left > 0 || !isFree} onClick=${again}>
        ${left > 0 ? t("action.retry_in", { count: left }) : t("action.retry")}</button></div>
  </div>`;
}

/** The page could not learn which models there are. */
export function NoModels() {
  const { modelsFault, isLoading } = state;
  if (!modelsFault) return null;
  const { kind, message } = modelsFault;
  return html`<div class="fault" role="alert"><p class="what">${t(`fault.${kind}`)}</p>
    <${Told} message=${message} /><p>${t(`remedy.${kind}`)}</p>
    <div class="fault-actions"><${EnterKey} kind=${kind} />
      <button type="button" class="plain" disabled=${isLoading} onClick=${refreshModels}>${t("action.retry")}</button>
    </div></div>`;
}

function Told({ message }) {
  return message && html`<p class="told"><span class="hidden">${t("fault.said")} </span>${message}</p>`;
}

function EnterKey({ kind }) {
  return kind === "key" && html`<button type="button" class="strong"
    onClick=${() => set({ dialog: "settings" })}>${t("action.enter_key")}</button>`;
}

/** Whole seconds until a server that is busy wants to be asked again. */
function useCountdown(total) {
  const [left, setLeft] = useState(Math.ceil(total ?? 0));
  useEffect(() => {
    if (left <= 0) return undefined;
    const timer = setTimeout(() => setLeft(left - 1), 1000);
    return () => clearTimeout(timer);
  }, [left]);
  return left;
}
