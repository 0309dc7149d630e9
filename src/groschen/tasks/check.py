"""Try a task's verifier on answers whose verdict is known, before anything is trained on it.

The gold answer must pass and earn more than any other; wrong, empty and senseless answers must fail; one text
must get one verdict; nothing may raise. Leaves out how single answers are tried (trials.py) and how what was
found is shown (check_table.py).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from groschen.errors import BadRequest
from groschen.records import Split
from groschen.tasks.identity import difference, fingerprints
from groschen.tasks.overlap import Overlap, Pair, find_overlap
from groschen.tasks.splits import sample
from groschen.tasks.task import Task
from groschen.tasks.trials import Probe, Trial, try_problem

DEFAULT_LIMIT = 200  # problems tried in each split
_WHOLESALE = 0.2  # share of held-out problems with a near copy from which on they are no finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An answer whose verdict is not what it must be."""

    key: str  # of the problem
    split: Split
    probe: Probe
    text: str  # the answer that was tried
    fault: str  # a clause, as in "the gold answer '<answer>3</answer>' did not pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCheck:
    """What was tried in one split."""

    problems: int
    tried: int  # problems
    without_gold: int  # of those tried
    answers: Mapping[Probe, int]  # how many answers of each kind were tried
    right: Mapping[Probe, int]  # how many of them got the verdict that they must or should get
    errors: int  # answers that the verifier broke on


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What trying a task found: the shape of the JSON."""

    task: str
    digest: str
    ok: bool  # every answer got the verdict that it must get, and the problems are the same each time
    unstable: str | None  # what differs when the problems are made again in a fresh process
    splits: Mapping[Split, SplitCheck]
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]  # sentences: worth knowing, no reason to refuse
    overlap: Overlap
    median_s: float  # of one verdict
    slowest_s: float


def check_task(
    task: Task,
    limit: int | None = DEFAULT_LIMIT,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Checked:
    """Try the verifier on up to `limit` problems of each split (None: all).

    on_progress: told after each problem how many of how many are done. Which problems are tried does not
    depend on their order. Raises BadRequest for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"the limit is {limit}; expected 1 problem or more of each split")
    chosen = {split: sample(task.problems[split], limit) for split in Split}
    total = sum(map(len, chosen.values()))
    trials: dict[Split, list[Trial]] = {split: [] for split in Split}
    done = 0
    for split, problems in chosen.items():
        for problem in problems:
            trials[split] += try_problem(task, problem)
            done += 1
            on_progress(done, total)
    every = [trial for split in Split for trial in trials[split]]
    failures = tuple(
        Failure(key=trial.key, split=split, probe=trial.probe, text=trial.text, fault=trial.fault)
        for split in Split
        for trial in trials[split]
        if trial.fault and trial.probe.must
    )
    unstable = _unstable(task)
    overlap = find_overlap(task.problems)
    num_held_out = len(task.problems[Split.DEV]) + len(task.problems[Split.TEST])
    seconds = [trial.verdict.seconds for trial in every if trial.verdict]
    return Checked(
        task=task.name,
        digest=task.digest,
        ok=not failures and unstable is None,
        unstable=unstable,
        splits={
            split: _split_check(len(task.problems[split]), len(chosen[split]), trials[split])
            for split in Split
        },
        failures=failures,
        warnings=(*task.notes, *_warnings(every, total), *_overlap_warnings(overlap, num_held_out)),
        overlap=overlap,
        median_s=statistics.median(seconds) if seconds else 0.0,
        slowest_s=max(seconds, default=0.0),
    )


def refuse_broken(checked: Checked) -> None:
    """Raises BadRequest with the first three failures if the task fails its own key."""
    if checked.ok:
        return
    if checked.unstable is not None:
        raise BadRequest(
            f"task {checked.task} is another one each time that it is loaded: {checked.unstable}; let load() "
            "give the same problems: random.Random(0) in place of random, sorted() around a set"
        )
    shown = "; ".join(
        f"problem {failure.key!r} ({failure.split}): {failure.fault}" for failure in checked.failures[:3]
    )
    tried = sum(sum(split.answers.values()) for split in checked.splits.values())
    raise BadRequest(
        f"task {checked.task} fails its own key in {len(checked.failures)} of {tried} answers: {shown}; "
        "mend the verifier or the references"
    )


def _unstable(task: Task) -> str | None:
    """Load the task a second time, in a process with another hash seed: it costs what loading costs."""
    if task.made_again is None:
        return None
    return difference(fingerprints(task.problems), fingerprints(task.made_again()))


def _split_check(problems: int, tried: int, trials: Sequence[Trial]) -> SplitCheck:
    def count(probe: Probe, *, right: bool = False) -> int:
        return sum(trial.probe == probe and not (right and trial.fault) for trial in trials)

    return SplitCheck(
        problems=problems,
        tried=tried,
        without_gold=tried - count(Probe.GOLD),
        answers={probe: count(probe) for probe in Probe},
        right={probe: count(probe, right=True) for probe in Probe},
        errors=sum(trial.verdict is None or trial.verdict.error is not None for trial in trials),
    )


def _warnings(trials: Sequence[Trial], tried: int) -> list[str]:
    found = []
    num_gold = sum(trial.probe == Probe.GOLD for trial in trials)
    if num_gold < tried:
        found.append(
            f"{tried - num_gold} of {tried} problems have no gold answer: that a right answer passes was not "
            "tested for them"
        )
    if tried and not any(trial.probe == Probe.WRONG for trial in trials):
        found.append("no wrong answers are known: that a plausible but wrong answer fails was not tested")
    rewards = {trial.verdict.reward for trial in trials if trial.verdict}
    if len(rewards) == 1:
        found.append(
            f"every answer that was tried earned {rewards.pop():g}: a constant reward teaches nothing"
        )
    paid = [score for trial in trials if (score := _score_for_nothing(trial)) > 0]
    if paid:
        found.append(
            f"the task's own score pays {min(paid):g} to {max(paid):g} for an empty answer "
            f"({len(paid)} problems); the reward here does not"
        )
    for probe, what in (
        (Probe.HEDGED, "an answer that names the right and a wrong result in one breath passes"),
        (Probe.ECHO, "the prompt itself, repeated as the answer, passes"),
    ):
        keys = [trial.key for trial in trials if trial.probe == probe and trial.fault]
        if keys:
            found.append(f"{what} ({len(keys)} times, as for {keys[0]!r})")
    spelled = [trial for trial in trials if trial.probe == Probe.SPELLED and trial.fault]
    if spelled:
        found.append(
            f"{len(spelled)} problem(s) have an answer that no model would write so, as {spelled[0].key!r}: "
            f"{spelled[0].fault}; change the key to what is asked for, or set a tolerance"
        )
    return found


def _score_for_nothing(trial: Trial) -> float:
    """The raw score that a task from elsewhere gives for no answer, where it has one; its reward is ours."""
    score = trial.verdict.parts.get("score") if trial.verdict and trial.probe == Probe.EMPTY else None
    return score if isinstance(score, float) else 0.0


def _overlap_warnings(overlap: Overlap, num_held_out: int) -> list[str]:
    found = []
    num_near = len({pair.other_key for pair in overlap.near})
    if num_near:
        # Of mazes or rows of bits, most are like another one; a copied test set looks the same from here.
        wholesale = num_near >= _WHOLESALE * num_held_out
        doubt = ": a leak, or a task whose texts are all alike" if wholesale else ""
        found.append(
            f"{num_near} of {num_held_out} held-out problems stand nearly word for word in train, as "
            f"{_told(overlap.near[0])}{doubt}"
        )
    if overlap.repeated:
        found.append(
            f"{len(overlap.repeated)} problem(s) repeat another one of their split word for word, as "
            f"{_told(overlap.repeated[0])}"
        )
    return found


def _told(pair: Pair) -> str:
    return f"{pair.other_key!r} ({pair.other_split}) and {pair.key!r}"
