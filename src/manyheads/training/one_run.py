"""One run at a time in a process, which is left as it was found."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from manyheads.errors import RequestError


class _Running:
    """The thread that trains, if there is one. A run within its callbacks disturbs nothing."""

    lock = threading.RLock()


def _forget_run() -> None:
    _Running.lock = threading.RLock()


# A child that was forked during a run does not train by itself.
os.register_at_fork(after_in_child=_forget_run)


@contextmanager
def one_run() -> Iterator[None]:
    """Refuse another run meanwhile; restore torch's generators and threads afterwards.

    A run seeds the generators of the whole process, and sets its number of threads. Training heads
    on a frozen encoder, or new rows of a head, is a run too.

    Raises:
        RequestError: another thread trains.
    """
    lock = _Running.lock
    if not lock.acquire(blocking=False):
        raise RequestError(
            "another run is in progress in this process",
            expected="one run at a time in a process, whose random numbers it sets",
            fix="Wait for it, or use a process of its own for each.",
        )
    threads = torch.get_num_threads()
    # Asking for the state of a GPU's generator would set the GPU up.
    has_gpus = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if has_gpus else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.set_num_threads(threads)
        lock.release()
