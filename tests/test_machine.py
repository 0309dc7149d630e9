"""machine.py and cgroups.py, on made-up trees of /proc and /sys and on the machine that runs the test."""

import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groschen import machine
from groschen.errors import BadRequest, Unsupported

GIB = 1 << 30
FOUR = frozenset(range(4))

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:11 - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v2(root: Path, own: str, files: dict[str, str]) -> Path:
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return tree(root, {"proc/self/mountinfo": V2_MOUNT, "proc/self/cgroup": f"0::{own}", **files})


def meminfo(available: int, total: int = 64 * GIB) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: {total >> 10} kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB"}


def test_without_a_quota_the_affinity_decides(tmp_path: Path) -> None:
    assert machine.usable_cores(v2(tmp_path, "/", {"cpu.max": "max 100000"}), FOUR) == 4
    assert machine.usable_cores(tmp_path / "not there", frozenset({7})) == 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("900000 100000", 4)],
)
def test_a_v2_quota_cuts_the_cores_and_is_rounded_up(tmp_path: Path, quota: str, cores: int) -> None:
    root = v2(tmp_path, "/docker/abc", {"docker/abc/cpu.max": quota})
    assert machine.usable_cores(root, FOUR) == cores


def test_the_quota_of_an_ancestor_holds_too(tmp_path: Path) -> None:
    files = {"user.slice/cpu.max": "100000 100000", "user.slice/app/cpu.max": "300000 100000"}
    assert machine.usable_cores(v2(tmp_path, "/user.slice/app", files), FOUR) == 1


def test_a_v1_quota_cuts_the_cores_and_minus_one_means_none(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct/job"
    files = {
        "proc/self/mountinfo": f"{V1_CPU_MOUNT}\n{V1_MEMORY_MOUNT}",
        "proc/self/cgroup": "5:memory:/job\n2:cpu,cpuacct:/job",
        f"{folder}/cpu.cfs_period_us": "50000",
        f"{folder}/cpu.cfs_quota_us": "100000",
    }
    assert machine.usable_cores(tree(tmp_path, files), FOUR) == 2
    assert machine.usable_cores(tree(tmp_path, {f"{folder}/cpu.cfs_quota_us": "-1"}), FOUR) == 4


def test_a_container_that_sees_only_its_own_folder_is_read_at_the_mount(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": "40 31 0:29 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu",
        "proc/self/cgroup": "2:cpu:/docker/abc",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
    }
    assert machine.usable_cores(tree(tmp_path, files), FOUR) == 1


@pytest.mark.parametrize("own", ["/../sibling", "/gone/away"])
def test_a_cgroup_that_cannot_be_seen_leaves_the_limits_of_the_mount(tmp_path: Path, own: str) -> None:
    assert machine.usable_cores(v2(tmp_path, own, {"cpu.max": "100000 100000"}), FOUR) == 1


def test_memory_without_a_limit_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    v2(tmp_path, "/", {"memory.max": "max", "memory.current": "5"})
    assert machine.usable_memory_bytes(tree(tmp_path, meminfo(9 * GIB))) == 9 * GIB


def test_a_v2_limit_leaves_its_rest_and_idle_file_pages_do_not_count_as_used(tmp_path: Path) -> None:
    files = {
        "app/memory.max": str(4 * GIB),
        "app/memory.current": str(3 * GIB),
        "app/memory.stat": f"anon 7\ninactive_file {GIB}\nactive_file 9",
    }
    root = v2(tmp_path, "/app", files)
    assert machine.usable_memory_bytes(tree(root, meminfo(9 * GIB))) == 2 * GIB
    assert machine.usable_memory_bytes(tree(root, meminfo(GIB))) == GIB


def test_the_soft_limit_and_the_ancestor_count_when_they_are_tighter(tmp_path: Path) -> None:
    tree(tmp_path, meminfo(9 * GIB))
    files = {
        "a/memory.max": str(2 * GIB), "a/memory.current": str(GIB),
        "a/b/memory.max": str(8 * GIB), "a/b/memory.high": str(5 * GIB), "a/b/memory.current": str(GIB >> 1),
    }  # fmt: skip
    assert machine.usable_memory_bytes(v2(tmp_path, "/a/b", files)) == GIB
    files["a/b/memory.high"] = str(GIB)
    assert machine.usable_memory_bytes(v2(tmp_path, "/a/b", files)) == GIB // 2


def test_a_group_above_its_soft_limit_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    files = {"memory.max": "max", "memory.high": str(GIB), "memory.current": str(2 * GIB)}
    assert machine.usable_memory_bytes(tree(v2(tmp_path, "/", files), meminfo(9 * GIB))) == 0


def test_a_v1_limit_leaves_its_rest_and_the_huge_number_means_none(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/job"
    files = {
        "proc/self/mountinfo": V1_MEMORY_MOUNT,
        "proc/self/cgroup": "4:memory:/job",
        f"{folder}/memory.limit_in_bytes": str(3 * GIB),
        f"{folder}/memory.usage_in_bytes": str(2 * GIB),
        f"{folder}/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB // 2}",
        **meminfo(9 * GIB),
    }
    assert machine.usable_memory_bytes(tree(tmp_path, files)) == GIB + GIB // 2
    tree(tmp_path, {f"{folder}/memory.limit_in_bytes": "9223372036854771712"})
    assert machine.usable_memory_bytes(tmp_path) == 9 * GIB


def test_the_processor_is_named_and_its_flags_are_in_our_words(tmp_path: Path) -> None:
    x86 = "processor : 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 fma avx512_bf16 amx_bf16 vmx"
    root = tree(tmp_path / "x86", {"proc/cpuinfo": x86})
    assert machine.cpu_name(root) == "Some CPU @ 3 GHz"
    assert machine.cpu_flags(root) == ("avx2", "fma", "avx512_bf16", "amx_bf16")
    arm = tree(tmp_path / "arm", {"proc/cpuinfo": "processor : 0\nFeatures\t: fp asimd bf16 sve"})
    assert machine.cpu_flags(arm) == ("neon", "neon_bf16", "sve")


ORDER_SCRIPT = """
import torch
from groschen import machine
grad, x = torch.randn(4096, 256), torch.randn(4096, 512)
found = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    found.append(grad.t() @ x)
print(all(torch.equal(found[0], other) for other in found[1:]))
"""


def test_a_long_sum_of_torch_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    if machine.library_settings():  # elsewhere nothing is told, and nothing promised
        command = [sys.executable, "-c", ORDER_SCRIPT]  # in a process of its own: the library is told once
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    intel = tree(tmp_path / "intel", {"proc/cpuinfo": "processor : 0\nvendor_id\t: GenuineIntel"})
    other = tree(tmp_path / "other", {"proc/cpuinfo": "processor : 0\nvendor_id\t: AuthenticAMD"})
    assert list(machine.library_settings(intel)) == ["MKL_CBWR"] and not machine.library_settings(other)


def test_processors_that_differ_in_a_word_unknown_here_are_told_apart(tmp_path: Path) -> None:
    def features(name: str, cpuinfo: str) -> tuple[str, ...]:
        return machine.cpu_features(tree(tmp_path / name, {"proc/cpuinfo": cpuinfo}))

    core = "processor : 0\nmodel name\t: virtual\nflags\t\t: fpu avx512f"
    assert features("plain", core) == features("two cores", f"{core}\ncpu MHz : 1\n{core}\ncpu MHz : 2")
    assert features("plain", core) != features("more", f"{core} avx512_vbmi")
    arm = "Features\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0"
    assert features("arm", f"{arm}8") != features("other arm", f"{arm}c")
    assert machine.cpu_features(tmp_path / "hidden") == ()


def test_a_kernel_without_huge_pages_gives_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *advice: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    assert machine.zeroed_memory(5)[:] == bytes(5)


def test_a_shared_third_level_cache_counts_once_and_two_of_them_are_added(tmp_path: Path) -> None:
    def cpu(number: int, l3_shared_by: str) -> dict[str, str]:
        folder = f"sys/devices/system/cpu/cpu{number}/cache"
        levels = [("0", "1", "Data", "32K", str(number)), ("1", "2", "Unified", "512K", str(number)),
                  ("2", "3", "Unified", "16M", l3_shared_by)]  # fmt: skip
        names = ("level", "type", "size", "shared_cpu_list")
        return {
            f"{folder}/index{index}/{name}": value
            for index, *values in levels
            for name, value in zip(names, values, strict=True)
        }

    tree(tmp_path, {**cpu(0, "0-1"), **cpu(1, "0-1"), **cpu(2, "2-3"), **cpu(3, "2-3")})
    assert machine.caches(tmp_path, frozenset({0, 1})).l3_bytes == 16 << 20
    assert machine.caches(tmp_path, FOUR).l3_bytes == 32 << 20
    assert machine.caches(tmp_path, FOUR).l2_bytes == 512 << 10
    assert machine.caches(tmp_path / "hidden", FOUR).l3_bytes is None


def test_this_machine_is_seen_without_contradiction() -> None:
    found = machine.look()
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert 0 < found.memory_bytes <= found.total_memory_bytes
    assert found.caches.page_bytes in (4096, 16384, 65536)
    assert len(found.cuda_devices) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_fewer_allowed_cpus_are_fewer_usable_cores() -> None:
    one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code = one + "from groschen import machine; print(machine.usable_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


MEMORY_SCRIPT = """
import torch
from groschen import machine
size = 200 << 20
before = machine.resident_bytes()
block = torch.ones(size, dtype=torch.uint8)
during = machine.resident_bytes()
del block
assert during - before > 0.9 * size
assert machine.peak_memory_bytes() >= 0.99 * during
print(machine.resident_bytes() < during - 0.9 * size)
"""


def test_the_peak_keeps_what_was_freed_and_the_resident_size_does_not() -> None:
    command = [sys.executable, "-c", MEMORY_SCRIPT]  # in a process of its own: the peak is that of a process
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_memory_use_that_cannot_be_read_is_refused_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="VmHWM"):
        machine.peak_memory_bytes(tmp_path)


@pytest.mark.parametrize(
    ("asked", "threads"), [("3", 3), ("3,1", 3), ("", None), ("0", None), ("many", None)]
)
def test_omp_num_threads_decides_if_it_holds_a_number(
    monkeypatch: pytest.MonkeyPatch, asked: str, threads: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert machine.default_threads() == (threads or machine.usable_cores())


def test_threads_are_set_and_none_are_refused() -> None:
    before = torch.get_num_threads()
    try:
        machine.set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(BadRequest, match="1 thread or more, not 0"):
        machine.set_threads(0)


def test_the_kernels_can_be_switched_off_and_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROSCHEN_KERNELS", raising=False)
    assert not machine.kernels_are_switched_off()
    monkeypatch.setenv("GROSCHEN_KERNELS", "off")
    assert machine.kernels_are_switched_off()
    monkeypatch.setenv("GROSCHEN_KERNELS", "0")
    with pytest.raises(BadRequest, match="'0', expected 'on' or 'off'"):
        machine.kernels_are_switched_off()
