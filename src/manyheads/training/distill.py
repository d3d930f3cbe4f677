"""Distilling a trained model: the configuration of a student, made from its teacher's."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.config import Config, is_soft_file, load_config, unread_settings
from manyheads.data.hold_out import LAYOUT
from manyheads.data.own_files import locate
from manyheads.errors import RequestError, at, listing, option, shorten
from manyheads.modeling import load_checkpoint
from manyheads.storage import StrPath, read_manifest, resolve_model

SAVE_DIR = "distilled"
"""The student's folder, unless another one is named."""

# A student is a run of its own.
_OWN = ("save_dir", "init_from", "teacher", "student_layers", "files", "lora", "refit")
# An encoder that is not the teacher's has to learn.
_OF_ENCODER = ("freeze", "unfreeze_every")
_FILES = ("train_file", "valid_file")


def distill_config(
    teachers: Sequence[StrPath],
    texts: StrPath | None,
    settings: Mapping[str, Any],
    *,
    resume: bool = False,
) -> Config:
    """Return the configuration of a run whose student learns from trained models.

    Tasks, data and all settings are those of the first trained model among the teachers, apart from
    tasks that it inherited itself, whose data it does not name, and settings that the student would
    not read. A number of epochs that is set is not cut short by the teacher's `early_stopping`,
    data that are set replace those of all tasks, and an encoder other than the one that the teacher
    started from is not frozen unless that is set.

    Args:
        teachers: model folders, checkpoints, runs' folders, or files of soft labels.
        texts: unlabelled sentences, or None.
        settings: fields of the configuration, and dotted keys, which take precedence.
        resume: whether a run in the folder is continued.

    Raises:
        RequestError: no teacher is a trained model, a setting is set by this verb, or the first
            teacher has learned from its validation records and no others are named.
        ModelError: a teacher is damaged or missing.
        ConfigError: a setting is not allowed.
    """
    for key in ("init_from", "teacher", "teacher.sources", "teacher.texts"):
        if key in settings:
            raise RequestError(
                f"`{key}` is set to {shorten(settings[key])}",
                expected="a value taken from the arguments",
                fix=f"Leave it out, or use {option('`manyheads train`', 'manyheads.train')}.",
            )
    sources = [os.fspath(path) for path in teachers]
    teacher = resolve_model(_first_model(sources))
    values = locate(dict(trained_values(teacher)), teacher)
    _refuse_seen(values, teacher, settings)
    kept = _kept(values, settings)
    learned = {"sources": sources, "texts": None if texts is None else os.fspath(texts)}
    own = {**settings, "teacher": learned}
    merged = load_config(None, {**kept, **own}, stored=True)
    kept = {"save_dir": SAVE_DIR, **_without(kept, unread_settings(merged))}
    return load_config(None, {**kept, **own}, stored=resume)


def _first_model(teachers: Sequence[str]) -> str:
    """Return the first trained model among the teachers.

    Raises:
        RequestError: there is none.
    """
    for path in teachers:
        if not is_soft_file(path):
            return path
    raise RequestError(
        f"no teacher is a trained model ({listing(teachers) or 'there is none'})",
        expected="a model whose tasks and data the student has too",
        fix="Name one, or use "
        + option(
            "`manyheads train CONFIG --teacher FILE`", "`manyheads.train(CONFIG, teacher=FILE)`"
        )
        + ".",
    )


def _refuse_seen(values: Mapping[str, Any], teacher: Path, settings: Mapping[str, Any]) -> None:
    """Refuse the data of a teacher whose training records are its validation records too.

    Raises:
        RequestError: the student would have no others.
    """
    given = {name.replace("-", "_") for name, value in settings.items() if value is not None}
    if values.get("refit") is not None and not given.issuperset(_FILES):
        raise RequestError(
            "the teacher has learned from all labelled records of its run, and a student with the "
            "same data has none to be validated on",
            where=at(teacher),
            expected="`train_file` and `valid_file`; or as the first teacher the model before: "
            f"{values['refit']}",
            fix="Name the model before first, and refit the student.",
        )


def _kept(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a student keeps of its teacher's configuration beside its own settings."""
    given = {name.replace("-", "_"): v for name, v in settings.items() if v is not None}
    not_kept = {*_OWN, *(_OF_ENCODER if _has_other_encoder(values, given) else ())}
    kept = {
        name: value for name, value in values.items() if name not in not_kept and value is not None
    }
    kept["tasks"] = {
        name: _kept_task(task, given)
        for name, task in values["tasks"].items()
        if not task.get("carried")
    }
    if {"num_epochs", "epochs"} & given.keys():
        kept.pop("early_stopping", None)
    return kept


def _without(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a configuration's values without those at some keys, dotted in sections."""
    return {
        name: {key: one for key, one in value.items() if f"{name}.{key}" not in keys}
        if isinstance(value, Mapping)
        else value
        for name, value in values.items()
        if name not in keys
    }


def _has_other_encoder(values: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Return whether the student starts from another encoder than its teacher did.

    It starts from a pretrained one, also if the teacher continued a trained model.
    """
    model = os.fspath(given.get("model_name", values["model_name"]))
    continued = values.get("init_from") is not None
    return continued or model != values["model_name"] or "student_layers" in given


def _kept_task(task: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Return a teacher's task without its files in place of which others are given.

    Args:
        task: the task's section of the configuration.
        given: the settings that are given.
    """
    kept = {key: value for key, value in task.items() if value is not None and key != "frozen"}
    files = [key for key in _FILES if key in kept]
    dropped = [key for key in files if key in given]
    if dropped and dropped == files:
        dropped += LAYOUT
    return {key: value for key, value in kept.items() if key not in dropped}


def trained_values(path: Path) -> Mapping[str, Any]:
    """Return the configuration that a model folder or checkpoint was trained with."""
    return read_manifest(path).config if path.is_dir() else load_checkpoint(path).config
