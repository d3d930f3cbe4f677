"""The number of processor threads: how many this process may use, and restoring what it had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

_undo: ContextVar[ExitStack | None] = ContextVar("_undo", default=None)


def available_cores() -> int:
    """Count the processor cores that this process may use.

    `OMP_NUM_THREADS`, the usual limit for numerical libraries, can lower it.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


@contextmanager
def restored_threads() -> Iterator[None]:
    """Restore PyTorch's number of threads, which is the whole process's, afterwards.

    For verbs that load a model and do not return it. PyTorch is not loaded for this: whatever sets
    the number registers how to restore it (`undo_threads`).
    """
    with ExitStack() as undo:
        token = _undo.set(undo)
        try:
            yield
        finally:
            _undo.reset(token)


@contextmanager
def kept_threads() -> Iterator[None]:
    """Within `restored_threads`, load a model that stays: its number of threads stays too."""
    token = _undo.set(None)
    try:
        yield
    finally:
        _undo.reset(token)


def undo_threads() -> ExitStack | None:
    """Return what is undone at the end of the innermost `restored_threads`; None outside."""
    return _undo.get()
