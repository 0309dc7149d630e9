"""Programs that try to get out of the code sandbox: one small program for each goal.

A program that reaches its goal calls `got`, unless what it changes can be seen from outside alone. All aim at
targets that attack_sandbox.py has planted, or at the program itself; none tries calls at random. Leaves out
how they are run and watched (attack_sandbox.py).
"""

import platform
from dataclasses import dataclass
from functools import cache

from attacks_resources import HOG, LIVE, VERDICT
from attacks_walls import FILES, NETWORK, PROCESSES, READS, RIGHTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A program and what it belongs to."""

    kind: str
    name: str
    code: str
    open_if_said: str  # a wall that uses this word of what it leaves open does not hold this; "": all must


# Numbers on x86_64 and aarch64 of calls that the C library of some machine has no function for; from 424 on
# they are the same everywhere.
_NUMBERS = {
    "socket": (41, 198), "getpid": (39, 172), "rt_sigqueueinfo": (129, 138), "tkill": (200, 130),
    "tgkill": (234, 131), "ioprio_set": (251, 30), "kcmp": (312, 272), "get_robust_list": (274, 100),
    "add_key": (248, 217), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "seccomp": (317, 277), "clone": (56, 220), "mq_open": (240, 180),
    "move_pages": (279, 239), "pidfd_send_signal": (424, 424), "io_uring_setup": (425, 425),
    "fsopen": (430, 430), "pidfd_open": (434, 434), "clone3": (435, 435), "process_madvise": (440, 440),
    "memfd_secret": (447, 447), "fchmodat2": (452, 452),
}  # fmt: skip

PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, resource, select, signal, socket, struct, sys, threading, time
given = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(name, *arguments):
    return checked(libc.syscall(given["numbers"][name], *arguments))
def got(what="it"):
    print("GOT", what, flush=True)
def machine_code(code, result=ctypes.c_int):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(result)(address)()
"""


def numbers() -> dict[str, int]:
    """The numbers of system calls on this machine."""
    column = ["x86_64", "aarch64"].index(platform.machine())
    return {name: pair[column] for name, pair in _NUMBERS.items()}


@cache
def attacks() -> tuple[Attack, ...]:
    """All attacks for this machine."""
    texts = {
        "network": NETWORK, "files": FILES, "reads": READS, "processes": PROCESSES, "rights": RIGHTS,
        "resources": HOG, "lives on": LIVE, "verdict": VERDICT,
    }  # fmt: skip
    parsed = [attack for kind, text in texts.items() for attack in _parse(kind, text)]
    if platform.machine() != "x86_64":
        return tuple(attack for attack in parsed if "machine_code" not in attack.code)
    return tuple(parsed)


def _parse(kind: str, text: str) -> list[Attack]:
    """A program begins with a line `#= name` or `#= name | word of what some wall leaves open`."""
    parsed = []
    for part in text.split("\n#= ")[1:]:
        head, code = part.split("\n", 1)
        name, _, word = head.partition(" | ")
        parsed.append(Attack(kind=kind, name=name, code=code, open_if_said=word))
    return parsed
