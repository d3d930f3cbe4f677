"""SIGHUP: keys and models are loaded again, each on a thread of their own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType

from manyheads.server.scheduling import RELOAD_NAME


class Hangups:
    """Calls functions after each SIGHUP, each on a thread of its own.

    As a context, it catches the signal from its beginning, on the main thread, where alone Python
    delivers signals. `start` then calls a function for those that were received before it, too.
    """

    def __init__(self) -> None:
        self._was_received = False
        self._queues: list[SimpleQueue[bool]] = []
        """One per function, with True for a signal and False for the end."""
        self._catches = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Hangups:
        if self._catches:
            self._previous = signal.signal(signal.SIGHUP, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._catches:
            signal.signal(signal.SIGHUP, self._previous)
        for queue in self._queues:
            queue.put(False)

    def start(self, work: Callable[[], object]) -> None:
        """Begin to call a function; it raises nothing."""
        queue: SimpleQueue[bool] = SimpleQueue()
        self._queues.append(queue)
        if self._was_received:
            queue.put(True)

        def run() -> None:
            while _wait(queue):
                work()

        threading.Thread(target=run, name=RELOAD_NAME, daemon=True).start()

    def _receive(self, *_: object) -> None:
        self._was_received = True
        for queue in self._queues:
            # Another signal may interrupt this `put`; a lock would not allow that.
            queue.put(True)


def _wait(queue: SimpleQueue[bool]) -> bool:
    """Wait for a signal; return False at the end. Several signals count as one."""
    received = queue.get()
    while received and not queue.empty():
        received = queue.get()
    return received
