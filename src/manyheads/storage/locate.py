"""Find the checkpoints of a run, and the model that a path names."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from manyheads.errors import ModelError, RequestError, at, listing, option, shorten
from manyheads.storage.atomic import StrPath, explained
from manyheads.storage.layout import BEST, is_model_folder

Prefer = Literal["best", "latest"]

CONFIG_FILE = "config.yaml"
"""The name of the configuration in a run's folder, to repeat or change the run."""
METRICS_FILE = "metrics.jsonl"
"""The name of the log in a run's folder."""
SEED_FOLDER = "seed-"
"""What the names of the folders in a comparison begin with; the seed follows."""
_CHECKPOINT = re.compile(r"mtl_(epoch|step)(\d+)\.pt")


class CheckpointFile(NamedTuple):
    """A checkpoint as its name describes it."""

    path: Path
    is_epoch: bool
    """Whether it was written at the end of an epoch, rather than within one."""
    number: int
    """The epoch or the optimiser step."""

    @classmethod
    def named(cls, path: Path) -> CheckpointFile | None:
        """Parse a file's name; return None for one that is not a checkpoint's."""
        match = _CHECKPOINT.fullmatch(path.name)
        return cls(path, match[1] == "epoch", int(match[2])) if match else None


def epoch_path(save_dir: StrPath, epoch: int) -> Path:
    """Return the path of the checkpoint at the end of an epoch, counted from 1."""
    return Path(save_dir) / f"mtl_epoch{epoch}.pt"


def step_path(save_dir: StrPath, step: int) -> Path:
    """Return the path of a checkpoint within an epoch, after this many steps of the whole run."""
    return Path(save_dir) / f"mtl_step{step}.pt"


def list_checkpoints(save_dir: StrPath) -> tuple[CheckpointFile, ...]:
    """Return the checkpoints in a folder: those of epochs, then those of steps, by number.

    A folder that does not exist has none.
    """
    folder = Path(save_dir)
    with explained(folder, "read"):
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    found = [file for path in files if (file := CheckpointFile.named(path))]
    return tuple(sorted(found, key=lambda file: (not file.is_epoch, file.number)))


def is_comparison(folder: StrPath) -> bool:
    """Return whether a folder holds a comparison, which may have been stopped."""
    return any(Path(folder).glob(f"{SEED_FOLDER}*/*"))


def resolve_model(model: StrPath, prefer: Prefer = "best") -> Path:
    """Return the model folder or checkpoint that a path names.

    Args:
        model: a model folder, a checkpoint, or the folder of a run.
        prefer: which of a run's models to use.

    Raises:
        ModelError: there is none.
        RequestError: it is no path.
    """
    if not isinstance(model, str | os.PathLike):
        raise RequestError(
            f"the model is {shorten(model)}",
            expected="the path of a model, a name on the hub, or a model that is loaded",
        )
    path = Path(model)
    if is_model_folder(path) or path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(
            "there is no such model", where=at(path),
            expected="a model folder, a checkpoint (.pt) or a run's folder",
            fix=f"Train one first ({option('manyheads train CONFIG', 'manyheads.train(CONFIG)')}), "
            "or correct the path.",
        )  # fmt: skip
    best = path / BEST if is_model_folder(path / BEST) else None
    if prefer == "best" and best:
        return best
    checkpoint = latest_checkpoint(path)
    if checkpoint or best:
        return checkpoint or path / BEST
    raise ModelError(
        "the folder holds neither a model nor a checkpoint", where=at(path),
        expected="a folder that `manyheads train` wrote",
        fix=f"It holds: {listing(sorted(p.name for p in path.iterdir())) or 'nothing'}.",
    )  # fmt: skip


def latest_checkpoint(folder: StrPath) -> Path | None:
    """Return the checkpoint of the last epoch, or else of the last step, by its name."""
    found = list_checkpoints(folder)
    return max(found, key=lambda file: (file.is_epoch, file.number)).path if found else None


def other_best(checkpoint: Path) -> Path | None:
    """Return the best model of a checkpoint's run, unless it is of the checkpoint's own epoch."""
    best, file = checkpoint.parent / BEST, CheckpointFile.named(checkpoint)
    if file is None or not is_model_folder(best):
        return None
    same = file.is_epoch and file.number == _best_epoch(checkpoint.parent)
    return None if same else best


def logged_epochs(run: Path) -> list[dict[str, Any]]:
    """Return the epochs in a run's metrics log; none if it is missing or damaged."""
    try:
        lines = (run / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return [one for one in entries if one["event"] == "epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _best_epoch(run: Path) -> int | None:
    """Return the run's best epoch by its metrics log, or None if it is missing or damaged."""
    try:
        entries = logged_epochs(run)
        return max(int(one["epoch"]) for one in entries if one.get("best") is True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
