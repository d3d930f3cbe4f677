"""Stopping at a good moment: signals become a request that the training loop looks at."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A run that a signal ended, after its state was saved.

    Args:
        message: what was saved and how to go on; empty where another process says it.
        signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class Interrupted(Exception):
    """Work that was given up because a signal had come; nothing of it is kept."""


class StopRequest:
    """Catches SIGINT and SIGTERM while a run is under way.

    The first one sets `signal_number` for the loop to see. A second one stops the process at
    once, as it would without this; what is written atomically stays whole. Outside the main
    thread, where Python has no signals, nothing is caught.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def check(self) -> None:
        """Give up what is being done if a signal has come.

        Raises:
            Interrupted: it has.
        """
        if self.signal_number is not None:
            raise Interrupted

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        for other in STOPPING:
            signal.signal(other, signal.SIG_DFL)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
