// What an answer took: tokens, seconds, the wait for the first token, the speed; on demand, how it was drawn.

import { html } from "./vendor/htm-preact.js";
import { speed } from "./answer.js";
import { number, seconds, t, written } from "./words.js";

export function Cost({ answer }) {
  const { stats, sent } = answer;
  if (!stats.total) return null;
  const pace = speed(stats);
  const line = [
    stats.completion !== undefined && t("count.tokens", { count: stats.completion }),
    seconds(stats.total),
    stats.first !== undefined && t("cost.first", { seconds: seconds(stats.first) }),
    pace && t("cost.speed", { speed: number(pace, pace < 10 ? 1 : 0) }),
  ].filter(Boolean).join(" · ");
  const more = [
    stats.prompt !== undefined && t("cost.prompt", { count: stats.prompt }),
    stats.cached > 0 && t("cost.cached", { count: stats.cached }),
    stats.seed !== undefined && t("cost.seed", { seed: String(stats.seed) }),
    stats.weights && t("cost.weights", { name: stats.weights }),
    sent?.temperature !== undefined && `${t("settings.temperature")} ${written(sent.temperature)}`,
    sent?.top_p !== undefined && `${t("settings.topP")} ${written(sent.top_p)}`,
  ].filter(Boolean).join(" · ");
  return html`<details class="cost"><summary>${line}</summary>${more}</details>`;
}
