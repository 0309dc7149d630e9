"""What runs inside of the sandbox, by Python's standard library alone: confine.py gets this text and runs it.

argv: a role and what it needs. `command` replaces the process by argv[2:]. `program` runs argv[2]. `cases`
runs a program once for each standard input (inside_run.py). `functions` holds a program's names
(inside_program.py) and does what `tests` asks of them in another sandbox (inside_tests.py).

Leaves out every protection: the process has been confined before (confine.py), behind a wall (walls.py).
"""

import _sitebuiltins
import builtins
import os
import sys
from typing import NoReturn

from groschen.tasks.inside_program import functions
from groschen.tasks.inside_run import cases, run
from groschen.tasks.inside_tests import tests
from groschen.tasks.inside_values import Pipes

_OWN_FRAMES = 50  # below a program that Python would have run at the bottom of its stack


def main() -> None:
    """Do what the role is for."""
    role, given = sys.argv[1], sys.argv[2:]
    sys.argv = ["program.py"]
    if role == "command":
        _replaced_by(given)
    for name in ("exit", "quit"):  # Python's `site`, which does not run here, adds them for programs
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.setrecursionlimit(sys.getrecursionlimit() + _OWN_FRAMES)
    if role == "program":
        run(given[0])
    else:
        {"cases": cases, "functions": functions, "tests": tests}[role](Pipes())


def _replaced_by(argv: list[str]) -> NoReturn:
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main()
