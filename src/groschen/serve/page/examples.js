// What a first message could be. The built-in model knows one game alone, and is asked as its task asks.

import { t } from "./words.js";

const PUZZLES = [["24", "2, 6 and 6"], ["14", "3, 4 and 7"], ["30", "2, 5 and 10"], ["18", "3, 3 and 3"]];

const puzzle = ([target, numbers]) => `Make ${target} from ${numbers}. `
  + "Use each number once, with + - * / and brackets. End with <answer>expression</answer>.";

/** Whether a model plays countdown and nothing else: the built-in one, or a run that started from it. */
export function isPenny(id, models) {
  const parameters = models.find((each) => each.id === id)?.groschen?.parameters;
  return parameters === undefined ? /penny|countdown/i.test(id) : parameters > 2.9e6 && parameters < 3e6;
}

export function examplesFor(id, models) {
  if (isPenny(id, models)) {
    const prompts = PUZZLES.map((each) => ({ text: puzzle(each),
      label: t("start.puzzle", { target: each[0], numbers: each[1].replace(" and", t("start.and")) }) }));
    return { title: t("start.penny"), note: t("start.penny_note"), wording: puzzle(PUZZLES[0]), prompts };
  }
  const prompts = ["reason", "explain", "code", "maths"].map((name) => (
    { label: t(`start.${name}`), text: t(`start.${name}_text`) }));
  return { title: t("start.title"), note: t("start.note"), wording: "", prompts };
}
