"""A function that a test sends to workers of another process; small, because they import it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Victim:
    """Makes the first worker in the middle of its work wait until it is killed.

    Called in the workers before each chunk; each call is recorded.
    """

    folder: Path

    def __call__(self) -> None:
        mine = self.folder / f"worker-{os.getpid()}"
        if not mine.exists():
            mine.touch()
            return
        with suppress(FileExistsError), (self.folder / "victim").open("x") as file:
            file.write(str(os.getpid()))
            file.flush()
            time.sleep(120)

    def kill(self) -> None:
        """Kill the worker once it waits."""
        note = self.folder / "victim"
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        os.kill(int(note.read_text()), signal.SIGKILL)
        (self.folder / "killed").touch()
