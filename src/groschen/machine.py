"""What this machine is: cores, memory, caches, CUDA devices and the clock; nothing else asks the hardware.

Leaves out how fast it is (roofs.py) and whether it computes exactly (the probe behind `groschen doctor`).
Sources: proc(5), cpuset(7), the kernel's list of sysfs cache attributes. What reads files takes `root`, so
that a test can give it a made-up tree.
"""

import mmap
import os
import platform
import resource
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from groschen.cgroups import memory_headroom_bytes
from groschen.clock import ROOT as ROOT
from groschen.clock import allowed_cpus
from groschen.clock import seconds as seconds
from groschen.clock import usable_cores as usable_cores
from groschen.errors import BadRequest, Unsupported

# Our word for what a processor can do, and the kernel's word for it in /proc/cpuinfo.
_FLAGS = {
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    "neon": "asimd",
    "neon_bf16": "bf16",
    "sve": "sve",
}
_FEATURE_LINES = frozenset({"flags", "Features", "CPU implementer", "CPU part"})  # x86, then ARM


def library_settings(root: Path = ROOT) -> dict[str, str]:
    """Environment variables that torch's libraries are to find at their first call.

    On Intel's processors MKL splits a long sum between threads unless it is told not to, so a gradient in
    float32 would depend on their number (torch 2.13, AVX-512). Telling it costs nothing there (225 to 309
    GFLOP/s with and without); on other processors the same word may mean MKL's slowest code.
    """
    is_intel = any(
        line.split() == ["vendor_id", ":", "GenuineIntel"] for line in _lines(root / "proc/cpuinfo")
    )
    return {"MKL_CBWR": "AUTO,STRICT"} if is_intel else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """Sizes in bytes that the blocking of a kernel depends on; None where the system does not say."""

    page_bytes: int
    l2_bytes: int | None  # of one core
    l3_bytes: int | None  # all that the usable cores reach together


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor: its name, what it can do, and how it multiplies bf16."""

    name: str
    flags: tuple[str, ...]
    onednn_bf16: bool  # torch's oneDNN takes bf16 here
    fast_bf16: bool  # and has hardware for it


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaDevice:
    """One CUDA device that torch can use."""

    index: int
    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All of it at one moment; `memory_bytes` is what a new allocation may take now, not what is built in."""

    system: str
    cpu: Cpu
    cores: int
    threads: int
    memory_bytes: int
    total_memory_bytes: int
    caches: Caches
    cuda_devices: tuple[CudaDevice, ...]


def look() -> Machine:
    """This machine, now. Raises Unsupported where the system tells neither free nor built-in memory."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=Cpu(name=cpu_name(), flags=cpu_flags(), onednn_bf16=has_onednn_bf16(), fast_bf16=has_fast_bf16()),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_bytes=usable_memory_bytes(),
        total_memory_bytes=_total_memory_bytes(ROOT),
        caches=caches(),
        cuda_devices=cuda_devices(),
    )


def usable_memory_bytes(root: Path = ROOT) -> int:
    """Bytes that this process can still take without swapping or being killed.

    The least of what the kernel calls available and what each memory cgroup above the process leaves.
    Raises Unsupported where the system tells neither.
    """
    available = _meminfo_bytes(root, "MemAvailable")
    if available is None:  # macOS has no such figure without a system tool: the built-in size has to do
        available = _total_memory_bytes(root)
    headroom = memory_headroom_bytes(root)
    return available if headroom is None else max(0, min(available, headroom))


def cpu_name(root: Path = ROOT) -> str:
    """The processor's name as the kernel prints it, else the name of its architecture."""
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_flags(root: Path = ROOT) -> tuple[str, ...]:
    """What the processor can do, of the words this project knows: avx2, avx512_bf16, amx_bf16, neon, ..."""
    found: set[str] = set()
    for line in _lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM
            found = set(value.split())
            break
    return tuple(ours for ours, kernel in _FLAGS.items() if kernel in found)


def cpu_features(root: Path = ROOT) -> tuple[str, ...]:
    """Each line of /proc/cpuinfo that says what a compiler may use here, once and sorted; empty without one.

    Whole lines, words that nothing here reads included: code compiled for this very processor may need any.
    """
    pairs = (line.partition(":") for line in _lines(root / "proc/cpuinfo"))
    told = {(key.strip(), " ".join(sorted(value.split()))) for key, _, value in pairs}
    return tuple(sorted(f"{key}: {value}" for key, value in told if key in _FEATURE_LINES))


def has_onednn_bf16() -> bool:
    """Whether torch's oneDNN takes bf16 products at all here; `has_fast_bf16` says whether it is worth it."""
    return has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_onednn() -> bool:
    """Whether this torch has oneDNN, whose packed products the CPU paths use."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def has_fast_bf16() -> bool:
    """Whether bfloat16 products run in hardware: elsewhere oneDNN emulates them, slower than float32."""
    return has_onednn_bf16() and bool({"avx512_bf16", "amx_bf16", "neon_bf16"} & set(cpu_flags()))


def has_matrix_unit() -> bool:
    """Whether the cores multiply tiles of bfloat16 (Intel's AMX)."""
    return "amx_bf16" in cpu_flags()


def kernels_are_switched_off() -> bool:
    """Whether GROSCHEN_KERNELS=off asks for plain torch instead of the compiled kernels.

    Raises BadRequest for a value that is neither "on" nor "off".
    """
    asked = os.environ.get("GROSCHEN_KERNELS", "on")
    if asked not in ("on", "off"):
        raise BadRequest(f"GROSCHEN_KERNELS is '{asked}', expected 'on' or 'off'; set or unset it")
    return asked == "off"


def preferred_compiler() -> str | None:
    """$CC, the C compiler that the user prefers."""
    return os.environ.get("CC") or None


def best_device() -> torch.device:
    """The first CUDA device, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def prepare(device: torch.device) -> None:
    """Set threads, and on CUDA the switches that keep a row's bits apart from its neighbours and a run's bits
    the same each time; before anything is computed there, because cuBLAS reads its variables once.

    Split-K products add up in an order that depends on the number of rows: off. The two workspace variables
    and the second flag of `allow_bf16_reduced_precision_reduction` are vLLM's finding for SM90 (its
    batch_invariant.py). Deterministic algorithms are torch's own; it also fills new memory then, to show a
    program that reads it unwritten, which costs a launch for each tensor: off.
    """
    if device.type == "cpu":
        set_threads(default_threads())
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    os.environ.setdefault("CUBLASLT_WORKSPACE_SIZE", "1")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = (False, False)
    torch.backends.cuda.matmul.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the choice of a library is experimental
        torch.backends.cuda.preferred_blas_library("cublaslt")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def wait_for(device: torch.device) -> None:
    """Return when the device has done what it was given: a launch on CUDA returns before its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def zeroed_memory(num_bytes: int) -> mmap.mmap:
    """Private memory that becomes resident where it is written, in huge pages where the kernel gives them.

    A step that streams a gigabyte of weights through pages of 4 KiB waits for their translation.
    """
    memory = mmap.mmap(-1, max(num_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel built without huge pages refuses the wish; the memory is as good
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device: the container's limit counts for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return usable_memory_bytes()


def caches(root: Path = ROOT, affinity: frozenset[int] | None = None) -> Caches:
    """Cache sizes of the usable cores. A third-level cache that several of them share counts once."""
    level_2: dict[str, int] = {}
    level_3: dict[str, int] = {}
    for cpu in sorted(allowed_cpus() if affinity is None else affinity):
        for folder in sorted((root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
            level, kind = _word(folder / "level"), _word(folder / "type")
            size, shared = _word(folder / "size"), _word(folder / "shared_cpu_list")
            if kind == "Instruction" or level not in ("2", "3") or size is None:
                continue
            (level_2 if level == "2" else level_3)[shared or str(cpu)] = _size_bytes(size)
    return Caches(
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        l2_bytes=min(level_2.values(), default=None),
        l3_bytes=sum(level_3.values()) or None,
    )


def cuda_devices() -> tuple[CudaDevice, ...]:
    """The CUDA devices that torch can use, in torch's order; none on a CPU build of torch."""
    if not torch.cuda.is_available():
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(
            CudaDevice(
                index=index,
                name=facts.name,
                memory_bytes=int(facts.total_memory),
                capability=(int(facts.major), int(facts.minor)),
            )
        )
    return tuple(found)


def default_threads() -> int:
    """OMP_NUM_THREADS if it is set, as torch and OpenMP honour it, else every usable core.

    torch's own default counts cores without the cgroup's quota and would be throttled there.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": 2 are for nested regions
    return int(asked) if asked.isdigit() and int(asked) > 0 else usable_cores()


def set_threads(count: int) -> None:
    """Let each operation of torch use `count` threads from now on. Raises BadRequest if it is below 1."""
    if count < 1:
        raise BadRequest(f"torch needs 1 thread or more, not {count}; usable cores here: {usable_cores()}")
    torch.set_num_threads(count)


def give_way(by: int = 5) -> None:
    """Let the calling thread, and those that it starts from now on, wait for others that have little to do:
    `by` is added to its nice value. Only Linux has one for each thread.

    Source: setpriority(2). A server's two computing threads keep two cores busy; with 5 the slowest of 600
    answers of /health under load took 15 and 12 ms, without it 22 and 51.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = min(19, os.getpriority(os.PRIO_PROCESS, thread) + by)
        with suppress(PermissionError):  # of a sandbox that forbids it: then others wait a little longer
            os.setpriority(os.PRIO_PROCESS, thread, nice)


def raise_open_files(wanted: int) -> int:
    """Let this process open so many files, or as many as it may ask for. Returns how many it may now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # a container may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else soft


def resident_bytes(root: Path = ROOT) -> int:
    """Physical memory that this process holds now. Raises Unsupported without /proc/self/status."""
    return _status_bytes(root, "VmRSS")


def peak_memory_bytes(root: Path = ROOT) -> int:
    """The most physical memory that this process ever held. Raises Unsupported without /proc/self/status.

    Not getrusage: its figure passes through fork and exec, so a child of a large parent reports the parent.
    """
    return _status_bytes(root, "VmHWM")


def _total_memory_bytes(root: Path) -> int:
    total = _meminfo_bytes(root, "MemTotal")
    if total is not None:
        return total
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError) as missing:
        raise Unsupported(
            f"{platform.system()} tells the size of its memory neither in /proc/meminfo nor by sysconf; "
            "use Linux or macOS"
        ) from missing


def _meminfo_bytes(root: Path, field: str) -> int | None:
    return _kibibytes(root / "proc/meminfo", field)


def _status_bytes(root: Path, field: str) -> int:
    value = _kibibytes(root / "proc/self/status", field)
    if value is None:
        raise Unsupported(f"no field {field} in /proc/self/status: memory use is measured on Linux only")
    return value


def _kibibytes(path: Path, field: str) -> int | None:
    for line in _lines(path):
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) * 1024
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []  # not Linux, or a container that hides it


def _word(path: Path) -> str | None:
    lines = _lines(path)
    return lines[0].strip() if lines else None


def _size_bytes(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)


for _name, _value in library_settings().items():
    os.environ.setdefault(_name, _value)
