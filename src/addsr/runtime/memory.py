"""Memory that stays with the process between one operation and the next."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_KEPT = 96 * 2**20  # bytes: one activation of Stable Diffusion's decoder at 512² in bfloat16 is 64 MiB
_LARGEST_BEFORE_2_35 = 32 * 2**20  # bytes: older versions of glibc refuse more
_MOST_KEPT = 2**31 - 1  # bytes, free at the end of the heap; the most that glibc takes


def keep_freed_memory() -> None:
    """Let the C library use freed memory again, instead of asking the system for clean pages at each operation.

    On a CPU up to a quarter of the time goes with that (docs/efficiency.md). glibc only: nothing happens elsewhere. It holds
    for the whole process, so it is for the command line, and for programs that decide so: a library must not. Of use in the
    main thread alone, as other threads have small heaps.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    if not mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BEFORE_2_35)
    mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
