// One conversation as a tree: editing a message or asking again adds a branch, nothing is written over.
// Plain data in, plain data out; knows neither the page nor the network.
//
// node:   {id, parent, role: "user", text} or {id, parent, role: "assistant", answers: [answer, ...]}
// answer: one per model that is asked (two of them side by side); see emptyAnswer.

const ROOT = "root";
let counter = 0;
export function newId() {
  return [Date.now(), counter++, Math.floor(Math.random() * 1e6)].map((each) => each.toString(36)).join("");
}

export function newConversation() {
  const now = Date.now();
  return { id: newId(), title: "", isNamed: false, created: now, updated: now, nodes: [], chosen: {} };
}

export function emptyAnswer(model) {
  return { model, text: "", reasoning: "", state: "waiting", finish: null, fault: null,
    tokens: null, reasoningTokens: null, stats: {}, sent: null };
}

export const isRunning = (answer) => ["waiting", "reasoning", "answering"].includes(answer.state);

export function childrenOf(conversation, parent) {
  return conversation.nodes.filter((node) => node.parent === parent);
}

/** The branch that is shown, from the first message to the last. */
export function path(conversation) {
  const found = [];
  let parent = null;
  for (;;) {
    const children = childrenOf(conversation, parent);
    if (children.length === 0) return found;
    const wanted = conversation.chosen[parent ?? ROOT];
    const node = children.find((each) => each.id === wanted) ?? children[children.length - 1];
    found.push(node);
    parent = node.id;
  }
}

function add(conversation, node) {
  conversation.nodes.push(node);
  conversation.chosen[node.parent ?? ROOT] = node.id;
  conversation.updated = Date.now();
  return node;
}

export function addUser(conversation, parent, text) {
  if (!conversation.isNamed && !conversation.title) conversation.title = titleOf(text);
  return add(conversation, { id: newId(), parent, role: "user", text });
}

export function addAnswers(conversation, parent, models) {
  return add(conversation, { id: newId(), parent, role: "assistant", answers: models.map(emptyAnswer) });
}

/** Which of its versions a node is: {index, ids}, counted from 0. */
export function versions(conversation, node) {
  const ids = childrenOf(conversation, node.parent).map((each) => each.id);
  return { index: ids.indexOf(node.id), ids };
}

export function choose(conversation, node, id) {
  conversation.chosen[node.parent ?? ROOT] = id;
}

/** Takes out a node that nothing hangs on. */
export function drop(conversation, node) {
  conversation.nodes = conversation.nodes.filter((each) => each.id !== node.id);
}

/** What a model is sent for the answer node: the branch above it, each column with its own answers. */
export function messagesAbove(conversation, node, column, system) {
  const byId = new Map(conversation.nodes.map((each) => [each.id, each]));
  const messages = [];
  for (let each = byId.get(node.parent); each; each = byId.get(each.parent)) {
    if (each.role === "user") {
      messages.unshift({ role: "user", content: each.text });
    } else {
      const answer = each.answers[column] ?? each.answers[0];
      messages.unshift({ role: "assistant", content: answer.text });
    }
  }
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

export function titleOf(text) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length <= 48 ? line : `${line.slice(0, 47).replace(/\s+\S*$/, "")}…`;
}

/** A conversation as people read it. */
export function asMarkdown(conversation, words) {
  const parts = [`# ${conversation.title}`];
  for (const node of path(conversation)) {
    if (node.role === "user") {
      parts.push(`## ${words.you}`, node.text);
      continue;
    }
    for (const answer of node.answers) {
      parts.push(`## ${answer.model}`);
      if (answer.reasoning) {
        parts.push(`<details><summary>${words.reasoning}</summary>\n\n${answer.reasoning.trim()}\n\n</details>`);
      }
      parts.push(answer.text.trim() || `*${words.nothing}*`);
    }
  }
  return `${parts.join("\n\n")}\n`;
}
