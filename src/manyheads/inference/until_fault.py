"""Streams that end where their source fails, so that what came before is finished first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class UntilFault(Iterator[Item]):
    """An iterator that ends where its source fails. `raise_fault` then raises the error."""

    def __init__(self, source: Iterable[Item]) -> None:
        self._source = iter(source)
        self._fault: Exception | None = None

    def __next__(self) -> Item:
        if self._fault is None:
            try:
                return next(self._source)
            except StopIteration:
                raise
            except Exception as error:
                self._fault = error
        raise StopIteration

    def raise_fault(self) -> None:
        """Raise the error of the source, if it failed."""
        if self._fault is not None:
            raise self._fault
