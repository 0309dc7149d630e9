"""Show what `groschen check` found: a table for people, JSON for scripts.

docs/tasks.md describes both.
"""

import sys

import msgspec
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from groschen.progress import LineAMinute
from groschen.records import Split
from groschen.tasks.check import DEFAULT_LIMIT, Checked, check_task
from groschen.tasks.task import Task
from groschen.tasks.trials import Probe

_SHOWN = 10  # failures that the table names


def check_with_bar(task: Task, limit: int | None = DEFAULT_LIMIT) -> Checked:
    """As `check_task`, with a progress bar on standard error if that is a terminal."""
    columns = (
        TextColumn("checking {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        bar, words = progress.add_task(task.name, total=None), LineAMinute()

        def count(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total)
            words.say(f"checking {task.name}: {done} of {total} problems")

        return check_task(task, limit, count)


def as_json(checked: Checked) -> str:
    """One JSON object, indented, with a line feed at its end."""
    return msgspec.json.format(msgspec.json.encode(checked), indent=2).decode() + "\n"


def as_table(checked: Checked) -> Group:
    """A table with a column for each split, then what failed and what is worth knowing."""
    table = Table(title=f"{checked.task}: answers whose verdict is known", title_justify="left")
    table.add_column("")
    for split in Split:
        table.add_column(split, justify="right")
    table.add_row("problems", *(str(checked.splits[split].problems) for split in Split))
    table.add_row("tried", *(str(checked.splits[split].tried) for split in Split))
    for probe in Probe:
        table.add_row(_ROWS[probe], *(_share(checked, split, probe) for split in Split))
    table.add_row("verifier broke", *(str(checked.splits[split].errors) for split in Split))
    lines = [f"a verdict takes {_time(checked.median_s)}, at most {_time(checked.slowest_s)}"]
    if checked.unstable is not None:
        lines.append(f"wrong: loaded a second time, {checked.unstable}")
    lines += [f"note: {warning}" for warning in checked.warnings]
    lines += [
        f"wrong: problem {failure.key!r} ({failure.split}): {failure.fault}"
        for failure in checked.failures[:_SHOWN]
    ]
    if len(checked.failures) > _SHOWN:
        lines.append(f"wrong: and {len(checked.failures) - _SHOWN} more")
    # A Text, not a str: rich would take the square brackets of an answer for markup.
    return Group(table, Text("\n".join(lines)))


_ROWS = {
    Probe.GOLD: "gold answers that pass",
    Probe.WRONG: "wrong answers that fail",
    Probe.EMPTY: "empty answers that fail",
    Probe.NONSENSE: "nonsense that fails",
    Probe.HEDGED: "hedged answers that fail",
    Probe.ECHO: "repeated prompts that fail",
    Probe.SPELLED: "gold as models spell it, passing",
}


def _share(checked: Checked, split: Split, probe: Probe) -> str:
    tried = checked.splits[split].answers[probe]
    return f"{checked.splits[split].right[probe]} of {tried}" if tried else "-"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
