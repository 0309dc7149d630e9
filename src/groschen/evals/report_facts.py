"""The sections that let a reader judge and repeat a run: what may not be concluded, settings, exactness,
origins.

The list of limits is made from the facts of this run, never from habit: a limit that does not apply is not
named.
"""

import math
from collections.abc import Iterator, Mapping

from groschen.energy import MEASURED
from groschen.evals.comparison import Comparison, Finding, Summary
from groschen.evals.markup import Html, section, table, tag
from groschen.evals.report_data import number_of
from groschen.evals.report_results import Results
from groschen.evals.report_text import DASH, Words

_MUCH_TRUNCATED, _FEW_PROBLEMS = 0.01, 200
_GENERATED_TASKS = ("countdown", "reasoning-gym:")


def limits(results: Results, words: Words) -> Html:
    """What one may not conclude, and why."""
    items = [tag("li", tag("strong", head), " ", body) for head, body in _limits(results, words)]
    intro = tag("p", words("limits.intro"))
    return section("limits", words("limits.title"), words.language, intro, tag("ul", *items))


def exactness(results: Results, words: Words) -> Html:
    """Whether engine and trainer agreed to the bit at every step."""
    gap, manifest = results.gap, results.run.manifest
    if gap.num_steps == 0:
        said = words("exactness.none")
    elif gap.num_nonzero == 0:
        said = words("exactness.zero", steps=words.count(gap.num_steps))
    else:
        said = words(
            "exactness.some",
            steps=words.count(gap.num_steps),
            nonzero=words.count(gap.num_nonzero),
            largest=words.short(gap.largest),
        )
    if manifest.exact:
        probe = words("exactness.exact")
    else:
        probe = words("exactness.inexact", operation=manifest.first_inexact or DASH)
    return section("exactness", words("exactness.title"), words.language, tag("p", said), tag("p", probe))


def settings(results: Results, words: Words) -> Html:
    """All settings as they were written, and what happened on the way."""
    run = results.run
    text = tag("pre", run.config, class_="code", translate="no", tabindex="0")
    shown = tag("details", tag("summary", words("settings.config")), text) if run.config else None
    missing = tag("p", words("settings.no_config")) if not run.config else None
    return section(
        "settings", words("settings.title"), words.language, shown, missing, _events(results, words)
    )


def origins(results: Results, words: Words) -> Html:
    """Machine, versions and digests: what another would need to make the same run."""
    manifest, run = results.run.manifest, results.run
    rows: list[list[Html | str]] = [
        [words("origins.run"), run.name],
        [words("origins.created"), manifest.created],
        ["groschen", manifest.groschen + (f" ({manifest.commit})" if manifest.commit else "")],
        [words("origins.model"), manifest.model],
        [words("origins.parameters"), words.count(manifest.num_parameters)],
        [words("origins.model_digest"), _digest(manifest.model_digest)],
        [words("origins.task"), manifest.task],
        [words("origins.task_digest"), _digest(manifest.task_digest)],
        [words("origins.config_digest"), _digest(manifest.config_digest)],
        [words("origins.seed"), str(manifest.seed)],
        [words("origins.best"), words.count(run.best_step)],
        *([name, version] for name, version in manifest.versions.items()),
        *([f"machine.{name}", value] for name, value in _flat(manifest.machine)),
    ]
    missing = words("origins.missing", files=", ".join(run.missing)) if run.missing else None
    return section(
        "origins",
        words("origins.title"),
        words.language,
        table(
            [words("origins.what"), words("origins.value")],
            rows,
            caption=words("origins.caption"),
            texts=(1,),
        ),
        tag("p", missing, class_="note") if missing else None,
    )


def _limits(results: Results, words: Words) -> Iterator[tuple[str, str]]:
    """(what may not be concluded, why)."""
    main = results.main
    if main is None:
        yield _limit("no_evaluation", words)
    else:
        yield from _limits_of_numbers(main, results, words)
    yield _limit("one_seed", words, seed=str(results.run.manifest.seed))
    yield _limit("same_task", words, task=results.run.manifest.task)
    yield _limit("other_skills", words)
    if results.run.warnings:
        yield _limit("task_warnings", words, warnings="; ".join(results.run.warnings))
    if not results.run.manifest.task.startswith(_GENERATED_TASKS):
        yield _limit("contamination", words)
    if main is not None:
        yield _limit("people", words)
    if results.gap.num_nonzero:
        yield _limit("inexact", words)
    if results.money is not None and results.money.bill.total.joules_method != MEASURED:
        yield _limit("energy", words)


def _limits_of_numbers(main: Comparison, results: Results, words: Words) -> Iterator[tuple[str, str]]:
    n, detectable = words.count(main.paired.num_problems), words.number(100 * main.smallest_detectable)
    if main.finding is Finding.NONE:
        key = "no_change" if math.isfinite(main.smallest_detectable) else "no_spread"
        yield _limit(key, words, n=n, detectable=detectable)
    elif main.paired.num_problems < _FEW_PROBLEMS:
        yield _limit("few_problems", words, n=n, detectable=detectable)
    if results.split == "dev":
        yield _limit("dev", words)
    if results.against_prompt is None:
        if not results.run.num_prompts_tried:
            yield _limit("no_prompt", words)
    elif results.against_prompt.finding is not main.finding:
        yield _limit("prompt_differs", words)
    if main.lenient is not None and main.finding is Finding.GAIN and main.lenient.low <= 0:
        yield _limit("format_only", words)
    if main.trained.k == 1:
        yield _limit("one_sample", words)
    cut = max(main.base.truncated, main.trained.truncated)
    if cut > _MUCH_TRUNCATED:
        yield _limit("truncated", words, share=words.percent(cut))
    if main.base.num_errors + main.trained.num_errors:
        yield _limit("errors", words, count=words.count(main.base.num_errors + main.trained.num_errors))
    if _fell(main.base, main.trained):
        yield _limit("pass_at_k", words, k=words.count(min(main.base.k, main.trained.k)))


def _fell(base: Summary, trained: Summary) -> bool:
    """Whether pass@1 rose and the largest pass@k that both have did not: sharpened, nothing new found."""
    sizes = [size for size in base.pass_at_k if size > 1 and size in trained.pass_at_k]
    rose = trained.pass_at_1.value > base.pass_at_1.value
    return bool(sizes) and rose and trained.pass_at_k[sizes[-1]] <= base.pass_at_k[sizes[-1]]


def _limit(key: str, words: Words, **values: str) -> tuple[str, str]:
    return words(f"limit.{key}"), words(f"limit.{key}_why", **values)


def _events(results: Results, words: Words) -> Html | None:
    if not results.run.events:
        return None
    rows = [
        [words.count(number_of(line, "step")), str(line.get("message", ""))] for line in results.run.events
    ]
    header = [words("figure.step"), words("settings.event")]
    return table(header, rows, caption=words("settings.events"), texts=(1,))


def _digest(text: str) -> Html:
    return tag("code", text, class_="digest")


def _flat(table_: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each value with its dotted name; lists as they would be said."""
    for key, value in table_.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(each) for each in value) or DASH
        else:
            yield f"{prefix}{key}", DASH if value is None else str(value)
