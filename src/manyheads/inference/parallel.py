"""Several batches at once, each on a processor thread of its own.

The products of a few hundred tokens are too small to be shared out: waking a second thread for
each of them costs a third of what it could gain, while two batches side by side lose next to
nothing. Only a large batch that is alone is computed by all threads together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from manyheads.text import Batch, Floats

if TYPE_CHECKING:
    from manyheads.inference.backends.base import Backend

ALONE_TOKENS = 64
"""Tokens from which on a batch that is alone gains from more than one thread."""

Outputs = Mapping[str, Floats]
Job = TypeVar("Job")
Result = TypeVar("Result")


class Lanes:
    """A backend for several batches at once.

    Args:
        narrow: a backend of one thread, whose `run` may be called by several at the same time.
        open_wide: opens one that computes a batch with all threads, when it is first needed.
        count: threads, and so batches at a time; at least 2.
    """

    def __init__(self, narrow: Backend, open_wide: Callable[[], Backend], count: int) -> None:
        self.narrow = narrow
        self.count = count
        self._open_wide = open_wide
        self._wide: Backend | None = None
        self._opening = Lock()

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return self.narrow.name

    def run(self, batch: Batch) -> Outputs:
        """Run a batch that is alone."""
        if batch.input_ids.size < ALONE_TOKENS:
            return self.narrow.run(batch)
        with self._opening:
            self._wide = self._wide or self._open_wide()
        return self._wide.run(batch)


def lanes_of(backend: Backend) -> int:
    """Count the batches that a backend computes at a time."""
    return backend.count if isinstance(backend, Lanes) else 1


def narrowed(backend: Backend) -> Backend:
    """Return what computes one batch of several; the backend itself if it has no lanes."""
    return backend.narrow if isinstance(backend, Lanes) else backend


def run_in_order(
    backend: Backend,
    jobs: Iterable[Job],
    compute: Callable[[Backend, Job], Result],
    *,
    ahead: bool = True,
) -> Iterator[tuple[Job, Result]]:
    """Work through a stream of batches, several at once if the backend can.

    Args:
        backend: what computes.
        jobs: what is to be computed.
        compute: does it, with a backend; in threads if there are several lanes and several jobs.
        ahead: whether jobs may be taken before those before them are answered.

    Returns:
        the jobs in their order, each with its result.
    """
    if not isinstance(backend, Lanes) or not ahead:
        for job in jobs:
            yield job, compute(backend, job)
        return
    stream = _Stream(jobs)
    first = list(islice(stream, 2))
    if len(first) < 2:
        for job in first:
            yield job, compute(backend, job)
    else:
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        with ThreadPoolExecutor(backend.count, thread_name_prefix="manyheads-lane") as pool:
            try:
                for job in chain(first, stream):
                    waiting.append((job, pool.submit(compute, backend.narrow, job)))
                    # Twice as many as there are lanes, so that none waits for this thread.
                    if len(waiting) >= 2 * backend.count:
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()
    if stream.fault is not None:
        raise stream.fault


class _Stream(Iterator[Job]):
    """An iterator that ends where it fails, so that what came before can be answered first."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self.fault: Exception | None = None

    def __next__(self) -> Job:
        if self.fault is None:
            try:
                return next(self._jobs)
            except StopIteration:
                raise
            except Exception as error:  # whatever it is, it is raised again
                self.fault = error
        raise StopIteration


def _next(waiting: deque[tuple[Job, Future[Result]]]) -> tuple[Job, Result]:
    job, future = waiting.popleft()
    return job, future.result()
