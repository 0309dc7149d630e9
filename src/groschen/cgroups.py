"""What a container or a service manager grants this process: CPU time and memory, by cgroup v1 and v2.

Leaves out every other controller, and the choice between these limits and the hardware's (machine.py).
A limit on any ancestor holds for the process, so all folders from its own cgroup up to the mount are read.
Sources: the kernel's "Control Group v2" and "CFS Bandwidth Control" pages; cgroups(7); mountinfo in proc(5).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# cgroup v1 writes "no limit" as the largest multiple of the page size that fits 63 bits.
_V1_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class _Mount:
    controllers: frozenset[str]  # empty for cgroup v2, where one tree serves all
    inside: PurePosixPath  # the folder of the hierarchy that is shown at `point`
    point: Path


def cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the tightest cgroup grants; None without a quota."""
    found = [quota for folder in _folders(root, "cpu") if (quota := _quota_of(folder)) is not None]
    return min(found, default=None)


def memory_headroom_bytes(root: Path) -> int | None:
    """Bytes until the tightest memory cgroup is full; None without a limit. Negative above a soft limit.

    File pages that have not been used lately are not counted as used: the kernel drops them before it kills.
    """
    found = [room for folder in _folders(root, "memory") if (room := _headroom_of(folder)) is not None]
    return min(found, default=None)


def _quota_of(folder: Path) -> float | None:
    both = _text(folder / "cpu.max")  # v2: "max 100000" or "150000 100000"
    if both is not None:
        quota, period = both.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_v1, period_v1 = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if quota_v1 is None or period_v1 is None or int(quota_v1) <= 0:  # -1: no quota
        return None
    return int(quota_v1) / int(period_v1)


def _headroom_of(folder: Path) -> int | None:
    texts = (_text(folder / name) for name in ("memory.max", "memory.high"))
    limits = [int(text) for text in texts if text is not None and text != "max"]
    used, dropped = _text(folder / "memory.current"), "inactive_file"
    if not limits:
        limit_v1 = _text(folder / "memory.limit_in_bytes")
        if limit_v1 is None or int(limit_v1) >= _V1_NO_LIMIT:
            return None
        limits = [int(limit_v1)]
        used, dropped = _text(folder / "memory.usage_in_bytes"), "total_inactive_file"
    return min(limits) - int(used or 0) + _stat(folder / "memory.stat", dropped)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The process's cgroup for a controller and its ancestors, in each hierarchy that is mounted."""
    for mount in _mounts(root):
        if mount.controllers and controller not in mount.controllers:
            continue
        own = _own_path(root, controller if mount.controllers else None)
        if own is None:
            continue
        below = own.relative_to(mount.inside) if own.is_relative_to(mount.inside) else PurePosixPath(".")
        if ".." in below.parts:  # a cgroup outside of this namespace: only the mount itself can be seen
            below = PurePosixPath(".")
        for part in (below, *below.parents):
            folder = mount.point / part
            if folder.is_dir():
                yield folder


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        fields = line.split()
        dash = fields.index("-")
        kind, options = fields[dash + 1], fields[dash + 3]
        if kind in ("cgroup", "cgroup2"):
            controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            yield _Mount(controllers, PurePosixPath(fields[3]), root / fields[4].lstrip("/"))


def _own_path(root: Path, controller: str | None) -> PurePosixPath | None:
    """The process's path in the hierarchy of a v1 controller, or in the v2 hierarchy for None."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if (controller in controllers.split(",")) if controller else controllers == "":
            return PurePosixPath(path)
    return None


def _stat(path: Path, field: str) -> int:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == field:
            return int(value)
    return 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, PermissionError):
        return None  # this controller is not mounted, or the container hides it
