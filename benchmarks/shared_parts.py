"""Studies of many runs: parts that are done once, by whoever comes first, and how they are told."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from manyheads.config import available_cores
from manyheads.errors import RequestError
from manyheads.storage import RunLock


def study_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all studies of many runs take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--records", type=int, default=None,
                        help="of training, for each data set: its files keep their proportion; "
                        "default, all")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=None, help="default, the configuration's")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--parts", action="store_true", help="train, and write no report")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="in every run"
    )
    return parser


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
