// A model's text as elements: Markdown, maths and code with a copy button, every block cleaned of what could act.
// Blocks that have not changed keep their elements, so that a growing answer never loses a reader's selection.

import { Marked } from "./vendor/marked.js";
import { Component, html, useMemo } from "./vendor/htm-preact.js";
import { cutMaths, drawMaths, MARK } from "./maths.js";
import { copyText } from "./copy.js";
import { t } from "./words.js";

const SIGNS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const escaped = (text) => text.replace(/[&<>"]/g, (each) => SIGNS[each]);

// <answer>...</answer>, the slot that this house's tasks ask for, is set off as the answer.
const ANSWER = { name: "answer", level: "inline", start: (source) => source.indexOf("<answer>"),
  tokenizer(source) {
    const found = /^<answer>([^<]*)<\/answer>/.exec(source);
    return found ? { type: "answer", raw: found[0], text: found[1].trim() } : undefined;
  },
  renderer: ({ text }) => `<span class="final"><span>${escaped(t("answer.final"))}</span> `
    + `<code>${escaped(text)}</code></span>` };

// Raw HTML is shown as it is written, since a model that writes a tag means the letters. An image would be fetched
// from somewhere else, so it becomes a link. A star between two numbers is a product, not emphasis.
const marked = new Marked({ gfm: true, breaks: true, extensions: [ANSWER], renderer: {
  html: ({ text }) => escaped(text),
  image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
}, tokenizer: {
  emStrong: (source, masked, before) => (/[\d)\]]$/.test(before) && /^\*+[\d([]/.test(source) ? undefined : false),
  html: () => undefined,
} });

const CLEAN = {
  ALLOWED_TAGS: ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "del", "sup", "sub", "span",
    "code", "pre", "blockquote", "ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td", "input"],
  ALLOWED_ATTR: ["href", "title", "align", "start", "class", "type", "checked", "disabled"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#)/i, RETURN_DOM_FRAGMENT: true,
};

// Forty quotations or lists inside each other, by their markers or by their indentation: nobody writes that, and the
// browser's tab may die of it. Such a text is shown as it is written.
const LEVEL = "(?:>|[-+*](?=[ \\t])|\\d{1,9}[.)](?=[ \\t]))";
const TOO_DEEP = new RegExp(`^(?:[ \\t]*${LEVEL}){40}|^[ \\t]{160,}${LEVEL}`, "m");

/** The text as blocks; `isGrowing` while more of it may come. */
export function Markdown({ text, isGrowing, label }) {
  const blocks = useMemo(() => blocksOf(text, isGrowing), [text, isGrowing]);
  return html`<div class="markdown" dir="auto">
    ${blocks.map((block, index) => (block.token.type === "code"
      ? html`<${Code} key=${index} text=${block.token.text} language=${block.token.lang ?? ""} label=${label} />`
      : html`<${Block} key=${index} ...${{ block }} />`))}
  </div>`;
}

function blocksOf(text, isGrowing) {
  const asWritten = [{ token: { type: "written", raw: text }, pieces: [], key: text }];
  if (TOO_DEEP.test(text)) return asWritten;
  const cut = cutMaths(text, isGrowing);
  try {
    return marked.lexer(cut.text).filter((token) => token.type !== "space" && token.type !== "def")
      .map((token) => ({ token, pieces: cut.pieces,
        key: token.raw.replace(MARK, (_, index) => JSON.stringify(cut.pieces[index])) }));
  } catch { // too deep for marked in a way that the pattern above does not know
    return asWritten;
  }
}

class Block extends Component {
  shouldComponentUpdate(next) { return next.block.key !== this.props.block.key; }
  componentDidMount() { this.fill(); }
  componentDidUpdate() { this.fill(); }
  fill() {
    const { token, pieces } = this.props.block;
    try {
      if (token.type !== "written") {
        this.base.replaceChildren(clean(marked.parser([token]), pieces));
        return;
      }
    } catch { // shown as it is written, below
    }
    const text = token.raw.replace(MARK, (_, index) => pieces[index].source);
    this.base.replaceChildren(Object.assign(document.createElement("p"), { className: "written", textContent: text }));
  }
  render() { return html`<div class="block"></div>`; }
}

/** Markup to elements that can do nothing but be read. */
function clean(markup, pieces) {
  const fragment = globalThis.DOMPurify.sanitize(markup, CLEAN);
  for (const link of fragment.querySelectorAll("a[href]")) {
    Object.assign(link, { target: "_blank", rel: "noopener noreferrer nofollow" });
  }
  for (const box of fragment.querySelectorAll("input")) {
    box.disabled = true;
    box.setAttribute("aria-label", t(box.checked ? "answer.task_done" : "answer.task_open"));
  }
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) heading.replaceWith(lower(heading));
  for (const table of fragment.querySelectorAll("table")) wrap(table);
  for (const code of fragment.querySelectorAll("pre")) withCopyButton(code);
  putMathsBack(fragment, pieces);
  return fragment;
}

/** The page has its own first and second headings; those of an answer start at the third. */
function lower(heading) {
  const lowered = document.createElement(`h${Math.max(3, Math.min(6, Number(heading.tagName[1]) + 1))}`);
  lowered.append(...heading.childNodes);
  return lowered;
}

function wrap(table) {
  const box = document.createElement("div");
  Object.assign(box, { className: "scroll", tabIndex: 0 });
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", t("answer.table"));
  table.replaceWith(box);
  box.append(table);
}

/** Code inside a list or a quotation; code that stands alone is drawn by Code. */
function withCopyButton(code) {
  const text = code.textContent;
  const button = Object.assign(document.createElement("button"),
    { type: "button", className: "quiet", textContent: t("action.copy_code") });
  button.addEventListener("click", () => copyText(text, "copied.code"));
  const box = Object.assign(document.createElement("div"), { className: "code" });
  code.tabIndex = 0;
  code.replaceWith(box);
  box.append(button, code);
}

function putMathsBack(fragment, pieces) {
  for (const element of fragment.querySelectorAll("[href], [title]")) {
    for (const name of ["href", "title"]) {
      const value = element.getAttribute(name);
      const shown = value?.replace(MARK, (_, index) => pieces[index].source);
      if (shown !== value) element.setAttribute(name, shown);
    }
  }
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (walker.currentNode.data.includes("\uE000")) texts.push(walker.currentNode);
  for (const node of texts) {
    const isCode = node.parentElement?.closest("code");
    // Split by a pattern with a group: every second part is an index.
    node.replaceWith(...node.data.split(MARK).map((part, place) => {
      if (place % 2 === 0) return part;
      return isCode ? pieces[part].source : drawMaths(pieces[part]);
    }));
  }
}

/** A block of code with its language and a copy button. */
function Code({ text, language, label }) {
  const name = language.trim().split(/\s+/)[0] || t("answer.code");
  return html`<figure class="code">
    <figcaption><span>${name}</span>
      <button type="button" class="quiet" onClick=${() => copyText(text, "copied.code")}>
        ${t("action.copy_code")}</button>
    </figcaption>
    <pre tabindex="0" role="group"
      aria-label=${t("answer.code_of", { language: name, label })}><code>${text}</code></pre>
  </figure>`;
}

/** The text without marks, for the one announcement that a screen reader gets. */
export function plainText(text) {
  if (TOO_DEEP.test(text)) return text.trim();
  const box = document.createElement("div");
  box.append(clean(marked.parser(marked.lexer(text)), []));
  return box.textContent.trim();
}
