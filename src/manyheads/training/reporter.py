"""Reporting a run's progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyheads.errors import RequestError


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

    @staticmethod
    def checked(value: object) -> Reporter:
        """Return a reporter that a caller gave.

        Raises:
            RequestError: it is something else, such as a class.
        """
        if isinstance(value, Reporter):
            return value
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        raise RequestError(
            f"the reporter is {'the class' if isinstance(value, type) else 'an object of'} {name}",
            expected="an object of manyheads.training.Reporter, or of a class derived from it",
            fix="Make an object of the class."
            if isinstance(value, type) and issubclass(value, Reporter)
            else "Derive the class from it, or pass functions as `on_step` and `on_epoch`.",
        )

    failure: BaseException | None = None
    """If set, the run saves its state after the step or epoch, and raises this exception."""

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        """Training starts, or resumes after `done_steps`; each task has a main metric."""

    def step(self, report: StepReport) -> None:
        """A task was trained in an optimiser step."""

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """An epoch ended and is saved; the last entry of the history is its own.

        In a run on all records (`refit`) its `score` is None, and its `metrics` have no task.
        """

    def message(self, text: str) -> None:
        """There is something to tell the user."""

    def end(self) -> None:
        """Training is over, for whatever reason."""
