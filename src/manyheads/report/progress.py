"""Progress of long work: a live bar on a terminal, a plain line now and then elsewhere.

Progress goes to standard error, so that results on standard output stay clean.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from manyheads.report.tables import cell, epoch_table, is_terminal, printable, show, write

T = TypeVar("T")

PLAIN_INTERVAL = 30.0
"""Seconds between lines where there is no terminal."""

_LOSS_MEMORY = 0.95
"""Share of the smoothed loss that a further step keeps."""

_EPOCHS_SHOWN = 10


@dataclass(slots=True)
class _TaskPace:
    """How one task's training goes: its smoothed loss and its speed."""

    loss_sum: float = 0.0
    loss_weight: float = 0.0
    sentences: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add_loss(self, loss: float) -> None:
        # A loss that is not finite would stay in the mean for good; the loop reports it.
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


class TrainingProgress:
    """Shows a training run: steps, each task's loss and speed, time left, a table an epoch.

    The bar and messages go to `file`, the tables to `results`. Usable with `with`, which ends the
    display however the block ends; `begin` starts it.

    Args:
        main: each task's main metric, for the table.
        file: where progress goes. Default: standard error.
        results: where the tables go. Default: standard output.
        interval: seconds between plain lines where `file` is no terminal.
        clock: returns seconds.
    """

    def __init__(
        self,
        main: Mapping[str, str],
        *,
        file: TextIO | None = None,
        results: TextIO | None = None,
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._main = main
        self._results = results
        self._clock = clock
        self._display = _Display("Training", file, interval, clock, self._status, self._details)
        self._paces: dict[str, _TaskPace] = {}
        self._speeds: dict[int, float] = {}
        self._done = self._total = self._timed_steps = 0
        self._seconds = self._step_seconds = 0.0
        self._epoch_sentences, self._epoch_seconds = 0, 0.0
        # When the last step ended; None when something else than a step came after it.
        self._last: float | None = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Start the display of a run, or of one that goes on after `done_steps`."""
        self._total, self._done = total_steps, done_steps
        self._paces = {task: _TaskPace() for task in tasks}
        self._last = None
        self._display.start(done_steps, total_steps)

    def step(self, task: str, loss: float, sentences: int, tokens: int, *, steps: int = 1) -> None:
        """Count a training step of a task.

        Args:
            task: its name.
            loss: the step's mean loss.
            sentences: sentences in the step.
            tokens: tokens in the step, without padding.
            steps: 0 for each further task that the same optimiser step trained.
        """
        pace = self._paces.setdefault(task, _TaskPace())
        pace.add_loss(loss)
        if steps:
            now = self._clock()
            # The first step after a pause is not timed: its time is partly that of the pause.
            self._step_seconds = 0.0 if self._last is None else now - self._last
            self._last = now
            self._done += steps
            if self._step_seconds:
                self._timed_steps += steps
                self._seconds += self._step_seconds
                self._epoch_seconds += self._step_seconds
                self._epoch_sentences += sentences
        if self._step_seconds:
            pace.add_time(self._step_seconds, sentences, tokens)
        self._display.update(self._done)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Show the table of the epochs so far; the last entry is the epoch that just ended.

        Entries are as `epoch_table` wants them; where they say at which optimiser step the epoch
        ended (`step`), the bar follows.
        """
        entry = history[-1]
        self._done = entry.get("step", self._done)
        if self._epoch_seconds:
            self._speeds[entry["epoch"]] = self._epoch_sentences / self._epoch_seconds
        self._epoch_sentences, self._epoch_seconds = 0, 0.0
        with self._display.hidden():
            table = epoch_table(history, self._main, self._speeds, last=_EPOCHS_SHOWN)
            stream = self._results or sys.stdout
            show([table], stream)
            stream.flush()
        self._last = None
        self._display.update(self._done)

    def message(self, text: str) -> None:
        """Say something, above the bar."""
        self._display.message(text)

    def end(self) -> None:
        """Take the display away. To call this twice does no harm."""
        self._display.stop()

    def _status(self) -> str:
        parts = [f"{self._done:,}/{self._total:,} steps"]
        if self._timed_steps:
            left = max(self._total - self._done, 0) * self._seconds / self._timed_steps
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def _details(self) -> list[tuple[str, ...]]:
        return [(task, *pace.words()) for task, pace in list(self._paces.items())]


class Counter:
    """Shows how far some work is: what is done, the rate and, where known, the time left.

    Args:
        description: what is being done, as a title ("Predicting").
        total: how much there is; None where nobody knows.
        unit: of what, in the plural.
        file: where it is shown. Default: standard error.
        enabled: False shows nothing, as where the results themselves scroll by on the terminal.
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
        interval: float = PLAIN_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._unit, self._enabled, self._clock = total, unit, enabled, clock
        self._display = _Display(description, file, interval, clock, self._status, list)
        self._done = 0
        self._began = 0.0

    def __enter__(self) -> Counter:
        self._began = self._clock()
        if self._enabled:
            self._display.start(0, self._total)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._display.stop()

    def advance(self, count: int = 1) -> None:
        """Count some work as done."""
        self._done += count
        if self._enabled:
            self._display.update(self._done)

    def _status(self) -> str:
        seconds = self._clock() - self._began
        of = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._done:,}{of} {self._unit}", rate(self._done, seconds, self._unit)]
        if self._total is not None and self._done:
            left = max(self._total - self._done, 0) * seconds / self._done
            parts.append(f"{duration(left)} left")
        return ", ".join(part for part in parts if part)


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "sentences",
    *,
    file: TextIO | None = None,
    enabled: bool = True,
) -> Iterator[T]:
    """Pass items on one by one, and show how far they are (see `Counter`)."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with Counter(description, total, unit, file=file, enabled=enabled) as counter:
        for item in items:
            yield item
            counter.advance()


def rate(count: int, seconds: float, unit: str) -> str:
    """Write a speed, or nothing where none is known."""
    if not count or seconds <= 0:
        return ""
    value = count / seconds
    return f"{value:,.0f} {unit}/s" if value >= 10 else f"{value:.1f} {unit}/s"


def duration(seconds: float) -> str:
    """Write a time as 0:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Display:
    """A live bar with lines below it on a terminal; a plain line now and then elsewhere.

    Args:
        status: says in words how far the work is.
        details: the cells of the lines below the bar.
    """

    def __init__(
        self,
        description: str,
        file: TextIO | None,
        interval: float,
        clock: Callable[[], float],
        status: Callable[[], str],
        details: Callable[[], list[tuple[str, ...]]],
    ) -> None:
        self._description, self._status, self._details = description, status, details
        self._file = file
        self._interval, self._clock = interval, clock
        self._done = 0
        self._total: int | None = None
        self._bar: _Bar | None = None
        self._next_line: float | None = None

    def start(self, done: int, total: int | None) -> None:
        self._done, self._total = done, total
        stream = self._stream()
        if is_terminal(stream):
            self._bar = _Bar(stream, self._status, self._details)
            self._bar.add_task(self._description, total=total, completed=done)
            self._bar.start()
        else:
            self._next_line = self._clock() + self._interval

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._next_line = None

    def update(self, done: int) -> None:
        self._done = done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
        elif self._next_line is not None and self._clock() >= self._next_line:
            details = (" ".join(filter(None, cells)) for cells in self._details())
            self.message("; ".join([f"{self._description}: {self._status()}", *details]))
            self._next_line = self._clock() + self._interval

    def message(self, text: str) -> None:
        text = "\n".join(map(printable, text.splitlines()))
        if self._bar is not None:
            self._bar.console.print(Text(text), soft_wrap=True)
            return
        stream = self._stream()
        write(f"{text}\n", stream)
        stream.flush()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the terminal while something else is printed."""
        if self._bar is None:
            yield
            return
        self.stop()
        try:
            yield
        finally:
            # A new bar: one that was stopped would erase the lines above it when it starts again.
            self.start(self._done, self._total)

    def _stream(self) -> TextIO:
        return self._file or sys.stderr


class _Bar(Progress):
    """A bar, its status in words, and a line for each of the details."""

    def __init__(
        self,
        stream: TextIO,
        status: Callable[[], str],
        details: Callable[[], list[tuple[str, ...]]],
    ) -> None:
        self._lines = details
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            _Status(status),
            console=Console(file=stream, force_terminal=True, highlight=False),
            refresh_per_second=4,
            transient=True,
            # Results on standard output must not end up on standard error.
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )

    def start(self) -> None:
        super().start()
        # A process that a signal ends at once would leave the terminal without a cursor.
        self.console.show_cursor(True)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        lines = self._lines()
        if lines:
            grid = Table.grid(padding=(0, 2, 0, 0))
            for cells in lines:
                grid.add_row(*map(cell, cells))
            yield grid


class _Status(ProgressColumn):
    """Shows in words how far the work is."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        return Text(self._words())
