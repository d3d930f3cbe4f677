"""Studies of many runs: parts that are done once, by whoever comes first, and how they are told."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from manyheads.errors import RequestError
from manyheads.storage import RunLock


def do_part(path: Path, work: Path, run: Callable[[Path], dict[str, Any]]) -> None:
    """Do one part and write down what it found, unless it is done or another process is at it.

    Args:
        path: of the JSON file that is written at the end.
        work: a folder for the part, removed when it is done; what is in it is gone on with.
        run: does the part in that folder.
    """
    with ExitStack() as held:
        if not path.exists():
            work.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(RunLock(work))
            except RequestError:
                return
        if path.exists():
            return
        found = run(work)
        written = path.with_suffix(".new")
        written.write_text(json.dumps(found, indent=2) + "\n")
        written.replace(path)
    shutil.rmtree(work)


def spread(shares: Sequence[float]) -> str:
    """Write the mean of some shares in percent, with the range if there are several."""
    percent = [100 * share for share in shares]
    mean = f"{statistics.mean(percent):.1f}"
    return mean if len(percent) == 1 else f"{mean} ({min(percent):.1f} to {max(percent):.1f})"
