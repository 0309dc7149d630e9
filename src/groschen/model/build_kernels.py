"""Compile the C kernels once for this machine and load them.

They need a C compiler at run time (cc, gcc or clang, or $CC) and OpenMP; where there is none, `library`
returns None with the reason and the portable operations are used. The library lies in the user's cache folder
under a name that is the digest of the sources, the flags, the compiler and the processor, so another machine
or a newer source never meets an old file.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import platformdirs

from groschen import machine

SOURCES = (
    "product.c", "tiles.c", "quantise.c", "quantized.c", "attention.c", "rowwise.c", "gradients.c",
    "attention_gradient.c", "categorical.c", "decoder.c",
)  # fmt: skip
HEADERS = ("vectors.h", "tiles.h", "attention_blocks.h", "attention_tiles.h", "quantized.h")
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-fopenmp", "-shared", "-fPIC", "-std=gnu11")


@dataclass(frozen=True, slots=True)
class Built:
    """A loaded library, or the reason why there is none."""

    library: ctypes.CDLL | None
    digest: str  # of sources, flags, compiler and processor; part of what a machine class is
    why_not: str


@cache
def library(*, is_bf16: bool) -> Built:
    """The kernels for bfloat16 or float32 activations, compiled at the first call (about five seconds)."""
    if machine.kernels_are_switched_off():
        return Built(None, "", "switched off by GROSCHEN_KERNELS=off")
    compiler = _find_compiler()
    if compiler is None:
        return Built(
            None,
            "",
            "no C compiler found (cc, gcc, clang or $CC); install one and the CPU path becomes faster",
        )
    flags = (*FLAGS, *(("-DACTIVATION_BF16",) if is_bf16 else ()))
    digest = _digest(compiler, flags)
    target = Path(platformdirs.user_cache_dir("groschen")) / "kernels" / f"{digest}.so"
    if not target.exists():
        failure = _compile(compiler, flags, target)
        if failure:
            return Built(None, digest, failure)
    try:
        return Built(ctypes.CDLL(str(target)), digest, "")
    except OSError as error:
        return Built(None, digest, f"the compiled kernels at {target} cannot be loaded: {error}")


def _find_compiler() -> str | None:
    for name in (machine.preferred_compiler(), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            return path
    return None


def _digest(compiler: str, flags: tuple[str, ...]) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest = hashlib.sha256(repr((version, flags, machine.cpu_name(), machine.cpu_features())).encode())
    folder = resources.files("groschen.model") / "kernels"
    for name in (*HEADERS, *SOURCES):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, flags: tuple[str, ...], target: Path) -> str:
    """Compile into a neighbouring file and rename it, so that two processes never see half a library."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            resources.as_file(resources.files("groschen.model") / "kernels") as folder,
            tempfile.TemporaryDirectory(dir=target.parent) as scratch,
        ):
            half = Path(scratch) / "kernels.so"
            command = [compiler, *flags, *(str(folder / name) for name in SOURCES), "-o", str(half), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if result.returncode:
                return f"{compiler} could not compile the kernels: {result.stderr.strip().splitlines()[:3]}"
            os.replace(half, target)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the kernels could not be compiled: {error}"
    return ""
