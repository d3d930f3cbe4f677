"""The progress of runs that are started from Python, and their callbacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from manyheads.config import Config
from manyheads.display import TrainingProgress
from manyheads.training import Reporter, StepReport, is_first_process
from manyheads.training.comparison import ReporterOf

OnStep = Callable[[StepReport], None]
OnEpoch = Callable[[Mapping[str, Any]], None]


def progress_of(config: Config) -> Reporter:
    """Return the reporter of a run: a bar on a terminal, plain lines elsewhere."""
    if not is_first_process():
        return Reporter()
    return TrainingProgress()


def comparison_progress(shown: bool = True) -> ReporterOf:
    """Return what begins to show the progress of a comparison's run."""

    @contextmanager
    def begin(title: str, config: Config) -> Iterator[Reporter]:
        if not shown:
            yield Reporter()
            return
        # Standard output is for the comparison; the epochs of its runs are progress.
        with TrainingProgress(results=sys.stderr) as progress:
            progress.message(f"{title} ({config.save_dir})")
            yield progress

    return begin


class Calling(Reporter):
    """Calls functions at each step and epoch, and forwards everything to another reporter.

    An exception in one of them, or in the other reporter's `step` or `epoch`, ends the run, which
    saves its state first. So does the other reporter's `failure`.

    Args:
        reporter: shows the progress.
        on_step: takes each loss of a step.
        on_epoch: takes the entry of the history at the end of an epoch.
    """

    def __init__(
        self, reporter: Reporter, on_step: OnStep | None, on_epoch: OnEpoch | None
    ) -> None:
        self._reporter, self._on_step, self._on_epoch = reporter, on_step, on_epoch

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        """Forward it."""
        self._reporter.begin(total_steps, done_steps, tasks)

    def step(self, report: StepReport) -> None:
        """Forward it, then call the function for steps."""
        self._call(self._reporter.step, report)
        if self._on_step is not None:
            self._call(self._on_step, report)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Forward it, then call the function for epochs with the last entry."""
        self._call(self._reporter.epoch, history)
        if self._on_epoch is not None:
            self._call(self._on_epoch, history[-1])

    def _call(self, function: Callable[[Any], None], value: Any) -> None:
        if self.failure is None:
            try:
                function(value)
            except BaseException as error:
                self.failure = error
            else:
                self.failure = self._reporter.failure

    def message(self, text: str) -> None:
        """Forward it."""
        self._reporter.message(text)

    def end(self) -> None:
        """Forward it."""
        self._reporter.end()
