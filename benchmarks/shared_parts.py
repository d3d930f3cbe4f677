"""Benchmarks of many runs: several processes share the parts, each done once."""

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
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--records", type=int, default=None,
                        help="training records per data set, whose files keep their proportion; "
                        "default: all")  # fmt: skip
    parser.add_argument("--epochs", type=int, default=None, help="default: as configured")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--parts", action="store_true", help="train, but write no report")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for every run"
    )
    return parser


def do_part(path: Path, work: Path, run: Callable[[Path], dict[str, Any]]) -> None:
    """Run one part and write its result, unless it is done or another process runs it.

    Args:
        path: JSON file for the result.
        work: folder for the part, removed at the end; existing contents are resumed.
        run: runs the part in that folder.
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
    """Format the mean of some shares in percent, with the range if there are several."""
    percent = [100 * share for share in shares]
    mean = f"{statistics.mean(percent):.1f}"
    return mean if len(percent) == 1 else f"{mean} ({min(percent):.1f} to {max(percent):.1f})"
