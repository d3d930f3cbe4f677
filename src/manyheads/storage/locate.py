"""Where a model is: what a path to a run, a checkpoint or a model folder means."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from manyheads.errors import ModelError, at, listing
from manyheads.storage.atomic import StrPath
from manyheads.storage.manifest import BEST, is_model_folder

Prefer = Literal["best", "latest"]


_CHECKPOINT = re.compile(r"mtl_(epoch|step)(\d+)\.pt")


def resolve_model(model: StrPath, prefer: Prefer = "best") -> Path:
    """Find the model folder or checkpoint that a path means.

    Raises:
        ModelError: it means none.
    """
    path = Path(model)
    if is_model_folder(path) or path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(
            "there is no such model", where=at(path),
            expected="a model folder, a checkpoint (.pt) or a run's folder",
            fix="Train one first (manyheads train CONFIG), or correct the path.",
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


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint of the last epoch, or else of the last step, by its name."""
    found = [
        (match, path) for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))
    ]
    ranked = [(match[1] == "epoch", int(match[2]), path) for match, path in found]
    return max(ranked)[2] if ranked else None
