"""Writing a model to a folder: a copy of its files, or the weights of a module that has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from manyheads.errors import RequestError
from manyheads.inference import exported_backends
from manyheads.storage import (
    StrPath,
    atomic_folder,
    explained,
    is_temporary,
    read_manifest,
    refuse_other_folder,
)

if TYPE_CHECKING:
    from torch import nn


def copy_model(source: Path, target: StrPath) -> None:
    """Copy a model folder, whose files are checked first, without the files of running writers.

    Raises:
        RequestError: the target holds something other than a model, or is within the source.
        ModelError: the source is damaged.
        StorageError: the target cannot be written.
    """
    if source.resolve() in Path(target).resolve().parents:
        raise RequestError(
            "is within the folder of the model", where=os.fspath(target),
            expected="a folder elsewhere", fix="Choose another folder.",
        )  # fmt: skip
    read_manifest(source).verify()
    refuse_other_folder(target)
    with atomic_folder(target) as folder:
        shutil.copytree(
            source, folder, dirs_exist_ok=True, copy_function=_copy_file,
            ignore=lambda _, names: set(filter(is_temporary, names)),
        )  # fmt: skip


def _copy_file(source: str, target: str) -> None:
    # Of the system's errors, `copytree` makes a list.
    with explained(source, "copied"):
        shutil.copy2(source, target)


def has_weights_of(module: nn.Module, path: Path) -> bool:
    """Return whether a module's weights are those of a model folder or checkpoint."""
    import torch

    from manyheads.inference.backends.pytorch import load_trained

    if not path.exists():
        return False
    stored, current = load_trained(path).model.state_dict(), module.state_dict()
    return stored.keys() == current.keys() and all(
        torch.equal(tensor, current[name].to(tensor)) for name, tensor in stored.items()
    )


def made_from_weights(folder: Path) -> list[str]:
    """Return what a model folder has that holds for its weights alone, in words."""
    manifest = read_manifest(folder)
    tasks = manifest.calibration.get("tasks", {}).values()
    found = {
        "calibration": bool(tasks),
        "thresholds": any(one.get("thresholds") for one in tasks),
        "scope": "scope" in manifest.calibration,
        "graphs": bool(exported_backends(manifest)),
    }
    return [what for what, is_there in found.items() if is_there]
