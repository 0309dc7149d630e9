"""The first sections of the report: what was gained, in numbers and in plain words, and the controls.

Leaves out the statistics (comparison.py).
"""

import math

from groschen.evals import report_data
from groschen.evals.comparison import Comparison, Finding, Summary, share_explained
from groschen.evals.figures import interval_bar
from groschen.evals.markup import Html, join, section, table, tag
from groschen.evals.report_results import Results
from groschen.evals.report_text import Words
from groschen.evals.stats import Difference, Estimate

_SIGNS = {Finding.GAIN: "\u25b2", Finding.NONE: "\u25c6", Finding.LOSS: "\u25bc"}


def headline(results: Results, words: Words) -> Html:
    """Base, trained, gain with interval and p, and what that means."""
    if results.main is None or results.split is None:
        return section("headline", words("headline.title"), words.language, tag("p", words("headline.none")))
    main = results.main
    return section(
        "headline",
        words("headline.title"),
        words.language,
        _scores(main, words),
        tag("p", *_finding(main, words), class_=f"finding {main.finding}"),
        tag("p", _expectation(main, words), " ", _tests(main, words)),
        tag("p", words("headline.dev"), class_="warning") if results.split == "dev" else None,
        _intervals(results, words),
        tag("p", _method(main, results.split, words), class_="note"),
    )


def controls(results: Results, words: Words) -> Html | None:
    """What else could explain the gain: prompt, format, luck."""
    if results.main is None:
        return None
    sentences = [_prompt_control(results, words), _lenient_control(results.main, words)]
    if results.against_format is not None:
        sentences.append(_gain_sentence("controls.format_only", results.against_format.paired, words))
    return section(
        "controls",
        words("controls.title"),
        words.language,
        tag("p", words("controls.intro")),
        tag("ul", *(tag("li", sentence) for sentence in sentences)),
        _all_numbers(results, words),
        _solved(results.main, words),
    )


def model_name(model: str, words: Words) -> str:
    """What a model of report_data.MODELS is called."""
    return words(f"model.{model}")


def interval_text(estimate: Estimate | Difference, words: Words) -> str:
    """The bounds of an interval in percent or percentage points, without the unit."""
    if isinstance(estimate, Difference):
        return words("to", low=words.points(estimate.low), high=words.points(estimate.high))
    low, high = words.number(100 * estimate.low), words.number(100 * estimate.high)
    return words("to", low=low, high=high)


def _scores(main: Comparison, words: Words) -> Html:
    def score(label: str, value: str, detail: str, kind: str) -> Html:
        parts = (("label", label), ("value", value), ("detail", detail))
        return tag("div", *(tag("span", text, class_=name) for name, text in parts), class_=f"score {kind}")

    base, trained, paired = main.base.pass_at_1, main.trained.pass_at_1, main.paired
    interval = words("headline.interval", interval=interval_text(paired, words))
    return tag(
        "div",
        score(words("model.base"), words.percent(base.value), interval_text(base, words), "base"),
        tag("span", "\u2192", class_="arrow", aria_hidden="true"),
        score(words("model.best"), words.percent(trained.value), interval_text(trained, words), "trained"),
        score(words("headline.gain"), words.points(paired.gain), interval, "gain"),
        class_="scores",
    )


def _finding(main: Comparison, words: Words) -> tuple[Html, str]:
    sentence = words(
        f"finding.{main.finding}",
        interval=interval_text(main.paired, words),
        n=words.count(main.paired.num_problems),
        detectable=words.number(100 * main.smallest_detectable),
    )
    return tag("span", f"{_SIGNS[main.finding]} ", aria_hidden="true"), sentence


def _expectation(main: Comparison, words: Words) -> str:
    of_hundred = [words.count(100 * summary.pass_at_1.value) for summary in (main.base, main.trained)]
    return words("headline.plain", base=of_hundred[0], trained=of_hundred[1])


def _tests(main: Comparison, words: Words) -> str:
    return words(
        "headline.tests",
        p=words.p_value(main.paired.p_value),
        flip=words.p_value(main.paired.sign_flip_p),
        mcnemar=words.p_value(main.mcnemar_p),
    )


def _method(main: Comparison, split: str, words: Words) -> str:
    return words(
        "headline.method",
        n=words.count(main.paired.num_problems),
        k=words.count(main.trained.k),
        split=words(f"split.{split}"),
        detectable=words.number(100 * main.smallest_detectable),
    )


def _intervals(results: Results, words: Words) -> Html:
    """One line for each model: a dot with its interval from 0 to 100 %, and the numbers."""
    rows = []
    for model, summary in results.summaries.items():
        estimate = summary.pass_at_1
        look = 0 if model == report_data.TRAINED else 1
        rows.append(
            tag(
                "tr",
                tag("th", model_name(model, words), scope="row"),
                tag(
                    "td", interval_bar(estimate.value, estimate.low, estimate.high, look=look), class_="bars"
                ),
                tag("td", words.percent(estimate.value), class_="strong"),
                tag("td", interval_text(estimate, words), class_="detail"),
            )
        )
    header = [words("headline.model"), words("headline.scale"), "pass@1", words("headline.interval95")]
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in header)))
    return tag("table", tag("caption", words("headline.bars")), head, tag("tbody", *rows), class_="forest")


def _prompt_control(results: Results, words: Words) -> str:
    if results.against_prompt is None or results.main is None:
        tried = results.run.num_prompts_tried
        return (
            words("controls.own_prompt", tried=words.count(tried)) if tried else words("controls.no_prompt")
        )
    paired = results.against_prompt.paired
    share = share_explained(results.main.paired.gain, paired.gain)
    key = "controls.prompt" if math.isnan(share) else "controls.prompt_share"
    return _gain_sentence(key, paired, words, share)


def _lenient_control(main: Comparison, words: Words) -> str:
    if main.lenient is None:
        return words("controls.no_lenient")
    share = share_explained(main.paired.gain, main.lenient.gain)
    key = "controls.lenient" if math.isnan(share) else "controls.lenient_share"
    return _gain_sentence(key, main.lenient, words, share)


def _gain_sentence(key: str, paired: Difference, words: Words, share: float = math.nan) -> str:
    return words(
        key,
        gain=words.points(paired.gain),
        interval=interval_text(paired, words),
        share=words.percent(share, 0),
    )


def _all_numbers(results: Results, words: Words) -> Html:
    """Every number of every evaluation: one row each, one column for each model."""
    summaries = results.summaries
    k = max(summary.k for summary in summaries.values())
    sizes = [2**i for i in range(1, k.bit_length())]
    rows: list[list[Html | str]] = [
        ["pass@1", *(words.percent(s.pass_at_1.value) for s in summaries.values())],
        [words("numbers.se"), *(words.number(100 * s.pass_at_1.se, 2) for s in summaries.values())],
        *([f"pass@{n}", *(words.percent(s.pass_at_k.get(n)) for s in summaries.values())] for n in sizes),
    ]
    if k > 1:
        rows.append([f"maj@{k}", *(words.percent(s.maj_at_k) for s in summaries.values())])
    for part in ("lenient", "format"):
        found = [getattr(summary, part) for summary in summaries.values()]
        rows.append([words(f"numbers.{part}"), *(words.percent(e.value if e else None) for e in found)])
    rows += [
        [words("numbers.tokens"), *(_tokens(summary, words) for summary in summaries.values())],
        [words("numbers.truncated"), *(words.percent(s.truncated) for s in summaries.values())],
        [words("numbers.errors"), *(words.percent(s.errors) for s in summaries.values())],
        [words("numbers.problems"), *(words.count(s.num_problems) for s in summaries.values())],
        [words("numbers.completions"), *(words.count(s.num_completions) for s in summaries.values())],
    ]
    header = [words("numbers.number"), *(model_name(model, words) for model in summaries)]
    return table(header, rows, caption=words("numbers.caption"))


def _tokens(summary: Summary, words: Words) -> str:
    return words(
        "numbers.mean_median",
        mean=words.count(summary.mean_tokens),
        median=words.count(summary.median_tokens),
    )


def _solved(main: Comparison, words: Words) -> Html:
    solved = main.solved
    rows = [
        [words("solved.base_yes"), words.count(solved.both), words.count(solved.only_base)],
        [words("solved.base_no"), words.count(solved.only_trained), words.count(solved.neither)],
    ]
    header = [words("solved.problems"), words("solved.trained_yes"), words("solved.trained_no")]
    note = words("solved.unpaired", n=words.count(main.num_unpaired)) if main.num_unpaired else None
    shown = table(header, rows, caption=words("solved.caption"))
    return join([shown, tag("p", note, class_="note") if note else None])
