"""Parallel batches give the results of sequential ones, in the same order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from manyheads.inference import Backend, ParallelBackend, single_batch_backend
from manyheads.inference.parallel import ALONE_TOKENS, parallel_batches, run_in_order
from manyheads.text import Batch


class Counter:
    """Answers with what it is given and knows which threads asked."""

    def __init__(self, name: str = "single") -> None:
        self.name = name
        self.threads: set[int] = set()
        self.sizes: list[int] = []

    def run(self, batch: Batch) -> dict[str, np.ndarray]:
        self.threads.add(threading.get_ident())
        self.sizes.append(batch.input_ids.size)
        return {"ids": batch.input_ids}


def batch(tokens: int) -> Batch:
    ids = np.ones((1, tokens), np.int64)
    return Batch(ids, ids, np.zeros((1, 1), np.int64), np.ones((1, 1), np.bool_))


def workers(count: int = 2) -> tuple[ParallelBackend, Counter, Counter]:
    single, joint = Counter(), Counter("joint")
    return ParallelBackend(single, lambda: joint, count), single, joint


def answers(backend: Backend, tokens: list[int]) -> list[tuple[int, int]]:
    return list(run_in_order(backend, tokens, lambda one, n: one.run(batch(n))["ids"].size))


@pytest.mark.parametrize("count", [2, 3])
def test_jobs_keep_their_order_whichever_ends_first(count: int) -> None:
    backend, _, _ = workers(count)

    def slow_first(one: Backend, job: int) -> int:
        time.sleep(0.02 if job % count == 0 else 0)
        return -job

    computed = list(run_in_order(backend, range(10), slow_first))
    assert computed == [(job, -job) for job in range(10)]


def test_several_jobs_are_computed_by_as_many_threads_as_there_are_workers() -> None:
    backend, single, joint = workers(2)
    together = threading.Barrier(2)

    def meet(one: Backend, job: int) -> int:
        # Neither comes back before the other is there.
        together.wait(timeout=300)
        return one.run(batch(job))["ids"].size

    assert [found for _, found in run_in_order(backend, [3, 4, 5, 6], meet)] == [3, 4, 5, 6]
    assert len(single.threads) == 2
    assert threading.get_ident() not in single.threads
    assert not joint.sizes


def test_a_single_job_runs_in_the_calling_thread_and_with_all_threads_if_it_is_large() -> None:
    backend, single, joint = workers()
    answers(backend, [ALONE_TOKENS - 1])
    assert single.threads == {threading.get_ident()}
    assert not joint.sizes
    answers(backend, [ALONE_TOKENS])
    assert joint.sizes == [ALONE_TOKENS]
    assert joint.threads == {threading.get_ident()}


def test_a_backend_without_workers_takes_one_job_after_the_other() -> None:
    backend = Counter()
    assert answers(backend, [1, 2, 3]) == [(1, 1), (2, 2), (3, 3)]
    assert backend.threads == {threading.get_ident()}
    assert parallel_batches(backend) == 1
    assert single_batch_backend(backend) is backend
    several, single, _ = workers(5)
    assert parallel_batches(several) == 5
    assert single_batch_backend(several) is single
    assert several.name == "single"


def test_jobs_are_taken_only_a_little_ahead_and_not_at_all_on_request() -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        for number in range(1, 10_000):
            taken.append(number)
            yield number

    def size(one: Backend, job: int) -> int:
        return one.run(batch(job))["ids"].size

    backend, _, _ = workers(2)
    ahead = run_in_order(backend, endless(), size)
    assert next(ahead) == (1, 1)
    assert len(taken) == 4
    ahead.close()  # type: ignore[attr-defined]
    taken.clear()
    one_by_one = run_in_order(backend, endless(), size, ahead=False)
    assert next(one_by_one) == (1, 1)
    assert len(taken) == 1


def test_jobs_before_an_error_are_answered_first() -> None:
    def faulty() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("the fourth is wrong")

    backend, _, _ = workers()
    stream = run_in_order(backend, faulty(), lambda one, n: n)
    assert [next(stream)[0] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="the fourth is wrong"):
        next(stream)


def test_an_error_is_raised_at_the_place_of_its_job() -> None:
    def fail(one: Backend, job: int) -> int:
        if job == 3:
            raise RuntimeError("no memory")
        return job

    backend, _, _ = workers()
    stream = run_in_order(backend, range(20), fail)
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="no memory"):
        next(stream)
