// The thinking of a model, folded away once the answer begins, unless the reader has decided otherwise.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { Chances } from "./chances.js";
import { Markdown } from "./markdown.js";
import { seconds, t } from "./words.js";

export function Reasoning({ answer, isShown, showChances }) {
  const [wanted, setWanted] = useState(null);
  const isThinking = answer.state === "reasoning", isOpen = wanted ?? (isThinking && isShown);
  useClock(isThinking);
  const onClick = (event) => { event.preventDefault(); setWanted(!isOpen); };
  return html`<details class="reasoning" open=${isOpen}>
    <summary onClick=${onClick}>${isThinking && html`<span class="pulse"></span>`}
      <span>${t(isThinking ? "reasoning.live" : "reasoning.done")}</span>${" "}
      <span class="length">${length(answer)}</span></summary>
    ${isOpen && html`<div class="reasoning-text">${showChances && answer.reasoningTokens.length > 0
      ? html`<${Chances} tokens=${answer.reasoningTokens} name=${t("chances.reasoning")} />`
      : html`<${Markdown} text=${answer.reasoning} isGrowing=${isThinking} label=${t("reasoning.name")} />`}</div>`}
  </details>`;
}

/** Tokens and seconds. Before the server has counted, the pieces that came are told, marked as about so many. */
function length(answer) {
  const { stats, startedAt } = answer;
  const exact = stats.reasoning || answer.reasoningTokens?.length;
  const tokens = t("count.tokens", { count: exact || stats.thoughts || 0 });
  const spent = stats.thinking ?? (startedAt ? performance.now() / 1000 - startedAt - stats.thinkingFrom : 0);
  return t("reasoning.length", { tokens: exact ? tokens : `≈\u202f${tokens}`, seconds: seconds(Math.max(0, spent)) });
}

/** Draws again a few times a second while something is timed. */
function useClock(isOn) {
  const [, tick] = useState(0);
  useEffect(() => {
    if (!isOn) return undefined;
    const timer = setInterval(() => tick((count) => count + 1), 250);
    return () => clearInterval(timer);
  }, [isOn]);
}
