"""Progress of long work, such as prediction.

Progress goes to standard error, so that results on standard output stay clean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from manyheads.display.live import PLAIN_INTERVAL, Display, duration, rate

T = TypeVar("T")


class Counter:
    """Shows the progress of some work: items done, speed and, if known, the time left.

    Args:
        description: what is being done, as a title ("Predicting").
        total: the number of items; None if unknown.
        unit: the items, in the plural.
        file: the stream to write to. Default: standard error.
        enabled: False shows nothing, for example while results scroll by on the terminal.
        interval: seconds between plain lines where `file` is no terminal.
        clock: returns seconds.
    """

    def __init__(
        self,
        description: str,
        total: int | None = None,
        unit: str = "sentences",
        *,
        file: TextIO | None = None,
        enabled: bool = True,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._unit, self._enabled, self._clock = total, unit, enabled, clock
        self._display = Display(description, file, interval, clock, self._status, list)
        self._done = 0
        self._began = 0.0

    def __enter__(self) -> Counter:
        self._began = self._clock()
        if self._enabled:
            self._display.start(0, self._total)
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def advance(self, count: int = 1) -> None:
        """Count some work as done."""
        self._done += count
        if self._enabled:
            self._display.update(self._done)

    def _status(self) -> str:
        seconds = self._clock() - self._began
        of = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._done:,}{of} {self._unit}", rate(self._done, seconds, self._unit)]
        if self._total is not None and self._done:
            left = max(self._total - self._done, 0) * seconds / self._done
            parts.append(f"{duration(left)} left")
        return ", ".join(part for part in parts if part)


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    *,
    file: TextIO | None = None,
    enabled: bool = True,
) -> Iterator[T]:
    """Yield items one by one, and show the progress (see `Counter`)."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with Counter(description, total, file=file, enabled=enabled) as counter:
        for item in items:
            yield item
            counter.advance()
