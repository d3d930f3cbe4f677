"""Keeping freed memory for the next step instead of giving it back to the system.

A training step allocates and frees the same hundreds of megabytes again and again. glibc returns
large blocks to the system at once, and every page of the next step is then mapped and cleared
anew, which costs a tenth of the step on two cores.
"""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEPT_BYTES = 2**31 - 1
_GROWTH_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to 2 GB at the end of its heap, until it ends.

    Returns:
        whether the C library offers that; only glibc does.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _KEPT_BYTES, _M_TOP_PAD: _GROWTH_BYTES}
    return all(mallopt(option, value) == 1 for option, value in settings.items())
