// One message of the conversation: a question, or the answer of one model or of two.

import { html } from "./vendor/htm-preact.js";
import { Chances } from "./chances.js";
import { copyText } from "./copy.js";
import { Cost } from "./cost.js";
import { verdictOf } from "./countdown.js";
import { Fault } from "./fault.js";
import { Markdown } from "./markdown.js";
import { focusMessage, IconButton } from "./parts.js";
import { Question, Versions } from "./question.js";
import { Reasoning } from "./reasoning.js";
import { state } from "./state.js";
import { isBusy, regenerate } from "./store.js";
import { isRunning } from "./tree.js";
import { t } from "./words.js";

export function Message({ conversation, node }) {
  if (node.role === "user") return html`<${Question} ...${{ conversation, node }} />`;
  const isPair = node.answers.length > 1;
  const question = conversation.nodes.find((each) => each.id === node.parent)?.text ?? "";
  return html`<div class=${isPair ? "answers pair" : "answers"} data-node=${node.id}>
    ${node.answers.map((answer, column) => html`<${Answer} key=${column}
      ...${{ conversation, node, answer, column, isPair, question }} />`)}
  </div>`;
}

function Answer({ conversation, node, answer, column, isPair, question }) {
  const { live, probabilities: isChances } = state.settings;
  const running = isRunning(answer), isShown = live || !running;
  const showChances = isChances && answer.tokens?.length > 0, hasText = Boolean(answer.text);
  const note = noteOf(answer, isChances);
  return html`<article class="answer" aria-busy=${String(running)}
    aria-label=${t("message.by", { model: answer.model })}>
    <h2 class="by">${answer.model}</h2>
    ${answer.reasoning && html`<${Reasoning} key=${`thought ${node.id}`} ...${{ answer, isShown, showChances }} />`}
    ${isShown && hasText && (showChances
      ? html`<${Chances} key=${`chances ${node.id}`} tokens=${answer.tokens} name=${t("chances.answer")} />`
      : html`<${Markdown} text=${answer.text} isGrowing=${running} label=${answer.model} />`)}
    ${running && !(isShown && hasText) && html`<${Waiting} answer=${answer} />`}
    ${!running && hasText && html`<${Verdict} found=${verdictOf(question, answer.text)} />`}
    ${answer.fault && html`<${Fault} key=${`fault ${node.id}`} fault=${answer.fault} ...${{ node, hasText }} />`}
    ${!running && note && html`<p class="note finish">${note}</p>`}
    ${!running && html`<${Actions} ...${{ conversation, node, answer, column, isPair }} />`}
  </article>`;
}

function Actions({ conversation, node, answer, column, isPair }) {
  const copy = () => copyText(answer.text, "copied.text");
  const again = () => { regenerate(node); focusMessage(); };
  const copyName = isPair ? t("action.copy_of", { model: answer.model }) : t("action.copy");
  return html`<div class="actions">
    ${column === 0 && html`<${Versions} ...${{ conversation, node }} />`}
    ${answer.text && html`<${IconButton} icon="copy" name=${copyName} onClick=${copy} />`}
    ${column === 0 && html`<${IconButton} icon="again" name=${t(isPair ? "action.again_both" : "action.again")}
      disabled=${isBusy(conversation)} onClick=${again} />`}
    <${Cost} answer=${answer} />
  </div>`;
}

/** Why it ended, where that needs a word, and why there is nothing to be seen, where there is nothing. */
function noteOf(answer, isChances) {
  if (answer.state === "stopped") return t("finish.stopped");
  if (answer.state === "done" && answer.finish === "length") return t("finish.length");
  if (answer.state === "done" && answer.finish === "tool_calls") return t("finish.tools");
  if (answer.state === "done" && !answer.text) return t("answer.empty");
  return isChances && answer.text && !answer.tokens ? t("chances.none") : "";
}

/** Right or wrong, where the page can work it out. */
function Verdict({ found }) {
  if (!found) return null;
  const isRight = found.kind === "right";
  const said = t(`verdict.${found.kind}`, { value: found.value ?? "", target: String(found.target) });
  return html`<p class=${isRight ? "verdict right" : "verdict wrong"}>
    <span aria-hidden="true">${isRight ? "✓" : "✗"}</span>${said}</p>`;
}

const WAITING = { waiting: "status.waiting", reasoning: "status.thinking", answering: "status.writing" };

function Waiting({ answer }) {
  return html`<p class="waiting"><span class="pulse"></span>${t(WAITING[answer.state])}</p>`;
}
