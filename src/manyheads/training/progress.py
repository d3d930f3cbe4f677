"""Progress of searches that train heads: what counts work, and what shows the count."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Counter(Protocol):
    """Shows the progress of work."""

    def advance(self, count: int = 1) -> None:
        """Count some units of work as done."""


Progress = Callable[[int], AbstractContextManager[Counter]]
"""Begins to show work on a number of units."""


class _Silent:
    def advance(self, count: int = 1) -> None:
        """Show nothing."""


def counting(progress: Progress | None, total: int) -> AbstractContextManager[Counter]:
    """Count work on a number of units, and show it if there is something that shows it."""
    return progress(total) if progress else nullcontext(_Silent())
