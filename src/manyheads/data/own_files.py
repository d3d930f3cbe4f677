"""The data files of a trained model's run: where they are now, and whether they may be opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from manyheads.config import Config, stored_config
from manyheads.data.readers import Layout, is_dataset_name, is_in_memory, without_split
from manyheads.data.records import Record, read_records
from manyheads.errors import RequestError, option
from manyheads.storage import BEST, StrPath
from manyheads.tasks import LabelSet

_FILES = ("train_file", "valid_file", "files")


def located(config: Config, model: StrPath) -> Config:
    """Return a model's configuration that names the data in and beside its run's folder where they
    are now.

    A run's folder may have been moved or copied since it was trained, and another run may have
    taken its place. Data that were beside it are looked for there only if they are no longer where
    they were: in another project, files of the same names would be other data. Relative paths do
    not tell where they were, so these data are looked for there first.

    Args:
        config: the configuration that the model was trained with.
        model: the model's folder or checkpoint.
    """
    values = config.model_dump(exclude_unset=True)
    found = locate(values, model)
    return config if found == values else stored_config(found)


def moved_config(config: Config, model: StrPath, save_dir: StrPath) -> Config:
    """Return a model's configuration for a model made of it that is saved in another folder.

    It names the same data by absolute paths. If some of them may not be opened, it is unchanged,
    since a model in its own `save_dir` may open whatever its configuration names.

    Args:
        config: the configuration that the model was trained with.
        model: the model's folder or checkpoint.
        save_dir: the folder of the new model.
    """
    paths: list[str] = []

    def place(path: str) -> str:
        if is_dataset_name(path) or is_in_memory(path):
            return path
        paths.append(path)
        # Not resolved: the ending of a symbolic link tells the format.
        return os.fspath(Path(path).absolute())

    values = _placed(located(config, model).model_dump(exclude_unset=True), place)
    if not all(may_open(path, config, model) for path in paths):
        return config
    return stored_config({**values, "save_dir": os.fspath(Path(save_dir).resolve())})


def locate(values: dict[str, Any], model: StrPath) -> dict[str, Any]:
    """Return the values of a configuration with the paths of `located`."""
    saved = Path(values.get("save_dir") or Config.model_fields["save_dir"].default).absolute()
    run = run_folder(model)
    if run == saved.resolve():
        return values

    def place(path: str) -> str:
        if is_dataset_name(path) or os.path.relpath(path, saved / "..").startswith(".."):
            return path
        was_elsewhere = Path(path).is_absolute() and not _is_in(path, saved)
        if was_elsewhere and Path(without_split(path)[0]).exists():
            return path
        there = os.path.normpath(run / os.path.relpath(path, saved))
        return there if Path(without_split(there)[0]).exists() else path

    return _placed(values, place)


def _placed(values: dict[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """Return the values of a configuration with other paths of data, for the tasks too."""

    def other(path: Any) -> Any:
        if isinstance(path, list | tuple):
            return type(path)(map(other, path))
        return None if path is None else place(os.fspath(path))

    def placed(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: other(v) if k in _FILES else v for k, v in fields.items()}

    tasks = {name: placed(task) for name, task in (values.get("tasks") or {}).items()}
    return placed(values) | ({"tasks": tasks} if tasks else {})


def may_open(path: str, config: Config, model: StrPath) -> bool:
    """Return whether data that only a model's configuration names may be opened.

    A model may come from anywhere. The data may be opened if the model is in the folder in which
    its run saved it, or the data are in the parent of the run's folder. A data set on a hub may
    not.

    Args:
        path: the data.
        config: the configuration that the model was trained with.
        model: the model's folder or checkpoint.
    """
    if is_dataset_name(path):
        return False
    run = run_folder(model)
    return run == Path(config.save_dir).resolve() or _is_in(Path(path).resolve(), run.parent)


def training_records(
    config: Config, label_sets: Mapping[str, LabelSet], model: StrPath
) -> Iterator[Record]:
    """Read a model's training data, without files that are missing or may not be opened unasked.

    Args:
        config: the configuration that the model was trained with.
        label_sets: the labels of the tasks to read. Records may have others.
        model: the model's folder or checkpoint.

    Raises:
        DataError: a record cannot be read.
    """
    for path, tasks in located(config, model).train_files().items():
        settings = {name: config.tasks[name] for name in tasks if name in label_sets}
        is_there = Path(without_split(path)[0]).exists()
        if settings and is_there and may_open(path, config, model):
            yield from read_records(
                path, settings, label_sets, layout=Layout.of(config), allow_unseen=True
            )


def refuse_layout_alone(
    layout: Layout | None,
    data: StrPath | None,
    *,
    name: str = "",
    otherwise: str = ": the validation files are read as the model's configuration says",
) -> None:
    """Do nothing unless a layout is given without the data that it is for.

    Args:
        layout: the layout.
        data: the data.
        name: the option that names the data; default, that of a file to score on.
        otherwise: what happens without data, for the message.

    Raises:
        RequestError: it is.
    """
    if data is None and layout not in (None, Layout()):
        raise RequestError(
            "the layout of a file is given, but no file",
            expected=f"both or neither{otherwise}",
            fix=f"Name the file: {name or option('--file FILE', '`data`')}.",
        )


def run_folder(model: StrPath) -> Path:
    """Return the folder of the run that a model folder or checkpoint belongs to."""
    path = Path(model).resolve()
    return path if path.is_dir() and not path.name.startswith(BEST) else path.parent


def _is_in(path: StrPath, folder: Path) -> bool:
    return Path(path).absolute().is_relative_to(folder)
