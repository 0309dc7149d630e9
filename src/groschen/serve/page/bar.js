// The bar above a conversation: which model answers, which one beside it, and whether probabilities are shown.

import { html } from "./vendor/htm-preact.js";
import { Icon, IconButton } from "./parts.js";
import { state } from "./state.js";
import { changeSettings, showSide } from "./store.js";
import { t } from "./words.js";

export function Bar() {
  const { models, settings } = state;
  const options = models.map(({ id }) => html`<option value=${id}>${id}</option>`);
  const choose = (name) => (event) => changeSettings({ [name]: event.target.value });
  return html`<header class="bar">
    <${IconButton} id="open-side" icon="menu" class="narrow-only" name=${t("side.open")} aria-controls="side"
      aria-expanded=${String(state.drawer)} onClick=${showSide} />
    <div class="models">
      <label class="hidden" for="model">${t("bar.model")}</label>
      <select id="model" value=${settings.model} disabled=${models.length === 0} onChange=${choose("model")}>
        ${models.length === 0 && html`<option value="">${t("bar.no_model")}</option>`}${options}</select>
      ${models.length > 1 && html`<label class="hidden" for="second">${t("bar.second")}</label>
        <span class=${settings.second ? "second" : "second unset"}><${Icon} name="pair" />
          <select id="second" value=${settings.second} onChange=${choose("second")}>
            <option value="">${t("bar.compare")}</option>${options}</select></span>`}
    </div>
    <button type="button" class="toggle" aria-pressed=${String(settings.probabilities)} title=${t("bar.chances")}
      onClick=${() => changeSettings({ probabilities: !settings.probabilities })}>
      <${Icon} name="chance" /><span>${t("bar.chances")}</span></button>
  </header>`;
}
