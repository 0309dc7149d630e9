// Copying, and the short notices that say what has happened. Pages reached over plain http on a local network
// have no clipboard API: there the text is selected in a hidden field and copied the old way.

import { announce } from "./state.js";
import { t } from "./words.js";

export async function copyText(text, said) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const field = document.createElement("textarea");
    const before = document.activeElement;
    field.value = text;
    field.className = "hidden";
    (before?.closest("dialog") ?? document.body).append(field);
    field.select();
    done = document.execCommand("copy");
    field.remove();
    before?.focus();
  }
  announce(t(done ? said : "copied.failed"));
}

/** Hands a text to the browser as a file. */
export function download(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
