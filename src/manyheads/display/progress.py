"""Progress of long work, such as prediction.

Progress goes to standard error, so that results on standard output stay clean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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
        grouped: whether items come in groups, after each of which `end_group` is called. Plain
            lines are written only then: in the midst of a group the speed would be wrong.
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
        grouped: bool = False,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._unit, self._enabled, self._clock = total, unit, enabled, clock
        self._grouped = grouped
        self._display = Display(description, file, interval, clock, self._status, list)
        self._done = 0
        self._began = 0.0

    def __enter__(self) -> Counter:
        self._began = self._clock()
        if self._enabled:
            self._display.start(0, self._total)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._display.stop("" if kind else self._summary())

    def advance(self, count: int = 1) -> None:
        """Count some work as done."""
        self._done += count
        if self._enabled:
            self._display.update(self._done, line=not self._grouped)

    def end_group(self) -> None:
        """Show the progress after a group of items."""
        if self._enabled:
            self._display.update(self._done)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items one by one, and count them."""
        with self:
            for item in items:
                yield item
                self.advance()

    def _summary(self) -> str:
        seconds = self._clock() - self._began
        parts = [f"{self._done:,} {self._unit}", rate(self._done, seconds, self._unit)]
        return ", ".join([*filter(None, parts), f"{duration(seconds)} in all"])

    def _status(self) -> str:
        seconds = self._clock() - self._began
        of = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._done:,}{of} {self._unit}", rate(self._done, seconds, self._unit)]
        if self._total is not None and self._done:
            left = max(self._total - self._done, 0) * seconds / self._done
            parts.append(f"{duration(left)} left")
        return ", ".join(part for part in parts if part)
