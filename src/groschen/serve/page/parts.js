// Small pieces that every part of the page draws: icons, buttons, dialogs and menus.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { t } from "./words.js";

const DRAWINGS = {
  menu: "M4 7h16M4 12h16M4 17h16", plus: "M12 5v14M5 12h14", send: "M12 19V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z", copy: "M9 9h10v11H9zM5 15V4h10", edit: "M5 19l1-4L16 5l3 3L9 18z",
  again: "M19 12a7 7 0 1 1-2-5l2 2M19 4v5h-5",
  more: "M6 12h.01M12 12h.01M18 12h.01", left: "M14 6l-6 6 6 6", right: "M10 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
  settings: "M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4",
  help: "M9 9.5a3 3 0 1 1 4.2 2.7c-.8.4-1.2.9-1.2 1.8M12 17.5h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z"
    + "M12 3v1.5M12 19.5V21M3 12h1.5M19.5 12H21M5.6 5.6l1.1 1.1M17.3 17.3l1.1 1.1M5.6 18.4l1.1-1.1M17.3 6.7l1.1-1.1",
  moon: "M19 14.5A7.5 7.5 0 0 1 9.5 5 7.5 7.5 0 1 0 19 14.5z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16", undo: "M5 10h9a5 5 0 0 1 0 10h-3M5 10l4-4M5 10l4 4",
  pair: "M4 5h7v14H4zM13 5h7v14h-7z", chance: "M5 19V11M12 19V5M19 19v-5", down: "M6 10l6 6 6-6",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${DRAWINGS[name]} /></svg>`;
}

/** A button that is only an icon to the eye; its name is its tooltip too. */
export function IconButton({ icon, name, class: look = "", ...others }) {
  return html`<button type="button" class=${`icon-button ${look}`} aria-label=${name} title=${name} ...${others}>
    <${Icon} name=${icon} /></button>`;
}

/** A native dialog: it keeps the focus inside, Esc closes it, and the focus goes back where it was. */
export function Dialog({ title, onClose, class: look = "", children }) {
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => { if (before?.isConnected) before.focus(); };
  }, []);
  const onClick = (event) => { if (event.target === box.current) box.current.close(); };
  return html`<dialog ref=${box} class=${look} aria-labelledby="dialog-title" onClose=${onClose} onClick=${onClick}>
    <div class="dialog-inside">
      <header><h2 id="dialog-title" tabindex="-1">${title}</h2>
        <${IconButton} icon="close" name=${t("action.close")} onClick=${() => box.current.close()} /></header>
      ${children}
    </div></dialog>`;
}

/** A button that opens a short list of actions: [[text, action, isDangerous], ...]. */
export function Menu({ id, name, actions }) {
  const list = useRef(null);
  const place = (event) => {
    if (event.newState !== "open") return;
    const button = list.current.previousElementSibling.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = list.current;
    const top = button.bottom + height + 8 > innerHeight ? button.top - height - 4 : button.bottom + 4;
    Object.assign(list.current.style, { top: `${Math.max(8, top)}px`,
      left: `${Math.max(8, Math.min(button.left, innerWidth - width - 8))}px` });
    list.current.querySelector("button").focus();
  };
  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...list.current.querySelectorAll("button")];
    buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
  };
  return html`<span class="menu">
    <button type="button" class="icon-button" aria-label=${name} title=${name}
      popovertarget=${id}><${Icon} name="more" /></button>
    <div id=${id} class="menu-list" popover="auto" ref=${list} onToggle=${place} onKeyDown=${move}>
      ${actions.map(([text, action, isDangerous]) => html`<button type="button" class=${isDangerous ? "danger" : ""}
        onClick=${() => { list.current.hidePopover(); action(); }}>${text}</button>`)}
    </div></span>`;
}

/** To where a message is written; on a touch screen only to the page, so that no keyboard jumps up unasked. */
export function focusMessage() {
  const isFine = matchMedia("(pointer: fine)").matches;
  setTimeout(() => document.getElementById(isFine ? "message" : "main")?.focus({ preventScroll: true }));
}
