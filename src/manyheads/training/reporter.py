"""Reporting a run's progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class StepReport:
    """One loss of an optimiser step. A step reports each of its losses, one after the other.

    A task without labels in the step has no loss.
    """

    task: str
    """The task, or the name of another loss."""
    loss: float
    """Its mean over the step."""
    sentences: int
    tokens: int
    """In these sentences, without padding."""
    steps: int = 1
    """0 if the loss belongs to the same optimiser step as the one reported before."""
    shared: bool = False
    """Whether the sentences are those of the loss reported before."""


class Reporter:
    """Shows a run's progress. Override what should be shown; by default nothing is."""

    failure: BaseException | None = None
    """If set, the run saves its state after the step or epoch, and raises this exception."""

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Training starts, or resumes after `done_steps`."""

    def step(self, report: StepReport) -> None:
        """A task was trained in an optimiser step."""

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """An epoch ended and is saved; the last entry of the history is its own."""

    def message(self, text: str) -> None:
        """There is something to tell the user."""

    def end(self) -> None:
        """Training is over, for whatever reason."""
