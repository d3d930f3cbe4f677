"""Samples of sequences and of streams, even or drawn at random."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """Choose at most `count` items, spread evenly from the first one on to the end."""
    chosen = min(len(items), count)
    return [items[i * len(items) // chosen] for i in range(chosen)]


def drawn(items: Iterable[T], count: int) -> tuple[list[T], int]:
    """Draw at most `count` items of a stream, in random order; the same ones in each call.

    Returns:
        The drawn items (Vitter 1985, algorithm R), and the length of the stream.
    """
    numbers = random.Random(0)
    chosen: list[T] = []
    total = 0
    for total, item in enumerate(items, 1):
        place = numbers.randrange(total)
        if len(chosen) < count:
            chosen.append(item)
        elif place < count:
            chosen[place] = item
    numbers.shuffle(chosen)
    return chosen, total


class StreamSample(Generic[T]):
    """Items spread evenly over a stream of unknown length.

    Args:
        count: at least so many are kept of a longer stream, and at most twice as many.
    """

    def __init__(self, count: int) -> None:
        self.items: list[T] = []
        self._most = 2 * count
        self._step = 1
        self._seen = 0

    def extend(self, items: Iterable[T]) -> None:
        """Offer the next items of the stream."""
        for item in items:
            if self._seen % self._step == 0:
                if len(self.items) == self._most:
                    self.items = self.items[::2]
                    self._step *= 2
                self.items.append(item)
            self._seen += 1
