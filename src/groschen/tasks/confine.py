"""The first thing that a process behind a wall does, by Python's standard library alone: `python -c` gets
this text. It gives up what the process could do, then runs what the process is for.

argv: settings as JSON (sandbox.py), the text of inside.py, and that text's own arguments.
Order: limits, capabilities and user, death signal, filter of system calls. Each step that fails ends the
process before any foreign code runs. What the filter allows: seccomp.py.
"""

import ctypes
import json
import os
import resource
import select
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any

# linux/prctl.h and linux/capability.h
_SET_DEATH_SIGNAL, _SET_SECCOMP, _DROP_FROM_BOUNDS, _SET_NO_NEW_PRIVILEGES = 1, 22, 24, 38
_AMBIENT, _CLEAR_ALL, _FILTER, _CAPABILITIES_3 = 47, 4, 2, 0x20080522
_MOST_CAPABILITIES = 64


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(settings: Mapping[str, Any]) -> None:
    """Take the limits, the user and the filter of these settings. Raises OSError if the system refuses."""
    _limit(settings["limits"])
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _drop_capabilities(libc, settings["user"])
    _check(libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "the death signal")
    _end_if_alone()
    _check(libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges")
    steps = bytes.fromhex(settings["filter"])
    steps = steps.replace(struct.pack("<I", settings["self"]), struct.pack("<I", os.getpid()))
    program = _Program(len(steps) // 8, steps)
    _check(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0), "the filter of system calls")


def _limit(limits: Mapping[str, int]) -> None:
    for name, most in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _drop_capabilities(libc: ctypes.CDLL, user: int | None) -> None:
    """Lose every capability for good, and become a user who owns nothing, if one is named."""
    for number in range(_MOST_CAPABILITIES):
        libc.prctl(_DROP_FROM_BOUNDS, number, 0, 0, 0)  # without the right to it none can come back either
    libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header = struct.pack("<Ii", _CAPABILITIES_3, 0)
    _check(libc.capset(header, bytes(24)), "no capabilities")


def _end_if_alone() -> None:
    """End if the grader was gone before the death signal was set: then nobody reads what is written."""
    poll = select.poll()
    poll.register(1, 0)
    if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        os._exit(1)


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{os.strerror(error)}: {what}")


if __name__ == "__main__":
    confine(json.loads(sys.argv[1]))
    _inside = sys.argv[2]
    sys.argv = [sys.argv[0], *sys.argv[3:]]
    exec(compile(_inside, "<inside>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
