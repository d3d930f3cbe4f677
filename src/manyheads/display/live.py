"""A live bar on a terminal; a plain line every so often elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from manyheads.display.tables import cell, is_terminal, printable, write

PLAIN_INTERVAL = 30.0
"""Seconds between plain lines."""


class Display:
    """A live bar with lines below it on a terminal; a plain line every so often elsewhere.

    If it can no longer be shown, because the terminal was closed, work continues.

    Args:
        status: returns the progress in words.
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
        self._first_line: float | None = None
        self._next_line: float | None = None

    def start(self, done: int, total: int | None) -> None:
        """Begin to show the progress: a bar on a terminal, lines elsewhere."""
        self._done, self._total = done, total
        stream = self._stream()
        if is_terminal(stream):
            self._bar = _Bar(stream, self._status, self._details)
            self._bar.add_task(self._description, total=total, completed=done)
            self._bar.start()
        else:
            self._first_line = self._next_line = self._clock() + self._interval

    def stop(self, summary: str = "") -> None:
        """Show no more progress.

        Args:
            summary: how the work ended, for a last line elsewhere than on a terminal; written only
                after work that took long enough for other lines.
        """
        if self._bar is not None:
            with suppress(OSError):
                self._bar.stop()
        elif summary and self._first_line is not None and self._clock() >= self._first_line:
            self.message(f"{self._description}: {summary}")
        self._bar = self._first_line = self._next_line = None

    def update(self, done: int, *, line: bool = True) -> None:
        """Show how much is done.

        Args:
            done: the number of items.
            line: whether to write a line elsewhere than on a terminal, if one is due.
        """
        self._done = done
        if self._bar is not None:
            with suppress(OSError):
                self._bar.update(self._bar.task_ids[0], completed=done)
        elif line and self._next_line is not None and self._clock() >= self._next_line:
            details = (" ".join(filter(None, cells)) for cells in self._details())
            self.message("; ".join([f"{self._description}: {self._status()}", *details]))
            self._next_line = self._clock() + self._interval

    def message(self, text: str) -> None:
        """Print lines above the progress."""
        text = "\n".join(map(printable, text.splitlines()))
        with suppress(OSError):
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
            # A new bar, since a stopped one would erase the lines above it when restarted.
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
        # A process killed by a signal would leave the terminal without a cursor.
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
    """The state of the work in words."""

    def __init__(self, words: Callable[[], str]) -> None:
        super().__init__()
        self._words = words

    def render(self, task: Task) -> Text:
        return Text(self._words())


def rate(count: int, seconds: float, unit: str) -> str:
    """Format a speed; return nothing if it is unknown."""
    if not count or seconds <= 0:
        return ""
    value = count / seconds
    return f"{value:,.0f} {unit}/s" if value >= 10 else f"{value:.1f} {unit}/s"


def duration(seconds: float) -> str:
    """Format a time as 0:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
