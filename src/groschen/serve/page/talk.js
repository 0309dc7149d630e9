// The conversation itself: the messages, what stands there before the first one, and the field below them.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Bar } from "./bar.js";
import { Legend } from "./chances.js";
import { Composer } from "./composer.js";
import { examplesFor } from "./examples.js";
import { NoModels } from "./fault.js";
import { Message } from "./message.js";
import { IconButton } from "./parts.js";
import { state } from "./state.js";
import { current, isBusy, send } from "./store.js";
import { path } from "./tree.js";
import { compact, t } from "./words.js";

export function Talk({ inert }) {
  const conversation = current(), nodes = conversation ? path(conversation) : [];
  const [box, isAtEnd, toEnd] = useFollow(`${conversation?.id} ${conversation?.nodes.length}`);
  const isWide = nodes.some((node) => node.answers?.length > 1);
  return html`<div class="talk" inert=${inert}>
    <${Bar} />
    <main id="main" tabindex="-1" ref=${box}>
      <h1 class="hidden">${conversation ? conversation.title : t("page.title")}</h1>
      <div class=${isWide ? "column wide" : "column"}>
        <${NoModels} />
        ${nodes.length === 0 && state.models.length > 0 && html`<${Start} />`}
        ${state.settings.probabilities && nodes.length > 0 && html`<${Legend} />`}
        ${nodes.map((node) => html`<${Message} key=${node.parent ?? "root"} ...${{ conversation, node }} />`)}
      </div>
    </main>
    <section class="foot" aria-label=${t("composer.label")}>
      ${!isAtEnd && nodes.length > 0 && html`<${IconButton} icon="down" class="to-end" name=${t("action.to_end")}
        onClick=${toEnd} />`}
      <${Composer} /></section>
  </div>`;
}

const NEAR_PX = 48, AFTER_MS = 1000; // what counts as the end; how long after an answer its last lines may come

/** Keeps the end in view while an answer grows, until the reader scrolls up from it. */
function useFollow(shown) {
  const box = useRef(null), follows = useRef(true);
  const [isAtEnd, setIsAtEnd] = useState(true);
  const toEnd = () => { follows.current = true; box.current.scrollTop = box.current.scrollHeight; };
  useEffect(() => {
    const element = box.current;
    let before = 0, busyAt = -AFTER_MS;
    const look = () => {
      const isEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_PX;
      if (isEnd) follows.current = true;
      else if (element.scrollTop < before) follows.current = false;
      before = element.scrollTop;
      setIsAtEnd(isEnd || (follows.current && isBusy(current())));
    };
    const grown = new ResizeObserver(() => {
      if (isBusy(current())) busyAt = performance.now();
      if (follows.current && performance.now() - busyAt < AFTER_MS) element.scrollTop = element.scrollHeight;
      look();
    });
    element.addEventListener("scroll", look, { passive: true });
    grown.observe(element.querySelector(".column"));
    grown.observe(element);
    return () => { element.removeEventListener("scroll", look); grown.disconnect(); };
  }, []);
  useLayoutEffect(() => { if (current()) toEnd(); }, [shown]);
  return [box, isAtEnd, toEnd];
}

function Start() {
  const { models, settings } = state;
  const { title, note, wording, prompts } = examplesFor(settings.model, models);
  return html`<section class="start"><p class="welcome">${title}</p><p class="note">${note}</p>
    ${wording && html`<p class="wording" lang="en">${wording}</p>`}
    <ul class=${wording ? "examples short" : "examples"}>${prompts.map(({ label, text }) => html`<li>
      <button type="button" onClick=${() => send(text)}><strong>${label}</strong>
        ${!wording && html`<span>${text}</span>`}</button></li>`)}</ul>
    <${Facts} model=${models.find((each) => each.id === settings.model)} /></section>`;
}

/** What the server says of a model, for those who compare. */
function Facts({ model }) {
  const { parameters, weights, step } = model?.groschen ?? {};
  const facts = [
    parameters && t("start.parameters", { count: compact(parameters) }),
    model?.max_model_len && t("start.context", { count: model.max_model_len }),
    weights,
    (step ?? null) !== null && t("start.step", { step }),
  ].filter(Boolean);
  return facts.length > 0 && html`<p class="note facts">${facts.join(" · ")}</p>`;
}
