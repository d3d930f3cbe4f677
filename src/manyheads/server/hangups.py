"""SIGHUP: models are loaded again on a thread of their own, one signal after the other."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType

from manyheads.server.scheduling import RELOAD_NAME


class Hangups:
    """Calls a function after each SIGHUP, on another thread.

    As a context, it catches the signal from its beginning, on the main thread, where alone Python
    delivers signals. `start` then calls the function for those that were received before it, too.
    """

    def __init__(self) -> None:
        # A signal may interrupt its `put`, which then runs a second time; no lock allows that.
        self._received: SimpleQueue[bool] = SimpleQueue()
        """True for a signal, False for the end."""
        self._catches = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Hangups:
        if self._catches:
            self._previous = signal.signal(signal.SIGHUP, lambda *_: self._received.put(True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._catches:
            signal.signal(signal.SIGHUP, self._previous)
        self._received.put(False)

    def start(self, work: Callable[[], object]) -> None:
        """Begin to call a function; it raises nothing."""

        def run() -> None:
            while self._wait():
                work()

        threading.Thread(target=run, name=RELOAD_NAME, daemon=True).start()

    def _wait(self) -> bool:
        """Wait for a signal; return False at the end. Several signals count as one."""
        received = self._received.get()
        while received and not self._received.empty():
            received = self._received.get()
        return received
