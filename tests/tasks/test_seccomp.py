import struct

import pytest

from groschen.errors import Unsupported
from groschen.tasks import seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7


def verdict(program: bytes, audit: int, number: int, first_argument: int = 0) -> int:
    """What the kernel's machine for classic packet filters returns: an interpreter of the five kinds used."""
    data = struct.pack("<IIQQ", number, audit, 0, first_argument)
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


@pytest.mark.parametrize(
    ("machine", "audit", "refused", "allowed", "clone"),
    [
        ("x86_64", X86, [57, 58, 41, 101, 272, 165, 321, 425], [0, 1, 2, 9, 59, 231, 319], 56),
        ("aarch64", ARM, [198, 117, 97, 40, 280, 425], [56, 63, 64, 222, 221, 94, 279], 220),
    ],
)
def test_the_filter_refuses_new_processes_sockets_and_rare_calls(
    machine: str, audit: int, refused: list[int], allowed: list[int], clone: int
) -> None:
    program = seccomp.program(machine)
    assert {verdict(program, audit, number) for number in refused} == {EPERM}
    assert {verdict(program, audit, number) for number in allowed} == {ALLOW}
    assert verdict(program, audit, clone, 0x11) == EPERM  # SIGCHLD alone: a fork
    assert verdict(program, audit, clone, 0x3D0F00) == ALLOW  # as glibc starts a thread
    assert verdict(program, audit, 435) == ENOSYS


def test_the_filter_knows_no_second_way_into_the_kernel() -> None:
    program = seccomp.program("x86_64")
    assert verdict(program, X86, 0x40000000 | 57) == EPERM  # x32
    assert verdict(program, 0x40000003, 2) == KILL  # 32-bit calls have other numbers


def test_a_machine_without_a_filter_is_refused() -> None:
    with pytest.raises(Unsupported, match="riscv64"):
        seccomp.program("riscv64")
