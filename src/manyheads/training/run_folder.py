"""The files in a run's folder: finding, restoring and removing them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from manyheads.errors import ManyheadsError, ModelError, at, listing, option
from manyheads.modeling import (
    CheckpointContents,
    epoch_path,
    list_checkpoints,
    load_checkpoint,
    load_state,
    newest_intact,
    remove_checkpoints,
)
from manyheads.storage import (
    BEST,
    METRICS_FILE,
    best_of,
    explained,
    is_model_folder,
    read_manifest,
    require_space,
)
from manyheads.training.run import Run
from manyheads.training.state import RunMismatch, differing_keys
from manyheads.training.tensorboard import TENSORBOARD_FOLDER

_LOGS = (METRICS_FILE, TENSORBOARD_FOLDER)


def find_checkpoint(save_dir: Path, report: Callable[[str], None]) -> CheckpointContents | None:
    """Return the newest intact checkpoint, and report the damaged ones that were skipped."""
    intact, refused = newest_intact(save_dir)
    for one in refused:
        report(f"warning: skipped a checkpoint. {one.error}")
    if intact is None:
        if refused:
            raise RunMismatch(
                "no checkpoint is intact", where=at(save_dir),
                fix=f"Start anew with {option('--overwrite')}, or put an intact checkpoint back.",
            )  # fmt: skip
        report(f"There is no checkpoint in {save_dir}; training starts from the beginning.")
        return None
    report(f"Continuing from {intact.path}.")
    return intact.contents


def restore_best(run: Run, report: Callable[[str], None]) -> None:
    """Restore the best models' folders unless they are intact and the selected ones.

    Raises:
        ModelError: the checkpoint to restore one from is missing or damaged.
    """
    if run.state.best.epoch:
        _restore_one(run, BEST, run.state.best.epoch, report)
    for task, best in run.state.best_of.items():
        _restore_one(run, best_of(task), best.epoch, report)


def _restore_one(run: Run, name: str, best: int, report: Callable[[str], None]) -> None:
    folder, metrics = run.save_dir / name, run.metrics_of(best)
    try:
        manifest = read_manifest(folder)
        manifest.verify()
        # Epochs may have equal metrics; earlier versions did not write the epoch.
        same_epoch = manifest.epoch in (best, None)
        same_metrics = manifest.metrics == json.loads(json.dumps(metrics))
        if same_epoch and same_metrics and not differing_keys(run.saved_config, manifest.config):
            return
        report(f"warning: {folder} is not the model of epoch {best}.")
    except ManyheadsError as error:
        report(f"warning: {error}")
    path = epoch_path(run.save_dir, best)
    if not path.exists():
        raise ModelError(
            f"the best model, that of epoch {best}, is missing or damaged",
            where=at(folder), expected=f"its folder, or {path.name} to write it from",
            fix=f"Put one of them back, or start anew with {option('--overwrite')}.",
        )  # fmt: skip
    contents = load_checkpoint(path)
    present = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.load_model(contents, at(path))
    run.save_best(best, name)
    load_state(run.model, present, at(path))
    report(f"Wrote {folder} again from the checkpoint of epoch {best}.")


def refuse_other_run(save_dir: Path, resume: bool) -> None:
    """Refuse to start a run in a folder with another run's files.

    Args:
        save_dir: the folder.
        resume: whether logs are allowed: a run that ended before its first checkpoint leaves
            only these.

    Raises:
        RunMismatch: there are such files.
    """
    others = [path for path in _beside_checkpoints(save_dir) if path.exists()]
    if resume:
        others = [path for path in others if path.name not in _LOGS]
    remains = [*(file.path for file in list_checkpoints(save_dir)), *others]
    if remains:
        first = "R" if resume else f"Continue that run with {option('--resume')}, r"
        raise RunMismatch(
            f"the folder holds another run ({listing(path.name for path in remains)})",
            where=at(save_dir), expected="a new or empty `save_dir`",
            fix=f"{first}eplace it with {option('--overwrite')}, or choose another `save_dir`.",
        )  # fmt: skip


def require_room(run: Run) -> None:
    """Refuse to train where the first checkpoint will not fit, which an epoch would be lost for.

    What `remove_run` removes makes room for it.

    Raises:
        StorageError: the disk has too little free space.
    """
    removed = 0
    if not run.state.step:
        paths = [*(file.path for file in list_checkpoints(run.save_dir))]
        for path in (*paths, *_beside_checkpoints(run.save_dir)):
            removed += sum(p.stat().st_size for p in (path, *path.rglob("*")) if p.is_file())
    require_space(run.save_dir, run.least_bytes() - removed, "a checkpoint")


def remove_run(save_dir: Path) -> None:
    """Remove a run's checkpoints, log and best models.

    Raises:
        StorageError: one could not be removed.
    """
    remove_checkpoints(save_dir)
    for path in _beside_checkpoints(save_dir):
        with explained(path, "removed"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _beside_checkpoints(save_dir: Path) -> list[Path]:
    for_tasks = sorted(path for path in save_dir.glob(best_of("*")) if is_model_folder(path))
    return [save_dir / BEST, *for_tasks, *(save_dir / name for name in _LOGS)]
