"""Several batches at once, each on a processor thread of its own.

Matrix products of a few hundred tokens are too small to split: waking a second thread for each
costs a third of the gain, while two batches side by side lose almost nothing. Only a single, large
batch is computed by all threads together.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from manyheads.inference.until_fault import UntilFault
from manyheads.text import Batch, Floats

if TYPE_CHECKING:
    from manyheads.inference.backends.base import Backend

ALONE_TOKENS = 64
"""Tokens from which a single batch gains from more than one thread."""

Outputs = Mapping[str, Floats]
Job = TypeVar("Job")
Result = TypeVar("Result")


class ParallelBackend:
    """A backend that computes several batches at once.

    Args:
        single: a backend of one thread, whose `run` may be called by several at the same time.
        open_joint: opens, on first use, a backend that computes a batch with all threads.
        count: threads, and so batches at a time; at least 2.
    """

    def __init__(self, single: Backend, open_joint: Callable[[], Backend], count: int) -> None:
        self.single = single
        self.count = count
        self._open_joint = open_joint
        self._joint: Backend | None = None
        self._opening = Lock()
        self._process = os.getpid()

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return self.single.name

    def run(self, batch: Batch) -> Outputs:
        """Run a single batch."""
        if batch.input_ids.size < ALONE_TOKENS:
            return self.single.run(batch)
        if self._process != os.getpid():
            # Threads do not survive a fork, and a lock may stay held.
            self._joint, self._opening, self._process = None, Lock(), os.getpid()
        with self._opening:
            self._joint = self._joint or self._open_joint()
        return self._joint.run(batch)


def parallel_batches(backend: Backend) -> int:
    """Return the number of batches that a backend computes at a time."""
    return backend.count if isinstance(backend, ParallelBackend) else 1


def single_batch_backend(backend: Backend) -> Backend:
    """Return the backend for one of several batches; itself if it computes one at a time."""
    return backend.single if isinstance(backend, ParallelBackend) else backend


def run_in_order(
    backend: Backend,
    jobs: Iterable[Job],
    compute: Callable[[Backend, Job], Result],
    *,
    ahead: bool = True,
) -> Iterator[tuple[Job, Result]]:
    """Compute a stream of jobs, several at once if the backend can.

    Args:
        backend: the backend.
        jobs: the work, such as batches.
        compute: computes a job with a backend; in threads if the backend and the jobs allow it.
        ahead: whether further jobs may be taken before the earlier ones are done.

    Returns:
        the jobs in their order, each with its result.
    """
    if not isinstance(backend, ParallelBackend) or not ahead:
        for job in jobs:
            yield job, compute(backend, job)
        return
    stream = UntilFault(jobs)
    first = list(islice(stream, 2))
    if len(first) < 2:
        for job in first:
            yield job, compute(backend, job)
    else:
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        with ThreadPoolExecutor(backend.count, thread_name_prefix="manyheads-batch") as pool:
            try:
                for job in chain(first, stream):
                    waiting.append((job, pool.submit(compute, backend.single, job)))
                    # Twice as many as there are threads, so that none waits for this one.
                    if len(waiting) >= 2 * backend.count:
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()
    stream.raise_fault()


def _next(waiting: deque[tuple[Job, Future[Result]]]) -> tuple[Job, Result]:
    job, future = waiting.popleft()
    return job, future.result()
