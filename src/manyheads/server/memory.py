"""Freed memory goes back to the system, so that a server's memory stays level over reloads.

glibc alone would keep what earlier versions of a model used. Other C libraries need nothing here.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # from glibc's malloc.h
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Have blocks from 1 MB returned when they are freed. By default glibc raises this limit to 32
    MB as a model is freed, and threads then keep the blocks of the next versions."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def return_freed_memory() -> None:
    """Return what is free between the blocks in use."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
