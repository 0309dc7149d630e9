// The words of the page in one language, and numbers as that language writes them.
// The catalogues are en.json and de.json beside this file; tests hold that both have the same keys.

export const LANGUAGES = ["en", "de"];
let language = "en", sentences = {}, plurals = new Intl.PluralRules("en");

export const currentLanguage = () => language;

/** Loads a catalogue; the page must be drawn again afterwards. */
export async function useLanguage(wanted) {
  const chosen = LANGUAGES.includes(wanted) ? wanted : "en";
  const response = await fetch(new URL(`./${chosen}.json`, import.meta.url));
  if (!response.ok) throw new Error(`${chosen}.json: ${response.status}`);
  sentences = await response.json();
  language = chosen;
  plurals = new Intl.PluralRules(language);
  document.documentElement.lang = language;
}

/** Remembers the language for the server too, which draws /glance and the next visit. */
export function rememberLanguage(chosen) {
  document.cookie = `groschen_language=${chosen}; path=/; max-age=31536000; samesite=lax`;
}

/** The sentence of a key with its {placeholders} filled; `count` chooses between key.one and key.other. */
export function t(key, values = {}) {
  let text = sentences[key];
  if (text === undefined && "count" in values) {
    text = sentences[`${key}.${plurals.select(values.count)}`] ?? sentences[`${key}.other`];
  }
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    if (!(name in values)) return whole;
    return typeof values[name] === "number" ? number(values[name]) : values[name];
  });
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits })
    .format(value);
}

/** A share from 0 to 1: two digits that mean something, and never a "0 %" that is not zero. */
export function percent(share) {
  if (share > 0 && share < 0.001) return `<\u202f${percentText(0.001, 1)}`;
  if (share < 1 && share > 0.999) return `>\u202f${percentText(0.999, 1)}`;
  return percentText(share, share < 0.1 || (share > 0.99 && share < 1) ? 1 : 0);
}

const percentText = (share, digits) => new Intl.NumberFormat(language, {
  style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(share);

export function seconds(value) {
  if (value < 0.05) return `<\u202f${number(0.1, 1)}\u202fs`;
  if (value < 60) return `${number(value, value < 10 ? 1 : 0)}\u202fs`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)}\u202fmin ${String(whole % 60).padStart(2, "0")}\u202fs`;
}

export function moment(milliseconds) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" })
    .format(new Date(milliseconds));
}

/** A number as people type it, "3,5" or "3.5"; null where nothing stands, NaN where it is none. */
export function typedNumber(text) {
  const plain = text.trim();
  if (plain === "") return null;
  return /^[+-]?\d+([.,]\d+)?$|^[+-]?[.,]\d+$/.test(plain) ? Number(plain.replace(",", ".")) : NaN;
}

/** A large number in about three digits: 2.95M, 494M, 7.6B. */
export function compact(value) {
  return new Intl.NumberFormat(language, { notation: "compact", maximumSignificantDigits: 3 }).format(value);
}

/** A number with all its decimals and nothing between its thousands, as it can be typed again. */
export function written(value) {
  return new Intl.NumberFormat(language, { useGrouping: false, maximumFractionDigits: 20 }).format(value);
}
