"""What a run started from Python shows, and the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from manyheads.config import Config
from manyheads.display import TrainingProgress
from manyheads.tasks import kind_of
from manyheads.training import Reporter, StepReport, is_first_process

OnStep = Callable[[StepReport], None]
OnEpoch = Callable[[Mapping[str, Any]], None]


def progress_of(config: Config) -> Reporter:
    """Return what shows a run: a bar on a terminal, plain lines elsewhere."""
    if not is_first_process():
        return Reporter()
    return TrainingProgress({n: kind_of(t.kind).main_metric for n, t in config.tasks.items()})


class Calling(Reporter):
    """Calls functions at each step and epoch, and passes everything on to another reporter.

    Args:
        reporter: shows the progress.
        on_step: takes each loss of a step.
        on_epoch: takes the entry of the history at the end of an epoch.
    """

    def __init__(
        self, reporter: Reporter, on_step: OnStep | None, on_epoch: OnEpoch | None
    ) -> None:
        self._reporter, self._on_step, self._on_epoch = reporter, on_step, on_epoch

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Pass it on."""
        self._reporter.begin(total_steps, done_steps, tasks)

    def step(self, report: StepReport) -> None:
        """Pass it on, then call the function for steps."""
        self._reporter.step(report)
        if self._on_step is not None:
            self._on_step(report)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Pass it on, then call the function for epochs with the last entry."""
        self._reporter.epoch(history)
        if self._on_epoch is not None:
            self._on_epoch(history[-1])

    def message(self, text: str) -> None:
        """Pass it on."""
        self._reporter.message(text)

    def end(self) -> None:
        """Pass it on."""
        self._reporter.end()
