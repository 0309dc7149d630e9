// The page: loads the words, draws the parts, and listens for keys.

import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { Help } from "./help.js";
import { onKey } from "./keys.js";
import { Settings } from "./settings.js";
import { Side } from "./side.js";
import { set, state, subscribe } from "./state.js";
import { current, hideSide, openAddressed, refreshModels } from "./store.js";
import { Talk } from "./talk.js";
import { t, useLanguage } from "./words.js";

const narrow = matchMedia("(max-width: 56rem)");

function App() {
  const [, draw] = useState(0);
  useEffect(() => subscribe(() => draw((count) => count + 1)), []);
  const title = current()?.title;
  useEffect(() => { document.title = title ? `${title} · groschen` : "groschen"; }, [title]);
  const isDrawer = narrow.matches && state.drawer;
  return html`<a class="skip" href="#message" onClick=${skip}>${t("skip.message")}</a>
    <a class="skip" href="#main" onClick=${skip}>${t("skip.conversation")}</a>
    <div class=${isDrawer ? "frame drawer-open" : "frame"}>
      <${Side} inert=${narrow.matches && !state.drawer} />
      ${isDrawer && html`<div class="scrim" onClick=${hideSide}></div>`}
      <${Talk} inert=${isDrawer} />
    </div>
    ${state.dialog === "settings" && html`<${Settings} />`}
    ${state.dialog === "help" && html`<${Help} />`}
    <div class="notice" aria-hidden="true">${state.notice?.text ?? ""}</div>
    <div class="hidden" role="status" aria-live="polite">${state.said}</div>`;
}

/** Moves the focus without touching the address, which names the conversation. */
function skip(event) {
  event.preventDefault();
  document.querySelector(event.target.getAttribute("href")).focus();
}

async function start() {
  await useLanguage(document.documentElement.lang);
  narrow.addEventListener("change", () => set({ drawer: false }));
  document.addEventListener("keydown", onKey);
  addEventListener("popstate", openAddressed);
  openAddressed();
  render(html`<${App} />`, document.getElementById("app"));
  await refreshModels();
}

start();
