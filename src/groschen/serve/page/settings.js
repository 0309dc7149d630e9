// The settings dialog. A field is checked when it is left; what is wrong is said beside it and not taken over.

import { html, useState } from "./vendor/htm-preact.js";
import { Dialog } from "./parts.js";
import { set, state } from "./state.js";
import { changeKey, changeSettings, chosenModels } from "./store.js";
import { number, t, typedNumber, written } from "./words.js";

const MAX_SEED = 2 ** 53 - 1, MAX_TOKENS = 1_000_000;

export function Settings() {
  const { settings, key } = state;
  return html`<${Dialog} title=${t("settings.title")} onClose=${() => set({ dialog: null })}>
    <section><h3>${t("settings.prompt")}</h3>
      <div class="field"><label for="system">${t("settings.system")}</label>
        <textarea id="system" rows="3" value=${settings.system} dir="auto" aria-describedby="system-note"
          onInput=${(event) => changeSettings({ system: event.target.value })}></textarea>
        <p class="note" id="system-note">${t("settings.system_note")}</p></div></section>
    <section><h3>${t("settings.sampling")}</h3><p class="note">${t("settings.empty_note")}</p>
      <div class="fields">
        <${NumberField} name="temperature" low=${0} high=${2} />
        <${NumberField} name="topP" low=${0} high=${1} />
        <${NumberField} name="maxTokens" low=${1} high=${MAX_TOKENS} isWhole=${true} />
        <${NumberField} name="seed" low=${0} high=${MAX_SEED} isWhole=${true} />
      </div></section>
    <section><h3>${t("settings.thinking")}</h3><${Thinking} settings=${settings} /></section>
    <section><h3>${t("settings.page")}</h3>
      <${Switch} name="live" /><${Switch} name="probabilities" /><${Switch} name="letters" /></section>
    <section><h3>${t("settings.server")}</h3>
      <div class="field"><label for="api-key">${t("settings.key")}</label>
        <input id="api-key" type="password" autocomplete="off" spellcheck="false" value=${key}
          aria-describedby="key-note" onChange=${(event) => changeKey(event.target.value.trim())} />
        <p class="note" id="key-note">${t("settings.key_note")}</p></div></section>
  <//>`;
}

function NumberField({ name, low, high, isWhole = false }) {
  const value = state.settings[name], note = `${name}-note`;
  const [text, setText] = useState(value === null ? "" : written(value));
  const [wrong, setWrong] = useState("");
  const check = () => {
    // "1.000" is one or a thousand, as the reader learned it: a whole number takes digits alone.
    const typed = isWhole && !/^\s*\d*\s*$/.test(text) ? NaN : typedNumber(text);
    const fits = typed === null || (typed >= low && typed <= high);
    const words = isWhole ? "settings.wrong_whole" : "settings.wrong";
    setWrong(fits ? "" : t(words, { low: number(low), high: number(high) }));
    if (fits) changeSettings({ [name]: typed });
  };
  const onKeyDown = (event) => { if (event.key === "Enter") check(); };
  return html`<div class="field"><label for=${name}>${t(`settings.${name}`)}</label>
    <input id=${name} inputmode=${isWhole ? "numeric" : "decimal"} autocomplete="off" value=${text}
      placeholder=${t("settings.default")} aria-invalid=${String(wrong !== "")} aria-describedby=${note}
      onInput=${(event) => setText(event.target.value)} onBlur=${check} onKeyDown=${onKeyDown} />
    <p id=${note} class=${wrong ? "wrong" : "note"} role=${wrong ? "alert" : null}>
      ${wrong || t(`settings.${name}_note`)}</p></div>`;
}

function Thinking({ settings }) {
  const choices = ["default", "on", "off", "budget"];
  const without = settings.thinking === "budget" ? "thinking.no_reasoning" : "thinking.no_switch";
  return html`<fieldset class="choices"><legend class="hidden">${t("settings.thinking")}</legend>
    ${choices.map((each) => html`<label><input type="radio" name="thinking" value=${each}
      checked=${settings.thinking === each} onChange=${() => changeSettings({ thinking: each })} />
      ${t(`thinking.${each}`)}</label>`)}
    </fieldset>
    ${unmoved(settings).map((model) => html`<p class="note">${t(without, { model })}</p>`)}
    ${settings.thinking === "budget" && html`<div class="fields">
      <${NumberField} name="budget" low=${0} high=${MAX_TOKENS} isWhole=${true} /></div>`}`;
}

/** The chosen models that this choice does nothing for, and that are therefore not asked. */
function unmoved(settings) {
  const wanted = { on: "reasoning_switch", off: "reasoning_switch", budget: "reasoning" }[settings.thinking];
  const lacks = (id) => state.models.find((each) => each.id === id)?.groschen?.[wanted] === false;
  return wanted ? chosenModels().filter(lacks) : [];
}

export function Switch({ name }) {
  const id = `switch-${name}`;
  return html`<div class="field switch">
    <input type="checkbox" id=${id} checked=${state.settings[name]} aria-describedby=${`${id}-note`}
      onChange=${(event) => changeSettings({ [name]: event.target.checked })} />
    <label for=${id}>${t(`settings.${name}`)}</label>
    <p class="note" id=${`${id}-note`}>${t(`settings.${name}_note`)}</p></div>`;
}
