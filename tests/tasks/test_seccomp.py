import platform
import re
import struct
from pathlib import Path

import pytest

from groschen.errors import Unsupported
from groschen.tasks import seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h")
# Calls that hostile programs were seen to use, by their numbers on x86_64 and aarch64.
HOSTILE = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept4": (288, 242),
    "sendmsg": (46, 211), "sendmmsg": (307, 269), "recvmsg": (47, 212), "setsockopt": (54, 208),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55),
    "fchownat": (260, 54), "utime": (132, None), "utimensat": (280, 88), "setxattr": (188, 5),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "flock": (73, 32), "truncate": (76, 45),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "sched_setscheduler": (144, 119),
    "ioprio_set": (251, 30), "get_robust_list": (274, 100), "setpgid": (109, 154), "setsid": (112, 157),
    "inotify_init1": (294, 26), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "chroot": (161, 51),
    "setuid": (105, 146), "setgroups": (116, 159), "capset": (126, 91), "personality": (135, 92),
    "seccomp": (317, 277), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "clock_settime": (227, 112), "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "syslog": (103, 116), "sethostname": (170, 161), "swapon": (167, 224), "reboot": (169, 142),
    "vmsplice": (278, 75), "memfd_secret": (447, 447), "io_uring_setup": (425, 425), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442),
    "fchmodat2": (452, 452), "setxattrat": (463, 463),
}  # fmt: skip


def verdict(program: bytes, machine: str, number: int, *arguments: int) -> int:
    """What the kernel's machine for classic packet filters returns: an interpreter of the kinds used."""
    data = struct.pack("<IIQ6Q", number, AUDIT[machine], 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            return constant
        else:
            compared = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }
            at += if_true if compared[code] else if_false


@pytest.mark.parametrize("column", [0, 1], ids=["x86_64", "aarch64"])
def test_the_filter_refuses_all_that_is_not_listed(column: int) -> None:
    machine = list(AUDIT)[column]
    program = seccomp.program(machine)
    known = {**seccomp.allowed(machine), **seccomp.checked(machine)}
    for number in range(700):
        said = verdict(program, machine, number)
        if number in seccomp.allowed(machine):
            assert said == ALLOW, known[number]
        elif number not in known:
            assert said == (ENOSYS if number >= 424 else EPERM), number


@pytest.mark.parametrize("name", HOSTILE)
def test_the_filter_refuses_what_hostile_programs_use(name: str) -> None:
    for machine, number in zip(AUDIT, HOSTILE[name], strict=True):
        if number is not None:
            assert verdict(seccomp.program(machine), machine, number) in (EPERM, ENOSYS)


SELF, OTHER = seccomp.SELF, 1234
AF_UNIX, AF_INET, STREAM, DATAGRAM, CLOEXEC = 1, 2, 1, 2, 0x80000


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("kill", (SELF, 9), True),
        ("kill", (OTHER, 9), False),
        ("kill", (0, 9), False),  # its process group
        ("kill", (0xFFFFFFFFFFFFFFFF, 9), False),
        ("tgkill", (SELF, OTHER, 6), True),
        ("tgkill", (OTHER, OTHER, 6), False),
        ("prlimit64", (0, 9, 0, 0), True),
        ("prlimit64", (OTHER, 9, 0, 0), False),
        ("sched_setaffinity", (SELF, 8, 0), True),
        ("sched_setaffinity", (OTHER, 8, 0), False),
        ("setpriority", (0, 0, 5), True),
        ("setpriority", (0, OTHER, 5), False),
        ("setpriority", (2, 0, 5), False),  # all processes of the user
        ("prctl", (15, 0), True),
        ("prctl", (1, 0), False),  # the death signal
        ("prctl", (22, 2), False),  # another filter
        ("prctl", (4, 1), False),  # dumpable
        ("fcntl", (3, 4, 0x800), True),
        ("fcntl", (3, 8, OTHER), False),  # who gets its signals
        ("fcntl", (3, 10, 9), False),
        ("fcntl", (3, 6, 0), False),  # a lock
        ("fcntl", (3, 1024, 0), False),  # a lease
        ("fcntl", (3, 1026, 0), False),  # notices of a folder
        ("fcntl", (3, 1031, 1 << 20), False),  # a larger pipe
        ("ioctl", (1, 0x5401, 0), True),
        ("ioctl", (1, 0x5412, 0), False),  # typing into a terminal
        ("memfd_create", (0, 1), True),
        ("memfd_create", (0, 5), False),  # huge pages
        ("socketpair", (AF_UNIX, STREAM | CLOEXEC, 0), True),
        ("socketpair", (AF_UNIX, DATAGRAM, 0), False),  # it could write to any socket of a path
        ("socketpair", (AF_INET, STREAM, 0), False),
        ("sendto", (3, 4096, 1, 0, 0, 0), True),
        ("sendto", (3, 4096, 1, 0x20000000, 4096, 16), False),
        ("sendto", (3, 4096, 1, 0x20000000, 1 << 32, 16), False),
        ("clone", (0x3D0F00,), True),  # as glibc starts a thread
        ("clone", (0x7D0F00,), True),  # as musl does
        ("clone", (0x11,), False),  # SIGCHLD alone: a fork
        ("clone", (0x3D0F00 | 0x40000000,), False),  # a network namespace for a thread
        ("clone", (0x3D0F00 | 0x8000,), False),  # another parent
    ],
)
def test_a_call_passes_with_harmless_arguments_only(
    name: str, arguments: tuple[int, ...], passes: bool
) -> None:
    for machine in AUDIT:
        (number,) = (number for number, known in seccomp.checked(machine).items() if known == name)
        said = verdict(seccomp.program(machine), machine, number, *arguments)
        assert said == (ALLOW if passes else EPERM), machine


def test_only_a_command_may_replace_its_process() -> None:
    for machine, number in (("x86_64", 59), ("aarch64", 221)):
        assert verdict(seccomp.program(machine), machine, number) == EPERM
        assert verdict(seccomp.program(machine, may_replace_itself=True), machine, number) == ALLOW


def test_the_filter_knows_no_second_way_into_the_kernel() -> None:
    program = seccomp.program("x86_64")
    assert verdict(program, "x86_64", 0x40000000 | 0) == EPERM  # x32: read, which is allowed otherwise
    assert verdict(program, "aarch64", 0) == KILL  # a call of another machine has other numbers


@pytest.mark.skipif(not HEADERS.exists(), reason="the kernel's headers are not installed")
def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    written = re.findall(r"#define __NR_(\w+) (\d+)", HEADERS.read_text())
    kernel = {int(number): name for name, number in written}
    machine = platform.machine()
    for number, name in {**seccomp.allowed(machine), **seccomp.checked(machine)}.items():
        assert kernel[number] == name


def test_a_filter_is_short_enough_for_the_kernel() -> None:
    for machine in AUDIT:
        assert len(seccomp.program(machine, may_replace_itself=True)) // 8 <= 4096  # BPF_MAXINSNS


def test_a_machine_without_a_filter_is_refused() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        seccomp.program("riscv64")
