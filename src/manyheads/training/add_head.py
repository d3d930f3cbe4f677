"""Adding a task to a trained model: a training run that leaves everything else as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyheads.config import Config, load_config
from manyheads.errors import RequestError, at, listing, shorten
from manyheads.modeling import load_checkpoint
from manyheads.storage import StrPath, read_manifest, resolve_model


def add_head_config(
    model: StrPath, task: str, task_settings: Mapping[str, Any], settings: Mapping[str, Any]
) -> Config:
    """Make the configuration of a run that adds a task to a trained model.

    Args:
        model: the trained model: a model folder, a checkpoint or a run's folder.
        task: what the new task is called.
        task_settings: its `kind` and whatever else it needs.
        settings: fields of the configuration, and dotted keys. Unless `freeze` is among them, the
            encoder is frozen.

    Raises:
        RequestError: the model has a task of this name, or a setting is not for this.
        ConfigError: a setting is not allowed.
    """
    for key in ("init_from", "tasks"):
        if key in settings:
            raise RequestError(
                f"`{key}` is set to {shorten(settings[key])}",
                expected="the model and the new task to say that",
                fix="Leave it out, or use `manyheads train`.",
            )
    own = {"tasks": {task: dict(task_settings)}, "init_from": os.fspath(model)}
    config = load_config(None, {"freeze": "encoder", **settings, **own})
    # A run that is resumed does without the model.
    known = task_names(resolve_model(model)) if Path(model).exists() else []
    if task in known:
        raise RequestError(
            f"the model has a task {task!r} already", where=at(model),
            expected=f"another name than: {listing(known)}",
            fix="To go on training that head, use `manyheads train` with `init_from`.",
        )  # fmt: skip
    return config


def task_names(path: Path) -> list[str]:
    """Return the names of the tasks of a model folder or checkpoint.

    Raises:
        ModelError: it is damaged.
    """
    tasks = read_manifest(path).tasks if path.is_dir() else load_checkpoint(path).tasks
    return [str(task["name"]) for task in tasks]
