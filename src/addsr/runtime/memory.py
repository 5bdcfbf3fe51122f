"""Memory that stays with the process between one operation and the next."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_KEPT = 96 * 2**20  # bytes: one activation of Stable Diffusion's decoder at 512² in bfloat16 is 64 MiB
_MOST_KEPT = 2**31 - 1  # bytes, free at the end of the heap; the most that glibc takes


def keep_freed_memory() -> None:
    """Let the C library use freed memory again, instead of asking the system for clean pages at each operation.

    On a CPU a fifth of the time goes with that (docs/efficiency.md). glibc only: nothing happens elsewhere. It holds for the
    whole process, so it is for the command line, and for programs that decide so: a library must not.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
