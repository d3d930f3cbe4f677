"""Adding a task to a trained model: a warm start that leaves everything else unchanged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyheads.config import Config, load_config
from manyheads.errors import RequestError, at, listing, option, shorten
from manyheads.modeling import load_checkpoint
from manyheads.storage import StrPath, read_manifest, resolve_model


def add_head_config(
    model: StrPath,
    task: str,
    settings: Mapping[str, Any],
    *,
    kind: str,
    train_file: StrPath,
    valid_file: StrPath | None = None,
    field: str | None = None,
    task_settings: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Config:
    """Return the configuration of a run that adds a task to a trained model.

    Args:
        model: the trained model: a model folder, a checkpoint or a run's folder.
        task: the new task's name.
        settings: fields of the configuration, and dotted keys. The encoder is frozen unless
            `freeze` is among them.
        kind, train_file, valid_file, field: of the new task; None: its default.
        task_settings: other fields of the task.
        resume: whether a run in the folder is continued.

    Raises:
        RequestError: the model has a task of this name, or a setting cannot be combined with it.
        ConfigError: a setting is not allowed.
    """
    own_fields = option(f"`--set tasks.{task}.KEY=VALUE`", "`task_settings={KEY: VALUE}`")
    otherwise = {"init_from": "", "tasks": f", set fields of the new task with {own_fields}"}
    for key, instead in otherwise.items():
        if key in settings:
            raise RequestError(
                f"`{key}` is set to {shorten(settings[key])}",
                expected="a value taken from the model and the new task",
                fix=f"Leave it out{instead}, or use "
                f"{option('`manyheads train`', 'manyheads.train')}.",
            )
    given = {"kind": kind, "train_file": train_file, "valid_file": valid_file, "field": field}
    given = {name: value for name, value in given.items() if value is not None}
    own = {"tasks": {task: {**(task_settings or {}), **given}}, "init_from": os.fspath(model)}
    config = load_config(None, {"freeze": "encoder", **settings, **own}, stored=resume)
    # A resumed run does not need the model.
    known = task_names(resolve_model(model)) if Path(model).exists() else []
    if task in known:
        raise RequestError(
            f"the model has a task {task!r} already", where=at(model),
            expected=f"another name than: {listing(known)}",
            fix="To continue training that head, use "
            f"{option('`manyheads train`', 'manyheads.train')} with `init_from`.",
        )  # fmt: skip
    return config


def task_names(path: Path) -> list[str]:
    """Return the names of the tasks of a model folder or checkpoint.

    Raises:
        ModelError: it is damaged.
    """
    tasks = read_manifest(path).tasks if path.is_dir() else load_checkpoint(path).tasks
    return [str(task["name"]) for task in tasks]
