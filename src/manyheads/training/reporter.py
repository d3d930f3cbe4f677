"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Reporter(Protocol):
    """Shows a run to whoever started it."""

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Training starts, or goes on after `done_steps`."""

    def step(
        self,
        task: str,
        loss: float,
        sentences: int,
        tokens: int,
        *,
        steps: int = 1,
        shared: bool = False,
    ) -> None:
        """A task was trained.

        `steps` is 0 if it shares the optimiser step of the task before; `shared` says that it
        learned from the same sentences, too.
        """

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """An epoch ended; the last entry of the history is its own."""

    def message(self, text: str) -> None:
        """Something worth knowing happened."""

    def end(self) -> None:
        """Training is over, for whatever reason."""


class Quiet:
    """A reporter that says nothing."""

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Say nothing."""

    def step(
        self,
        task: str,
        loss: float,
        sentences: int,
        tokens: int,
        *,
        steps: int = 1,
        shared: bool = False,
    ) -> None:
        """Say nothing."""

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""
