"""Memory of large and short-lived buffers, given back to the system when they are freed.

glibc raises the size from which it maps a buffer of its own with every such buffer that is freed;
from then on large ones come from the heap, which only shrinks at its end.
"""

from __future__ import annotations

import ctypes

#: Options of mallopt (malloc.h), and bytes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 128 << 10


def map_large_buffers() -> None:
    """Keep to mapping large buffers, and to few heaps. Nothing where libc is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE)
    mallopt(_TRIM_THRESHOLD, _LARGE)
    mallopt(_ARENA_MAX, 2)


def give_back() -> None:
    """Return free pages of the heap to the system; milliseconds."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass
