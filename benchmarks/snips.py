"""SNIPS data and configuration for the training benchmarks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from manyheads.config import Config, available_cores, load_config
from manyheads.data.records import Record, read_records

INTENT, SLOTS = "intent", "slots"

TASKS: Mapping[str, Mapping[str, str]] = {
    INTENT: {"kind": "classification", "field": "label"},
    SLOTS: {"kind": "tagging", "field": "ner"},
}

_FILES = ("seq.in", "seq.out", "label")


def training_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all comparisons of trainings on SNIPS take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--model", help="encoder; default: that of the configuration")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--precision", default="auto", help="precision of Manyheads")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="a tiny run in one process, for tests")
    return parser


def first_records(folder: Path, count: int | None, out: Path) -> Path:
    """Copy the first records of a SNIPS folder; without a count, return the folder itself.

    The sentences of the published split are in no particular order.
    """
    if count is None:
        return folder
    part = out / f"{folder.name}-{count}"
    part.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        with (folder / name).open(encoding="utf-8") as file:
            (part / name).write_text("".join(islice(file, count)), encoding="utf-8")
    return part


def configuration(train: Path, dev: Path, save_dir: Path, **changes: Any) -> Config:
    """Return the default configuration for SNIPS, whose sentences have both labels (`joint`)."""
    return load_config(
        None,
        {
            "train_file": str(train),
            "valid_file": str(dev),
            "save_dir": str(save_dir),
            "schedule": "joint",
            "tasks": {name: dict(task) for name, task in TASKS.items()},
            **changes,
        },
    )


def records_of(folder: Path, config: Config) -> list[Record]:
    """Read the records of a folder, labels by name."""
    return list(read_records(folder, config.tasks, {}))
