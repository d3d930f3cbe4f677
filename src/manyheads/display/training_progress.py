"""Progress of a training run: steps, each task's loss and speed, and a row after every epoch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from manyheads.display.epochs import EpochTable
from manyheads.display.live import PLAIN_INTERVAL, Display, duration, rate
from manyheads.display.tables import write
from manyheads.training import Reporter, StepReport

_LOSS_MEMORY = 0.95
"""Share of the smoothed loss that remains after a further step."""

_EPOCHS_SHOWN = 10


@dataclass(slots=True)
class _TaskPace:
    """One task's smoothed loss and speed."""

    loss_sum: float = 0.0
    loss_weight: float = 0.0
    sentences: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add_loss(self, loss: float) -> None:
        # A loss that is not finite would stay in the mean forever; the loop reports it.
        if math.isfinite(loss):
            self.loss_sum = _LOSS_MEMORY * self.loss_sum + (1 - _LOSS_MEMORY) * loss
            self.loss_weight = _LOSS_MEMORY * self.loss_weight + (1 - _LOSS_MEMORY)

    def add_time(self, seconds: float, sentences: int, tokens: int) -> None:
        self.seconds += seconds
        self.sentences += sentences
        self.tokens += tokens

    def words(self) -> tuple[str, str, str]:
        loss = f"{self.loss_sum / self.loss_weight:.4f}" if self.loss_weight else "-"
        return (
            f"loss {loss}",
            rate(self.sentences, self.seconds, "sentences"),
            rate(self.tokens, self.seconds, "tokens"),
        )


class TrainingProgress(Reporter):
    """Shows a training run: steps, each task's loss and speed, time left, and a row per epoch.

    The bar and messages go to `file`, the tables to `results`. As a context manager it ends the
    display; `begin` starts it.

    Args:
        file: the stream for progress. Default: standard error.
        results: the stream for tables. Default: standard output.
        interval: seconds between plain lines if `file` is not a terminal.
        clock: returns seconds.
    """

    def __init__(
        self,
        *,
        file: TextIO | None = None,
        results: TextIO | None = None,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks: Mapping[str, str] = {}
        self._table: EpochTable | None = None
        self._shown = 0
        self._results = results
        self._clock = clock
        self._display = Display("Training", file, interval, clock, self._status, self._details)
        self._paces: dict[str, _TaskPace] = {}
        self._speeds: dict[int, float] = {}
        self._done = self._total = self._timed_steps = 0
        self._seconds = self._step_seconds = 0.0
        self._epoch_sentences, self._epoch_seconds = 0, 0.0
        # The end of the last step; None after an interruption, such as an evaluation.
        self._last: float | None = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        """Start the display of a run, or of a run that continues after `done_steps`.

        Args:
            total_steps: optimiser steps of the run.
            done_steps: those of them that are done.
            tasks: each task's main metric, for the table.
        """
        self._tasks, self._table = tasks, None
        self._total, self._done = total_steps, done_steps
        self._paces = {task: _TaskPace() for task in tasks}
        self._last = None
        self._display.start(done_steps, total_steps)

    def step(self, report: StepReport) -> None:
        """Count one loss of an optimiser step."""
        pace = self._paces.setdefault(report.task, _TaskPace())
        pace.add_loss(report.loss)
        if report.steps:
            now = self._clock()
            # The first step after a pause is not timed: its time is partly that of the pause.
            self._step_seconds = 0.0 if self._last is None else now - self._last
            self._last = now
            self._done += report.steps
            if self._step_seconds:
                self._timed_steps += report.steps
                self._seconds += self._step_seconds
                self._epoch_seconds += self._step_seconds
        if self._step_seconds:
            self._epoch_sentences += 0 if report.shared else report.sentences
            pace.add_time(self._step_seconds, report.sentences, report.tokens)
        self._display.update(self._done)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show the row of the epoch that just ended, in a resumed run after those before it.

        Entries have the form of `EpochTable.row`. The bar follows their optimiser `step`, if any.
        """
        entry = history[-1]
        self._done = entry.get("step", self._done)
        if self._epoch_seconds:
            self._speeds[entry["epoch"]] = self._epoch_sentences / self._epoch_seconds
        self._epoch_sentences, self._epoch_seconds = 0, 0.0
        with self._display.hidden():
            stream = self._results or sys.stdout
            lines = []
            if self._table is None:
                frames = entry["metrics"]["frame_accuracy"] is not None
                scored = entry["score"] is not None
                self._table = EpochTable(self._tasks, frames=frames, scored=scored)
                lines += self._table.header()
            for one in history[max(self._shown, len(history) - _EPOCHS_SHOWN) :]:
                lines.append(self._table.row(one, self._speeds.get(one["epoch"])))
            self._shown = len(history)
            write("".join(f"{line}\n" for line in lines), stream)
            stream.flush()
        self._last = None
        self._display.update(self._done)

    def message(self, text: str) -> None:
        """Show a message above the bar."""
        self._display.message(text)

    def end(self) -> None:
        """Remove the display. A second call does nothing."""
        self._display.stop()

    def _status(self) -> str:
        parts = [f"{self._done:,}/{self._total:,} steps"]
        if self._timed_steps:
            left = max(self._total - self._done, 0) * self._seconds / self._timed_steps
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def _details(self) -> list[tuple[str, ...]]:
        return [(task, *pace.words()) for task, pace in list(self._paces.items())]
