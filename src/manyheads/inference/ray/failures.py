"""Errors of workers, raised as if they had happened in this process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa  # type: ignore[import-untyped]
import ray

from manyheads.errors import DataError, ManyheadsError, RequestError, option, shorten

# The start of Ray's advice, which is for callers of Ray.
_ADVICE = re.compile(r"\.? Please check the CSV file|\n")
_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Raise the original error where Ray wraps one.

    Args:
        where: the input, for messages.

    Raises:
        ManyheadsError: the user's input, model or cluster is invalid.
        RuntimeError: there is another cause.
    """
    try:
        yield
    except ManyheadsError:
        raise
    except Exception as error:
        raise _cause(error, where) from error


def _cause(error: Exception, where: str) -> Exception:
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, ManyheadsError):
            return one
    deepest, text = chain[-1], str(error)
    if isinstance(deepest, _DEATHS):
        return RequestError(
            f"the workers died ({shorten(text, 500)})",
            expected="workers that stay alive",
            fix="If memory ran out, use fewer workers or smaller batches.",
        )
    if "ExecutionTimeoutError" in type(deepest).__name__:
        return RequestError(
            f"nothing has moved for a long time ({shorten(text, 500)})",
            fix="Look at the cluster; workers that die again and again need more memory.",
        )
    if isinstance(deepest, pa.ArrowException | OSError | ValueError):
        return DataError(
            f"cannot be read ({shorten(_ADVICE.split(str(deepest))[0], 300)})",
            where=where,
            expected="sound Parquet, JSON lines or CSV",
            fix=f"Run {option('`manyheads data check FILE`', 'manyheads.check(FILE)')} to see "
            "what is wrong, and where.",
        )
    return RuntimeError(f"{type(deepest).__name__}: {deepest}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes: Ray keeps them in `cause`, Python in `__cause__`."""
    seen = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = getattr(current, "cause", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__
