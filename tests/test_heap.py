"""Freed memory is kept while there is enough and given back when there is not."""

import platform
import subprocess
import sys

import pytest

# Blocks with something small that stays between them: freed, they are holes in the middle of the heap.
SCRIPT = """
import torch
from groschen import heap, machine

assert heap.keep_freed_memory()
blocks, between = [], []
for _ in range(8):
    blocks.append(torch.ones(50 << 20, dtype=torch.uint8))
    between.append(torch.ones(5000))
full = machine.resident_bytes()
del blocks
kept = machine.resident_bytes()
given_with_plenty = heap.give_back_if_short()
after_plenty = machine.resident_bytes()
machine.usable_memory_bytes = lambda: full // 4
given_when_short = heap.give_back_if_short()
print(kept > full - (20 << 20), given_with_plenty, after_plenty > full - (20 << 20),
      given_when_short, machine.resident_bytes() < full - (380 << 20), float(sum(x.sum() for x in between)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own switches")
def test_holes_are_kept_with_plenty_and_returned_when_memory_is_short() -> None:
    command = [sys.executable, "-c", SCRIPT]  # in a process of its own, for what the C library is asked stays
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said == ["True", "False", "True", "True", "True", "40000.0"]
