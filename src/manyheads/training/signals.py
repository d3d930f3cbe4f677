"""Graceful stopping: signals become a request that the training loop checks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from manyheads.errors import is_command

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Windows has no SIGHUP."""


def is_ignored(number: int) -> bool:
    """Return whether the process was started to ignore a signal, as `nohup` does for SIGHUP."""
    return signal.getsignal(number) is signal.SIG_IGN


class Stopped(BaseException):
    """A signal ended the run, after its state was saved.

    Args:
        message: what was saved and how to continue; empty if another process reports it.
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class Interrupted(Exception):
    """Work was abandoned because of a signal; nothing of it is kept."""


class StopRequest:
    """Catches SIGINT, SIGTERM and SIGHUP while a run is in progress.

    The first one sets `signal_number`, which the loop checks. A second one stops the process at
    once, as it would by default; files that are written atomically stay intact. In a program that
    trains from Python, such as a notebook, a second SIGINT does what it did before the run, which
    is to raise KeyboardInterrupt. Outside the main thread, where Python delivers no signals,
    nothing is caught; nor is SIGHUP where the process ignores it (`nohup`).

    Args:
        report: shows that a signal was received.
    """

    def __init__(self, report: Callable[[str], None] = lambda text: None) -> None:
        self._report = report
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number == signal.SIGINT or not is_ignored(number):
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self) -> None:
        """Abandon the current work if a signal was received.

        Raises:
            Interrupted: one was.
        """
        if self.signal_number is not None:
            raise Interrupted

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        for other, before in self._previous.items():
            is_raised = other == signal.SIGINT and callable(before) and not is_command()
            signal.signal(other, before if is_raised else signal.SIG_DFL)
        # The terminal may be gone, or the signal have come in the middle of writing to it.
        with suppress(OSError, RuntimeError):
            self._report(
                f"{signal.Signals(number).name} received: stopping and saving. "
                "A second one stops at once, without saving."
            )

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
