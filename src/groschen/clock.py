"""The clock and the cores of this process, asked without torch, so that a worker process starts in a tenth of
a second. machine.py hands both on to everybody else.
"""

import math
import os
import sys
import time
from pathlib import Path

from groschen.cgroups import cpu_quota

ROOT = Path("/")


def seconds() -> float:
    """A clock that never goes back, in seconds; only differences mean something."""
    return time.perf_counter()


def usable_cores(root: Path = ROOT, affinity: frozenset[int] | None = None) -> int:
    """Cores that this process may keep busy: its affinity, cut by the CPU quota of its cgroups; at least 1.

    affinity: the CPU numbers allowed; asked from the system if None.
    """
    allowed = allowed_cpus() if affinity is None else affinity
    quota = cpu_quota(root)
    if quota is None:
        return max(1, len(allowed))
    # Rounded up: with 1.5 cores granted, one thread would leave a third of the grant unused.
    return max(1, min(len(allowed), math.ceil(quota)))


def allowed_cpus() -> frozenset[int]:
    """The numbers of the CPUs that this process may run on."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))  # a cpuset cgroup shows here too
    return frozenset(range(os.cpu_count() or 1))
