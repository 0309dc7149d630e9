"""The filter of system calls for foreign code: a list of what CPython and numpy need; all else fails.

A filter is a program of the classic Berkeley packet filter over the number and arguments of each call; see
seccomp(2) and linux/seccomp.h. The process loads it into itself (confine.py), so it holds behind every wall.
Threads stay allowed, and one pair of connected local sockets, which asyncio needs to wake itself; no way is
left to send descriptors over it. A call that names a process may name its own only.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
"""

import errno
import platform
import struct
from collections.abc import Mapping, Sequence

from groschen.errors import Unsupported

# Stands in the program for the id of the process that loads it, which is known only there.
SELF = 0x5E1F5E1F

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; both machines are little-endian
_X32 = 0x40000000  # numbers from here on are a second way into the same calls on x86-64
_NEW = 424  # from here on calls have one number everywhere, and the C library asks whether they exist
_CLONE_THREAD, _OF_A_THREAD = 0x00010000, 0x007D0F00  # the second: all that glibc and musl set for a thread

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH, column of the table

# Name, number on x86_64, number on aarch64. Left out on purpose, besides everything that nobody needs: what
# changes mode, owner, times or attributes of files; locks; new session or group; files by handle; clocks.
_CALLS = """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69,
    pwritev 296 70, lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
    pipe2 293 59, ftruncate 77 46, eventfd2 290 19,
    open 2 -, openat 257 56, access 21 -, faccessat 269 48, faccessat2 439 439, stat 4 -, fstat 5 80,
    lstat 6 -, newfstatat 262 79, statx 332 291, readlink 89 -, readlinkat 267 78, getdents 78 -,
    getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, umask 95 166,
    poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20,
    epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, epoll_pwait2 441 441,
    recvfrom 45 207, shutdown 48 210, getsockname 51 204, getsockopt 55 209,
    mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, brk 12 214, madvise 28 233,
    futex 202 98, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293, sched_yield 24 124,
    exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95, restart_syscall 219 128, arch_prctl 158 -,
    rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
    rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132, pause 34 -, alarm 37 -,
    getitimer 36 102, setitimer 38 103, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113,
    clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153,
    getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getuid 102 174, geteuid 107 175,
    getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150,
    getrlimit 97 163, setrlimit 160 164, getrusage 98 165, uname 63 160, sysinfo 99 179, getcpu 309 168,
    getrandom 318 278, sched_get_priority_max 146 125, sched_get_priority_min 147 126
"""
# The same, with what arguments may be. An argument is a 32-bit word: 2 i is the lower half of argument i.
_SIGNALED = {0: (SELF,)}
_OWN = {0: (0, SELF)}
_OWN_PRIORITY: Mapping[int, Sequence[int]] = {0: (0,), 2: (0, SELF)}  # PRIO_PROCESS
_CHECKED: tuple[tuple[str, int, int, Mapping[int, Sequence[int]]], ...] = (
    ("kill", 62, 129, _SIGNALED),
    ("tgkill", 234, 131, _SIGNALED),
    ("prlimit64", 302, 261, _OWN),
    ("sched_getaffinity", 204, 123, _OWN),
    ("sched_setaffinity", 203, 122, _OWN),
    ("getpriority", 140, 141, _OWN_PRIORITY),
    ("setpriority", 141, 140, _OWN_PRIORITY),
    ("memfd_create", 319, 279, {2: (0, 1, 2, 3)}),  # CLOEXEC, ALLOW_SEALING; no huge pages
    # SET_NAME, GET_NAME, SET_VMA: nothing that touches the death signal, privileges or filters
    ("prctl", 157, 167, {0: (15, 16, 0x53564D41)}),
    # DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GETPIPE_SZ, ADD_SEALS, GET_SEALS: no locks, no
    # signals to an owner, no larger pipes
    ("fcntl", 72, 25, {2: (0, 1, 2, 3, 4, 1030, 1032, 1033, 1034)}),
    # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    ("ioctl", 16, 29, {2: (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)}),
    # AF_UNIX; SOCK_STREAM, with NONBLOCK, with CLOEXEC, with both
    ("socketpair", 53, 199, {0: (1,), 2: (1, 0x801, 0x80001, 0x80801)}),
    ("sendto", 44, 206, {8: (0,), 9: (0,)}),  # to the other end, not to an address
)
_CLONE, _EXECVE = (56, 220), (59, 221)

_Step = tuple[int, int, int, int]


def program(machine: str | None = None, *, may_replace_itself: bool = False) -> bytes:
    """The filter for a machine ("x86_64", "aarch64"), by default this one, with SELF for the process's id.

    may_replace_itself: execve is allowed; what is started that way keeps the filter.
    Raises Unsupported for other machines.
    """
    name = machine or platform.machine()
    if name not in _MACHINES:
        raise Unsupported(f"there is no filter of system calls for machines of type {name!r}")
    audit, column = _MACHINES[name]
    steps: list[_Step] = [
        *[(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL)],
        (_LOAD, 0, 0, _NUMBER),
        *[(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.EPERM)],
    ]
    for number in allowed(name):
        steps += _if_equal(number, [(_RETURN, 0, 0, _ALLOW)])
    if may_replace_itself:
        steps += _if_equal(_EXECVE[column], [(_RETURN, 0, 0, _ALLOW)])
    for _, *numbers, words in _CHECKED:
        steps += _if_equal(numbers[column], _only(words))
    steps += _if_equal(_CLONE[column], _only_threads())
    steps += [
        *[(_AT_LEAST, 0, 1, _NEW), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)],
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def allowed(machine: str) -> dict[int, str]:
    """Number and name of the calls that a machine's filter allows whatever their arguments are."""
    column = 1 + _MACHINES[machine][1]
    rows = [entry.split() for entry in _CALLS.split(",")]
    return {int(row[column]): row[0] for row in rows if row[column] != "-"}


def checked(machine: str) -> dict[int, str]:
    """Number and name of the calls whose arguments the filter looks at."""
    column = _MACHINES[machine][1]
    return {numbers[column]: name for name, *numbers, _ in _CHECKED} | {_CLONE[column]: "clone"}


def _if_equal(number: int, block: Sequence[_Step]) -> list[_Step]:
    """Do these steps, which return in every case, if the accumulator holds the number."""
    return [(_EQUAL, 0, len(block), number), *block]


def _only(words: Mapping[int, Sequence[int]]) -> list[_Step]:
    """Allow the call if each of these words of its arguments has one of its values."""
    steps: list[_Step] = []
    for word, values in words.items():
        steps.append((_LOAD, 0, 0, _ARGUMENTS + 4 * word))
        # A match jumps behind the refusal that follows the last value.
        steps += [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
        steps.append((_RETURN, 0, 0, _ERROR | errno.EPERM))
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _only_threads() -> list[_Step]:
    """Allow clone for a thread of the same process in the same namespaces."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS),
        *[(_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _ERROR | errno.EPERM)],
        *[(_ANY_BIT, 0, 1, ~_OF_A_THREAD & 0xFFFFFFFF), (_RETURN, 0, 0, _ERROR | errno.EPERM)],
        (_RETURN, 0, 0, _ALLOW),
    ]
