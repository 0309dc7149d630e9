// The language of the page follows ?lang=de, else the browser; the switch itself works without this script.
const wanted = new URLSearchParams(location.search).get("lang") || navigator.language.slice(0, 2);
const choices = [...document.querySelectorAll("input[name=language]")];
const tell = () => { document.documentElement.lang = choices.find((choice) => choice.checked).value; };
const named = location.hash.match(/-(en|de)(-|$)/);
const chosen = choices.find((choice) => choice.value === (named ? named[1] : wanted));
if (chosen) chosen.checked = true;
choices.forEach((choice) => choice.addEventListener("change", tell));
tell();
