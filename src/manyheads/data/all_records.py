"""All labelled records of a run in files of another one: those that it learned from, and those that
it was validated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manyheads.config import Config, TaskConfig
from manyheads.data.hold_out import FOLDER, LAYOUT, TRAIN, VALID, rows_of, wanted_fields, write_rows
from manyheads.data.own_files import may_open
from manyheads.data.readers import Layout, Row, is_dataset_name, without_split
from manyheads.data.records import discover_labels
from manyheads.errors import DataError, at
from manyheads.storage import StrPath, explained


@dataclass(frozen=True)
class JoinedFile:
    """A file of a new run, and the files of the run before whose records it has."""

    path: Path
    tasks: tuple[str, ...]
    """The tasks that read it."""
    parts: Mapping[str, tuple[str, ...]]
    """Each file whose records it has, with the tasks whose labels are kept."""


@dataclass(frozen=True)
class AllRecords:
    """The files of a run on all records."""

    training: tuple[JoinedFile, ...]
    """All labelled records."""
    validation: tuple[JoinedFile, ...]
    """Those among them on which the run before was validated."""

    @classmethod
    def of_run(cls, config: Config, save_dir: StrPath) -> AllRecords:
        """Return the files of a run on all records of another one.

        Args:
            config: the configuration of the run before, with its data where they are now.
            save_dir: the folder of the new run.
        """
        folder = Path(save_dir) / FOLDER
        trained = config.train_files()
        validated = {
            path: own
            for path, names in config.valid_files().items()
            if (own := tuple(name for name in names if not config.tasks[name].carried))
        }
        training = []
        for path, names in trained.items():
            parts = {path: names}
            for other, own in validated.items():
                if both := tuple(name for name in names if name in own):
                    parts[other] = tuple(dict.fromkeys((*parts.get(other, ()), *both)))
            training.append(JoinedFile(_named(folder, trained, names, TRAIN), names, parts))
        validation = (
            JoinedFile(_named(folder, validated, names, VALID), names, {path: names})
            for path, names in validated.items()
        )
        return cls(tuple(training), tuple(validation))

    def tasks_of(self, config: Config) -> dict[str, dict[str, Any]]:
        """Return the settings of the run's tasks, with the new files in place of the old ones.

        Args:
            config: the configuration of the run before.
        """
        files: dict[str, dict[str, str]] = {}
        for key, joined in (("train_file", self.training), ("valid_file", self.validation)):
            for one in joined:
                for name in one.tasks:
                    files.setdefault(name, {})[key] = str(one.path)
        return {
            name: _settings(task, with_defaults=config.init_from is not None) | files[name]
            for name, task in _trained(config).items()
        }

    def write(self, config: Config, model: StrPath) -> int:
        """Write the files, and return the number of different records in them.

        Args:
            config: the configuration of the run before, with its data where they are now.
            model: its model.

        Raises:
            DataError: a file is missing, may not be opened unasked, or cannot be read; or labels
                that only validation records have do not fit a task.
            StorageError: a file cannot be written.
        """
        for joined in (*self.training, *self.validation):
            for path in joined.parts:
                _check_readable(path, config, model)
        # Here, so that a message names the user's file.
        discover_labels(_trained(config), self._sources(), Layout.of(config))
        seen: set[str] = set()
        for one in (*self.training, *self.validation):
            with explained(one.path.parent):
                one.path.parent.mkdir(parents=True, exist_ok=True)
            wanted = wanted_fields({name: config.tasks[name] for name in one.tasks})
            write_rows(one.path, _rows(one, config, seen), wanted)
        return len(seen)

    def _sources(self) -> dict[str, tuple[str, ...]]:
        """Return each file of the run before with the tasks that learn from it now."""
        found: dict[str, tuple[str, ...]] = {}
        for joined in self.training:
            for path, names in joined.parts.items():
                found[path] = tuple(dict.fromkeys((*found.get(path, ()), *names)))
        return found


def _trained(config: Config) -> dict[str, TaskConfig]:
    return {name: task for name, task in config.tasks.items() if not task.carried}


def _rows(joined: JoinedFile, config: Config, seen: set[str]) -> Iterator[Row]:
    """Yield the rows of all parts, each with the labels that are kept of it; note their places."""
    for path, names in joined.parts.items():
        tasks = {name: config.tasks[name] for name in names}
        wanted = wanted_fields(tasks)
        for row in rows_of([path], Layout.of(config).reading(tasks)):
            seen.add(row.where)
            yield replace(row, fields={k: v for k, v in row.fields.items() if k in wanted})


def _named(folder: Path, files: Mapping[str, object], names: tuple[str, ...], name: str) -> Path:
    """Return the path of a joined file: the name alone if there is one file, as for all tasks."""
    return folder / (name if len(files) == 1 else f"{names[0]}.{name}")


def _settings(task: TaskConfig, *, with_defaults: bool) -> dict[str, Any]:
    """Return a task's settings for files in the standard layout."""
    values = task.model_dump(exclude_defaults=not with_defaults)
    kept = {k: v for k, v in values.items() if k not in LAYOUT and v is not None}
    return {"kind": task.kind, **kept}


def _check_readable(path: str, config: Config, model: StrPath) -> None:
    """Refuse a file that is not there, or that only the model's configuration names.

    Raises:
        DataError: it is one.
    """
    if is_dataset_name(path):
        raise DataError(
            f"the run before has learned from {path}, a data set of the `datasets` library",
            where=at(model),
            expected="files",
            fix="Train on files of it, and refit that run.",
        )
    if not Path(without_split(path)[0]).exists():
        raise DataError(
            "the data that the model was trained and validated on are not all there",
            where=path,
            expected="the files of its run, where they were",
            fix="Put it back, or train on your records anew, and refit that run.",
        )
    if not may_open(path, config, model):
        raise DataError(
            "the model's configuration names this file as its data",
            where=path,
            expected="a model in the folder of its run, or data beside it, because a model may "
            "come from anywhere",
            fix="Train on your records anew, and refit that run.",
        )
