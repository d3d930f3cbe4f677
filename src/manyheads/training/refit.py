"""Refitting: a finished run once more, on all of its labelled records.

The records that it was validated on are learned from too, so nothing is left to choose an epoch by,
or to score the model on: the settings and the number of epochs are those that the run chose, and
the figures and the calibration are those of its best model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.config import Config, load_config, stored_config
from manyheads.data.all_records import AllRecords
from manyheads.data.hold_out import FOLDER, LAYOUT
from manyheads.data.own_files import located
from manyheads.errors import ConfigError, RequestError, at, counted, option, shorten
from manyheads.modeling import list_checkpoints
from manyheads.storage import (
    CONFIG_FILE,
    Manifest,
    StrPath,
    is_model_folder,
    logged_epochs,
    read_manifest,
    resolve_model,
)
from manyheads.tasks import TaskSpec
from manyheads.training.epochs import is_complete
from manyheads.training.kept_scope import KeptScope
from manyheads.training.state import RunMismatch

SAVE_DIR = "refitted"
"""The folder of the new run, unless another one is named."""

STATE = "before_refit"
"""The key of a checkpoint with what is known of the model before."""

_OWN = (
    "save_dir", "files", "train_file", "valid_file", "tasks", "early_stopping",
    "keep_best_per_task", "best_metric", "best_weights", "num_classes", "num_ner_labels",
    "hold_out", "hold_out_seed", *LAYOUT,
)  # fmt: skip
"""Settings that are not those of the run before."""


def refit_config(model: StrPath, settings: Mapping[str, Any], *, resume: bool = False) -> Config:
    """Return the configuration of a run that repeats another one on all of its labelled records.

    Args:
        model: the folder of a run, or of its best model.
        settings: fields of the configuration that say where and how the new run computes.
        resume: whether a run in the folder is continued.

    Raises:
        RequestError: it is not the best model of a run, or has learned from all records already;
            or the run in the folder is another one.
        ModelError: it is damaged or missing.
        ConfigError: a setting is not allowed.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    save_dir = os.fspath(given.setdefault("save_dir", SAVE_DIR))
    kept = Path(save_dir) / CONFIG_FILE
    if resume and kept.exists() and list_checkpoints(Path(save_dir)):
        stored = load_config(kept, stored=True)
        _refuse_other(stored, model)
        # Its folder may have been moved.
        files = {
            f"tasks.{name}.{key}": str(Path(save_dir, FOLDER, Path(getattr(task, key)).name))
            for name, task in stored.tasks.items()
            for key in ("train_file", "valid_file")
        }
        return load_config(kept, {**given, **files}, stored=True)
    manifest = _best_model(model)
    before = located(stored_config(manifest.config), manifest.folder)
    # A run that starts from a trained model takes over what is not set.
    values = before.model_dump(exclude_defaults=before.init_from is None)
    own = {
        "tasks": AllRecords.of_run(before, save_dir).tasks_of(before),
        "num_epochs": manifest.epoch,
        "refit": os.fspath(model),
    }
    taken = {k: v for k, v in values.items() if k not in _OWN and v is not None}
    return load_config(None, {**taken, **given, **own}, stored=resume)


def _refuse_other(stored: Config, model: StrPath) -> None:
    """Refuse to resume a run that does not refit a model.

    Raises:
        RunMismatch: it is no such run, or refits another model; one that is gone may have moved.
    """
    known = stored.refit
    if known is not None and not (Path(known).exists() and Path(model).exists()):
        return
    if known is None or resolve_model(known).resolve() != resolve_model(model).resolve():
        raise RunMismatch(
            "the folder holds another run" + (f", which refits {known}" if known else ""),
            where=at(stored.save_dir),
            expected=f"a run that refits {os.fspath(model)}",
            fix=f"Replace it with {option('--overwrite')}, or choose another `save_dir`.",
        )


def _best_model(model: StrPath) -> Manifest:
    """Return the manifest of a run's best model.

    Raises:
        RequestError: it is something else.
        ModelError: it is damaged or missing.
    """
    path = resolve_model(model)
    if not is_model_folder(path):
        raise RequestError(
            "a checkpoint is not the best model of a run",
            where=at(path),
            expected="the folder of a finished run, or of its best model",
            fix="Name the folder.",
        )
    manifest = read_manifest(path)
    if manifest.config.get("refit") is not None:
        raise RequestError(
            "the model has learned from all labelled records of its run already",
            where=at(path),
            expected=f"the run before: {manifest.config['refit']}",
            fix="Name that run; or add records to its data, and train anew.",
        )
    if manifest.epoch is None:
        raise RequestError(
            "no run has chosen this model: its epoch is not known",
            where=at(path),
            expected="the best model of a run; an earlier version wrote none, and a model with "
            "labels that were added is not one",
            fix="Train on your records anew, and refit that run.",
        )
    return manifest


def write_all_records(config: Config, report: Callable[[str], None]) -> None:
    """Write the files of a run on all records.

    Args:
        config: the run, with `refit`.
        report: receives messages for the user.

    Raises:
        ConfigError: it names other files than those that are written.
        RequestError: the new run would replace the one before, or that is not a run's best model.
        ModelError: the model before is damaged or missing.
        DataError: records cannot be read.
    """
    manifest = _best_model(str(config.refit))
    if Path(config.save_dir).resolve() in manifest.folder.resolve().parents:
        raise RequestError(
            f"the model before ({manifest.folder}) lies in `save_dir` ({config.save_dir}), where a "
            "new run replaces what is there",
            fix="Choose another `save_dir`.",
        )
    before = located(stored_config(manifest.config), manifest.folder)
    records = AllRecords.of_run(before, config.save_dir)
    written = {one.path.resolve() for one in (*records.training, *records.validation)}
    named = {Path(path).resolve() for path in (*config.train_files(), *config.valid_files())}
    if named != written:
        raise ConfigError(
            f"`refit` is {shorten(config.refit)}, and the data files are others than those that "
            "such a run writes",
            expected=f"files in {Path(config.save_dir, FOLDER)}",
            fix=f"Use {option('`manyheads refit`', 'manyheads.refit')}, which names them.",
        )
    count = records.write(before, manifest.folder)
    epochs = logged_epochs(manifest.folder.parent)
    has_logged = any(e["best"] and e["epoch"] == manifest.epoch for e in epochs)
    if has_logged and not is_complete(before, len(epochs), epochs):
        report(
            f"warning: the run before has {counted(len(epochs), 'epoch')} of {before.epochs}; this "
            f"one has {counted(config.epochs, 'epoch')}, as the best model so far."
        )
    report(
        f"Training on all {counted(count, 'record')} of {config.refit}, those included that it was "
        "validated on: nothing is left to score this model on."
    )


def warn_if_learned(model: str, trained: Config, report: Callable[[str], None]) -> None:
    """Warn if a model that a run learns from has learned from its own validation records.

    Args:
        model: the model, in words.
        trained: the configuration that it was trained with.
        report: receives the message.
    """
    if trained.refit is not None:
        report(
            f"warning: {model} has learned from all records of {trained.refit}, those included "
            "that it was validated on. If validation records of this run are among them, its "
            "scores are too high."
        )


@dataclass(frozen=True)
class Earlier:
    """What is known of the model before, which learned from fewer records."""

    tasks: tuple[Mapping[str, Any], ...]
    """Each task, as `TaskSpec.to_json` writes it."""
    metrics: Mapping[str, Any]
    """Its scores on the validation data."""
    calibration: Mapping[str, Any]
    """As its manifest has it."""
    scope: KeptScope | None

    @classmethod
    def of_config(cls, config: Config) -> Earlier:
        """Read the model before.

        Raises:
            RequestError, ModelError: it is not a run's best model, damaged or missing.
        """
        manifest = _best_model(str(config.refit))
        specs = [TaskSpec.from_json(task) for task in manifest.tasks]
        scope = KeptScope.of_model(manifest, specs)
        return cls(manifest.tasks, manifest.metrics, manifest.calibration, scope)

    @classmethod
    def of_state(cls, values: Mapping[str, Any]) -> Earlier:
        """Restore what `state` returned."""
        # Checkpoints of an earlier version have the scope's source in its entry alone.
        entry = values["calibration"].get("scope", {})
        scope = KeptScope.of_state(values["scope"] and {**entry, **values["scope"]})
        return cls(tuple(values["tasks"]), values["metrics"], values["calibration"], scope)

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors for a checkpoint."""
        return {
            "tasks": [dict(task) for task in self.tasks],
            "metrics": dict(self.metrics),
            "calibration": dict(self.calibration),
            "scope": self.scope and self.scope.state(),
        }
