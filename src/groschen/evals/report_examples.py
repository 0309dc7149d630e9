"""Completions to read: problems that training gained and lost, side by side; and what broke or was cut.

Which problems are shown follows from a rule that nobody can bend: those of each kind, in order of the length
of the trained model's completion, evenly spaced. What a model wrote is shown as text and never becomes
markup. Leaves out counting (comparison.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from groschen.evals import report_data
from groschen.evals.comparison import graded_by_problem, is_solved
from groschen.evals.markup import Html, join, section, table, tag
from groschen.evals.report_data import points_of
from groschen.evals.report_results import Results
from groschen.evals.report_text import Words
from groschen.records import EvalRecord, FinishReason

_MOST_EXAMPLES, _MOST_CHARACTERS, _MOST_ERRORS = 4, 6_000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One problem that one model solves and the other does not, with a completion of each."""

    base: EvalRecord
    trained: EvalRecord
    base_passed: int  # of base_graded completions
    base_graded: int
    trained_passed: int
    trained_graded: int


def choose_examples(
    base: Sequence[EvalRecord], trained: Sequence[EvalRecord], *, gained: bool, most: int = _MOST_EXAMPLES
) -> tuple[list[Example], int]:
    """At most `most` problems that the trained model solves and the base does not, and how many there are.

    gained: False turns it round. A problem is solved if more than half of its graded completions passed; of
    each model the first completion is taken that passed where it solves the problem, or failed where it does
    not.
    """
    first, second = graded_by_problem(base), graded_by_problem(trained)
    found = []
    for key in sorted(first.keys() & second.keys()):
        before, after = first[key], second[key]
        if is_solved(after) == gained and is_solved(before) != gained:
            found.append(
                Example(
                    base=next(record for record in before if record.passed != gained),
                    trained=next(record for record in after if record.passed == gained),
                    base_passed=sum(record.passed for record in before),
                    base_graded=len(before),
                    trained_passed=sum(record.passed for record in after),
                    trained_graded=len(after),
                )
            )
    found.sort(key=lambda example: (example.trained.num_tokens, example.trained.key))
    count = min(most, len(found))
    return [found[int((i + 0.5) * len(found) / count)] for i in range(count)], len(found)


def examples(results: Results, words: Words) -> Html | None:
    """Both kinds of change with their reasoning."""
    if results.split is None:
        return None
    base = results.run.records_of(report_data.BASE, results.split)
    trained = results.run.records_of(report_data.TRAINED, results.split)
    parts: list[Html] = [tag("p", words("examples.intro"))]
    for gained in (True, False):
        kind = "gained" if gained else "lost"
        chosen, total = choose_examples(base, trained, gained=gained)
        parts.append(tag("h3", words(f"examples.{kind}")))
        counts = words("examples.shown", shown=words.count(len(chosen)), total=words.count(total))
        parts.append(tag("p", counts if total else words("examples.nothing"), class_="note"))
        parts += [_example(example, words, is_open=i == 0) for i, example in enumerate(chosen)]
    return section("examples", words("examples.title"), words.language, *parts)


def errors(results: Results, words: Words) -> Html | None:
    """Verifiers that broke and completions that were cut."""
    if results.split is None:
        return None
    rows, messages = [], Counter[str]()
    for model, summary in results.summaries.items():
        records = results.run.records_of(model, results.split)
        messages.update(record.error for record in records if record.error is not None)
        num_cut = sum(record.finish_reason == FinishReason.LENGTH for record in records)
        rows.append(
            [
                words(f"model.{model}"),
                words.count(summary.num_completions),
                _count_and_share(summary.num_errors, summary.errors, words),
                words.count(summary.num_ungraded_problems),
                _count_and_share(num_cut, summary.truncated, words),
            ]
        )
    header = [words(f"errors.{name}") for name in ("model", "completions", "errors", "ungraded", "cut")]
    return section(
        "errors",
        words("errors.title"),
        words.language,
        tag("p", words("errors.intro")),
        table(header, rows, caption=words("errors.caption")),
        _messages(messages, words),
        _while_training(results, words),
    )


def _example(example: Example, words: Words, *, is_open: bool) -> Html:
    record = example.trained
    question = tag("div", tag("h4", words("examples.problem")), _text(record.prompt, words), class_="problem")
    answer = tag("p", words("examples.answer"), " ", tag("code", record.answer, translate="no"))
    sides = tag(
        "div",
        _side("base", example.base, example.base_passed, example.base_graded, words),
        _side("best", example.trained, example.trained_passed, example.trained_graded, words),
        class_="sides",
    )
    summary = tag("summary", tag("span", _first_line(record.prompt), translate="no"))
    return tag("details", summary, question, answer, sides, class_="example", open="" if is_open else None)


def _side(model: str, record: EvalRecord, num_passed: int, num_graded: int, words: Words) -> Html:
    kind = "right" if record.passed else "wrong"
    facts = words("examples.tokens", tokens=words.count(record.num_tokens))
    if record.finish_reason == FinishReason.LENGTH:
        facts += " " + words("examples.cut")
    if num_graded > 1:
        facts += " " + words("examples.of_k", passed=words.count(num_passed), graded=words.count(num_graded))
    mark = tag("span", words(f"examples.{kind}"), class_=f"verdict {kind}")
    return tag(
        "div",
        tag("h4", words(f"model.{model}"), " ", mark),
        tag("p", facts, class_="note"),
        _text(record.text, words),
        class_="side",
    )


def _text(text: str, words: Words) -> Html:
    """What a model or a task wrote, as it stands; a very long text ends with how much is left out."""
    shown = tag("pre", text[:_MOST_CHARACTERS], class_="text", translate="no", dir="auto")
    left = len(text) - _MOST_CHARACTERS
    if left <= 0:
        return shown
    return join([shown, tag("p", words("examples.left_out", characters=words.count(left)), class_="note")])


def _first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    return line if len(line) <= 100 else line[:99] + "\u2026"


def _count_and_share(count: int, share: float, words: Words) -> str:
    return f"{words.count(count)} ({words.percent(share)})"


def _messages(messages: Counter[str], words: Words) -> Html | None:
    if not messages:
        return None
    rows = [
        [words.count(count), _first_line(message)] for message, count in messages.most_common(_MOST_ERRORS)
    ]
    header = [words("errors.times"), words("errors.message")]
    left = words("errors.more", kinds=words.count(len(messages) - len(rows)))
    note = tag("p", left, class_="note") if len(messages) > len(rows) else None
    return join([table(header, rows, caption=words("errors.messages"), texts=(1,)), note])


def _while_training(results: Results, words: Words) -> Html | None:
    broken = [share for _, share in points_of(results.run.steps, "verify/error_share")]
    cut = [share for _, share in points_of(results.run.steps, "completion/truncated_share")]
    if not broken or not cut:
        return None
    sentence = words(
        "errors.training",
        broken=words.percent(_mean(broken), 2),
        cut=words.percent(_mean(cut)),
        last=words.percent(cut[-1]),
    )
    return tag("p", sentence)


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return sum(kept) / len(kept)
