// The dialog that lists every key.

import { html } from "./vendor/htm-preact.js";
import { KEYS } from "./keys.js";
import { Dialog } from "./parts.js";
import { Switch } from "./settings.js";
import { set } from "./state.js";
import { t } from "./words.js";

export function Help() {
  return html`<${Dialog} title=${t("help.title")} onClose=${() => set({ dialog: null })}>
    <p class="note">${t("help.intro")}</p>
    <dl class="keys">${KEYS.map(([key, name]) => html`<div>
      <dt>${key.split("+").map((each) => html`<kbd>${named(each)}</kbd>`)}</dt><dd>${t(name)}</dd></div>`)}</dl>
    <${Switch} name="letters" />
    <p class="note">${t("help.privacy")}</p>
  <//>`;
}

const named = (key) => (key === "Shift" ? t("key.Shift") : key);
