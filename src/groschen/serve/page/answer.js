// One answer while it is written: the chunks of a stream go into an answer of tree.js, with its clocks.

import { ApiFault, streamChat } from "./api.js";

const clock = () => performance.now() / 1000;

/** Settings to request fields. What is left empty is not sent: the server's own default holds. A model that cannot
 * think, or has no switch for it, is not asked to, so that two models side by side can share one setting. */
export function requestBody(model, messages, settings) {
  const body = { model: model.id, messages };
  const numbers = { temperature: "temperature", topP: "top_p", maxTokens: "max_completion_tokens", seed: "seed" };
  for (const [setting, field] of Object.entries(numbers)) {
    if (settings[setting] !== null && settings[setting] !== undefined) body[field] = settings[setting];
  }
  const { reasoning = true, reasoning_switch: hasSwitch = true } = model.groschen ?? {};
  if (settings.thinking === "off" && hasSwitch) body.reasoning_effort = "none";
  if (settings.thinking === "on" && hasSwitch) body.reasoning_effort = "medium";
  if (settings.thinking === "budget" && reasoning && settings.budget !== null) body.thinking_budget = settings.budget;
  if (settings.probabilities) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return body;
}

/** Fills the answer until it is done, stopped or failed; `changed` is called after each chunk. Never throws. */
export async function runAnswer(answer, body, key, signal, changed) {
  const start = clock();
  answer.stats = { chunks: 0 };
  answer.sent = { ...body, messages: undefined };
  if (body.logprobs) Object.assign(answer, { tokens: [], reasoningTokens: [] });
  answer.startedAt = start;
  try {
    for await (const chunk of streamChat(body, key, signal)) {
      take(answer, chunk, clock() - start);
      changed();
    }
    answer.state = "done";
  } catch (error) {
    if (error.name === "AbortError") {
      answer.state = "stopped";
    } else {
      answer.state = "failed";
      answer.fault = faultRecord(error);
    }
  }
  const { stats } = answer;
  stats.total = clock() - start;
  if (stats.thinkingFrom !== undefined && stats.thinking === undefined) {
    stats.thinking = stats.total - stats.thinkingFrom;
  }
  delete answer.startedAt;
  changed();
}

function faultRecord(error) {
  const known = error instanceof ApiFault;
  return { kind: known ? error.kind : "broken", message: error.message, param: error.param ?? null,
    status: error.status ?? 0, retryAfter: error.retryAfter ?? null };
}

function take(answer, chunk, now) {
  const { stats } = answer;
  if (chunk.usage) {
    stats.prompt = chunk.usage.prompt_tokens;
    stats.completion = chunk.usage.completion_tokens;
    stats.cached = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
    stats.reasoning = chunk.usage.completion_tokens_details?.reasoning_tokens ?? 0;
  }
  if (chunk.seed !== undefined && chunk.seed !== null) stats.seed = chunk.seed;
  if (chunk.system_fingerprint) stats.weights = chunk.system_fingerprint;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const thought = choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? "";
  const text = choice.delta?.content ?? "";
  if (thought || text) {
    stats.first ??= now;
    stats.chunks += 1;
  }
  if (thought) {
    stats.thinkingFrom ??= now;
    stats.thoughts = (stats.thoughts ?? 0) + 1;
    answer.reasoning += thought;
    answer.state = "reasoning";
  }
  if (text) {
    if (stats.thinkingFrom !== undefined) stats.thinking ??= now - stats.thinkingFrom;
    answer.text += text;
    answer.state = "answering";
  }
  if (answer.tokens && choice.logprobs) {
    answer.tokens.push(...(choice.logprobs.content ?? []).map(compact));
    answer.reasoningTokens.push(...(choice.logprobs.reasoning ?? []).map(compact));
  }
  if (choice.finish_reason) answer.finish = choice.finish_reason;
}

const rounded = (value) => Math.round(value * 1e4) / 1e4;

/** [text, logprob, [[text, logprob], ...]]: a tenth of what the API writes: it is kept in the browser. */
function compact(token) {
  const others = (token.top_logprobs ?? []).map((each) => [each.token, rounded(each.logprob)]);
  return [token.token, rounded(token.logprob), others];
}

/** Tokens a second after the first one; null where there is too little to say so. */
export function speed(stats) {
  const span = stats.total - stats.first;
  return stats.completion > 1 && span > 0 ? (stats.completion - 1) / span : null;
}
