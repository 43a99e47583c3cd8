"""Keep freed memory inside the process on the CPU, so that steps need not request it from the kernel again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to return freed memory to the kernel; return whether that worked (not on other C libraries).

    By default glibc maps fresh memory for each large tensor and the kernel zeroes its pages one fault at a time: for a
    small convolutional network on 32x32 images that is a third of a CPU training step (`scripts/benchmark.py memory`).
    The process keeps the memory of its largest step; results do not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, value) for option, value in
               ((_TRIM_THRESHOLD, _LARGEST), (_MMAP_MAX, 0), (_TOP_PAD, 1 << 26)))  # fmt: skip
