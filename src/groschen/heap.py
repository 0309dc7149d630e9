"""What the C library does with memory that was freed: keep it for the next step, or give it back in time.

A gradient allocates and frees the same large tensors for every layer, a decoding step its logits. Left alone,
glibc maps each of them anew and the kernel clears every page again: a GRPO step of a 0.5B model on two Zen 4
cores took 65 s, and 55 with the memory kept. Leaves out what is allocated, and how much memory the machine
has (machine.py).
"""

import ctypes

from groschen import machine

SHORT = 0.25  # of what the process holds and could still take

_HUGE_PAGE = 2 << 20
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8  # of malloc.h
_MADV_HUGEPAGE = 14  # of mman.h


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed, in one heap of huge pages. Returns whether it understood
    (glibc does). A second call changes nothing.

    Tensors of ever new sizes leave holes that fit nothing, so whoever makes them calls `give_back_if_short`
    too: without it a training run of a 0.5B model had filled 24 GiB after thirteen steps, and the kernel
    killed it.
    """
    c_library = ctypes.CDLL(None)
    if not hasattr(c_library, "mallopt"):
        return False
    wishes = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20))  # -1: never
    answers = {c_library.mallopt(name, value) for name, value in wishes}
    _widen(c_library)
    return 0 not in answers


def _widen(c_library: ctypes.CDLL) -> None:
    """Let the heap's free end be as large as what the machine has free, in huge pages. Nothing of it is taken
    before it is used.

    torch can ask for huge pages itself (THP_MEM_ALLOC_ENABLE), but aligns each tensor to one of them, and a
    hole that an aligned tensor left is too small for the next: each step of a 0.5B model then took new memory
    for its logits, 0.5 s for each 277 MB. A system that refuses leaves the heap as it is.
    """
    c_library.malloc.restype, c_library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    c_library.free.restype, c_library.free.argtypes = None, (ctypes.c_void_p,)
    c_library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = machine.usable_memory_bytes()
    block = c_library.malloc(size)
    if block is None:
        return
    first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
    c_library.madvise(first, (block + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
    c_library.free(block)


def give_back_if_short() -> bool:
    """Return what lies free to the system if little is left that could be taken; whether any was returned."""
    c_library = ctypes.CDLL(None)
    if not hasattr(c_library, "malloc_trim"):
        return False
    usable = machine.usable_memory_bytes()
    if usable >= SHORT * (machine.resident_bytes() + usable):
        return False
    is_given = bool(c_library.malloc_trim(0))
    _widen(c_library)
    return is_given


def give_back() -> bool:
    """Return what lies free to the system, however much there is; whether any was returned."""
    c_library = ctypes.CDLL(None)
    return hasattr(c_library, "malloc_trim") and bool(c_library.malloc_trim(0))
