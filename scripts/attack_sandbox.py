#!/usr/bin/env python3
"""Attack the code sandbox of this machine, and say what got out.

    scripts/attack_sandbox.py             every wall, as this user and, if that is root, as an ordinary one
    scripts/attack_sandbox.py --held      only the wall that graded code runs behind, only as this user
    scripts/attack_sandbox.py --control   without any wall and filter, as an ordinary user: what would get out
    scripts/attack_sandbox.py --json      with the others: one JSON object

Every attack of attacks.py runs behind each wall that holds its own probe. From outside it is checked whether
a planted file changed, a server was reached, a process was touched or outlives its grader, memory beyond the
limit was taken, the grader had to wait, or a wrong program passed its tests. Exit status 1 if anything of
that came true and the wall does not say itself that it leaves it open.
"""

import argparse
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from attack_scene import Memory, Scene, planted, settle
from attacks import PRELUDE, Attack, attacks

from groschen.errors import Unsupported
from groschen.records import Problem
from groschen.tasks import sandbox as sandboxes
from groschen.tasks import seccomp
from groschen.tasks.sandbox import Limits, Sandbox, find_sandbox, hole
from groschen.tasks.unit_tests import Code
from groschen.tasks.walls import WALLS, Bubblewrap, Piped, Process, Wall

ORDINARY = 60_001  # a user who owns nothing on this machine
LIMITS = Limits(seconds=2.0, memory_bytes=128 << 20)
_PATIENCE = 10.0  # seconds beyond the limit after which a grader counts as held up
_MOST_MEMORY = 3 * LIMITS.memory_bytes + (64 << 20)  # page tables may be twice what they describe; files
_PROBLEM = Problem(
    key="add",
    messages=[{"role": "user", "content": "Write add."}],
    answer={"tests": ["assert add(1, 2) == 3", "assert add(20, 30) == 50"]},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an attack came to."""

    wall: str
    user: str
    kind: str
    attack: str
    outcome: str  # held, open as said, out, false pass, hang, left behind
    evidence: str
    peak_mib: int  # memory that the program held, the kernel's part included; 0: not measured
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--held", action="store_true", help="only the wall that graded code runs behind")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--as-is", action="store_true", help="only as the user who starts this")
    parser.add_argument("--control", action="store_true", help="without any wall, to see that attacks attack")
    parser.add_argument("--die", metavar="WALL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.die is not None:
        wall = next(wall for wall in (*WALLS, NoWall()) if wall.name == options.die)
        with _graded_by(wall):
            _die(wall)
    is_root = os.geteuid() == 0
    results: list[Result] = []
    skipped: dict[str, str] = {}
    if not (options.control and is_root):
        walls = (NoWall(),) if options.control else (find_sandbox().wall,) if options.held else WALLS
        results, skipped = _attack_all(walls)
    if is_root and not options.held and not options.as_is:
        more, why = _as_ordinary_user("--control" if options.control else "--as-is")
        results, skipped = results + more, {**skipped, **why}
    bad = [result for result in results if result.outcome not in ("held", "open as said")]
    if options.json:
        print(json.dumps({"results": [asdict(result) for result in results], "skipped": skipped}, indent=1))
    else:
        print(_table(results, skipped))
    return 1 if bad or not results else 0


class NoWall(Bubblewrap):
    """No wall: what remains is that the process limits itself."""

    name = "no wall"

    def counts_alone(self) -> bool:
        """As of every wall."""
        return False

    def start(self, argv: Sequence[str], memory_bytes: int) -> Process:  # noqa: ARG002 - as of every wall
        """As of every wall."""
        return Piped(argv)


def _attack_all(walls: Sequence[Wall]) -> tuple[list[Result], dict[str, str]]:
    """The results of all attacks behind each wall, and why walls were left out."""
    results, skipped = [], {}
    user = "root" if os.geteuid() == 0 else "ordinary"
    for wall in walls:
        try:
            why = None if isinstance(wall, NoWall) else hole(Sandbox(wall))
        except Unsupported as unsupported:
            why = str(unsupported)
        if why is not None:
            skipped[f"{wall.name}, {user}"] = why
            continue
        pending = list(reversed(attacks()))
        with _graded_by(wall):
            while pending:
                with planted() as scene:  # and again after an attack that reached its goal
                    while pending:
                        results.append(_attack(pending.pop(), wall, user, scene))
                        if results[-1].outcome != "held":
                            break
    return results, skipped


@contextmanager
def _graded_by(wall: Wall) -> Iterator[None]:
    """Let verifiers use this wall; without a wall there is no filter either."""
    nothing = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # every call is allowed
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(sandboxes, "first_that_holds", return_value=Sandbox(wall)))
        if isinstance(wall, NoWall):
            patches.enter_context(mock.patch.object(seccomp, "program", return_value=nothing))
        find_sandbox.cache_clear()
        yield
    find_sandbox.cache_clear()


def _attack(attack: Attack, wall: Wall, user: str, scene: Scene) -> Result:
    """Run one attack and look at everything that it must not change."""
    before, started = scene.look(), time.monotonic()
    allowed, peak_bytes = LIMITS.seconds + _PATIENCE, 0
    if attack.kind == "lives on":
        evidence, outcome = _outlive(attack, wall), "left behind"
    elif attack.kind == "verdict":
        evidence, outcome = _judge(attack), "false pass"
    else:
        (evidence, peak_bytes), outcome = _run(attack, wall, scene), "out"
    seconds = time.monotonic() - started
    evidence = evidence or _touched(scene, before)
    if evidence is None and seconds > allowed:
        evidence, outcome = f"the grader waited for {seconds:.0f} s", "hang"
    left = settle(5.0)
    if evidence is None and left:
        evidence, outcome = f"process {left[0]} lives on", "left behind"
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    said = attack.open_if_said and any(attack.open_if_said in words for words in wall.leaves_open())
    outcome = "held" if evidence is None else "open as said" if said and outcome == "out" else outcome
    return Result(
        wall=wall.name,
        user=user,
        kind=attack.kind,
        attack=attack.name,
        outcome=outcome,
        evidence=evidence or "",
        peak_mib=peak_bytes >> 20,
        seconds=round(seconds, 3),
    )


def _run(attack: Attack, wall: Wall, scene: Scene) -> tuple[str | None, int]:
    """What the program says that it got, or the memory that it took beyond its limit; and its most memory."""
    given = json.dumps(scene.given()).encode()
    with Memory() as memory:
        outcome = Sandbox(wall).run(PRELUDE + attack.code, given, LIMITS)
    evidence = None
    if memory.peak_bytes > _MOST_MEMORY:
        evidence = f"{memory.peak_bytes >> 20} MiB with a limit of {LIMITS.memory_bytes >> 20} MiB"
    if b"GOT" in outcome.stdout or scene.secret.encode() in outcome.stdout + outcome.stderr:
        evidence = outcome.stdout.decode("utf-8", "replace").strip()[:200]
    return evidence, memory.peak_bytes


def _judge(attack: Attack) -> str | None:
    """The verdict on the program if it passed."""
    verdict = Code(seconds=LIMITS.seconds)(_PROBLEM, f"```python\n{attack.code}\n```")
    return str(verdict) if verdict.passed or verdict.reward > 0 else None


def _touched(scene: Scene, before: dict[str, object]) -> str | None:
    """What is no longer as it was."""
    if (server := scene.reached()) is not None:
        return f"the server {server} was reached"
    after = scene.look()
    return next(
        (f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]),
        None,
    )


def _outlive(attack: Attack, wall: Wall) -> str | None:
    """Kill the program's grader, a process of its own; what of the program is alive after that."""
    while_starting = attack.name == "started while its grader dies"
    for delay in (0.0, 0.004, 0.008, 0.016, 0.032) if while_starting else (None,):
        job = json.dumps({"code": PRELUDE + attack.code, "delay": delay}).encode()
        with subprocess.Popen(
            [sys.executable, __file__, "--die", wall.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as grader:
            assert grader.stdin and grader.stdout
            grader.stdin.write(job)
            grader.stdin.close()
            if delay is None and grader.stdout.readline() != b"ready\n":
                return "it was never ready, so nothing is known"
            grader.kill()
    left = settle(5.0)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return f"process {left[0]} outlives its grader" if left else None


def _die(wall: Wall) -> None:
    """Be the grader of a program, and end like one that is killed."""
    job = json.loads(sys.stdin.buffer.read())
    with Sandbox(wall).start(["program", job["code"]], Limits(seconds=60.0)) as process:
        if job["delay"] is not None:
            time.sleep(job["delay"])
            os.kill(os.getpid(), signal.SIGKILL)
        process.stdin.write(b'{"numbers": {}}')
        process.stdin.close()
        sys.stdout.buffer.write(process.stdout.readline())
        sys.stdout.buffer.flush()
        time.sleep(600)


def _as_ordinary_user(option: str) -> tuple[list[Result], dict[str, str]]:
    """The same in a process of another user, with a Python that this user may read: Debian's, or a copy."""
    with tempfile.TemporaryDirectory(prefix="groschen-attack-") as folder:
        os.chmod(folder, 0o755)
        home = Path(folder) / "home"
        home.mkdir()
        os.chown(home, ORDINARY, ORDINARY)
        paths = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
        environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]}
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        for python in _pythons(Path(folder)):
            command = [python, os.path.realpath(__file__), "--json", option]
            done = subprocess.run(
                command, capture_output=True, env=environment, cwd="/", user=ORDINARY, group=ORDINARY,
                extra_groups=[], check=False,
            )  # fmt: skip
            if done.stdout:
                said = json.loads(done.stdout)
                return [Result(**result) for result in said["results"]], said["skipped"]
        return [], {"an ordinary user": done.stderr.decode("utf-8", "replace")[-500:]}


def _pythons(folder: Path) -> Iterator[str]:
    """Interpreters of this version that another user may be able to start."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (os.path.realpath(sys.executable), f"/usr/bin/{name}"):
        command = [path, "-c", "import ctypes"]
        try:
            subprocess.run(
                command, capture_output=True, user=ORDINARY, group=ORDINARY, extra_groups=[], check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        yield path
    copy = folder / "python"
    ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "share", "*.a")
    shutil.copytree(sys.base_prefix, copy, ignore=ignored, symlinks=True)
    yield str(copy / "bin" / name)


def _table(results: Sequence[Result], skipped: dict[str, str]) -> str:
    """Counts for each wall and user, then everything that was not held."""
    outcomes = ("held", "open as said", "out", "false pass", "hang", "left behind")
    lines = [f"{'wall':20} {'user':9} {'attacks':>8} " + " ".join(f"{name:>12}" for name in outcomes)]
    for wall, user in dict.fromkeys((result.wall, result.user) for result in results):
        mine = [result for result in results if (result.wall, result.user) == (wall, user)]
        counts = Counter(result.outcome for result in mine)
        lines.append(
            f"{wall:20} {user:9} {len(mine):8} " + " ".join(f"{counts[name]:12}" for name in outcomes)
        )
        mine.sort(key=lambda result: result.peak_mib)
        lines.append(f"  most memory: {mine[-1].peak_mib} MiB by {mine[-1].attack!r}")
    lines += [f"left out: {name}: {why}" for name, why in skipped.items()]
    for result in results:
        if result.outcome != "held":
            where = f"{result.wall}, {result.user}"
            lines.append(f"{result.outcome}: {where}: {result.kind}: {result.attack}: {result.evidence}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
