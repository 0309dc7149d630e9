"""The filter of system calls for code in bubblewrap: no new process, no socket, few doors into the kernel.

A filter is a program of the classic Berkeley packet filter over the number and arguments of each call; see
seccomp(2) and linux/seccomp.h. Threads stay allowed. Numbers: arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h of Linux.
"""

import errno
import platform
import struct

from groschen.errors import Unsupported

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; both machines are little-endian
_CLONE_THREAD = 0x00010000
_X32 = 0x40000000  # numbers from here on are a second way into the same calls on x86-64
_CLONE3 = 435

# Since Linux 5.1 new calls have one number everywhere: io_uring 425-427, new ways to mount 428-432 and 442,
# pidfd_open 434, pidfd_getfd 438.
_SAME_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 434, 438, 442)
_MACHINES: dict[str, tuple[int, int, tuple[int, ...]]] = {  # name: AUDIT_ARCH, clone, calls that fail
    "x86_64": (0xC000003E, 56, (
        57, 58, 41,  # fork, vfork, socket
        101, 310, 311, 312,  # ptrace, process_vm_readv, process_vm_writev, kcmp
        272, 308, 165, 166, 155, 161,  # unshare, setns, mount, umount2, pivot_root, chroot
        248, 249, 250, 321, 298, 323,  # add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd
        246, 320, 175, 313, 176, 303, 304,  # kexec*, *_module, name_to_handle_at, open_by_handle_at
        135, 29, 68, 64, 240,  # personality, shmget, msgget, semget, mq_open
    )),
    "aarch64": (0xC00000B7, 220, (
        198, 117, 270, 271, 272, 97, 268, 40, 39, 41, 51, 217, 218, 219, 280, 241, 282,
        104, 294, 105, 273, 106, 264, 265, 92, 194, 186, 190, 180,
    )),
}  # fmt: skip


def program(machine: str | None = None) -> bytes:
    """The filter for a machine ("x86_64", "aarch64"), by default this one. Raises Unsupported for others."""
    name = machine or platform.machine()
    if name not in _MACHINES:
        raise Unsupported(f"there is no filter of system calls for machines of type {name!r}")
    audit, clone, refused = _MACHINES[name]
    steps = [
        *[(_LOAD, 0, 0, _MACHINE), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL)],
        (_LOAD, 0, 0, _NUMBER),
        *_fails(_AT_LEAST, _X32, errno.EPERM),
        *_fails(
            _EQUAL, _CLONE3, errno.ENOSYS
        ),  # its flags lie in memory; without it the C library uses clone
    ]
    for number in (*refused, *_SAME_EVERYWHERE):
        steps += _fails(_EQUAL, number, errno.EPERM)
    steps += [
        *[(_EQUAL, 1, 0, clone), (_RETURN, 0, 0, _ALLOW)],
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        *[(_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | errno.EPERM)],
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def _fails(comparison: int, number: int, error: int) -> list[tuple[int, int, int, int]]:
    return [(comparison, 0, 1, number), (_RETURN, 0, 0, _ERROR | error)]
