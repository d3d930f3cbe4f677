"""The configuration of a run, and the validation data that it holds out before it trains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.config import Config, TaskConfig, load_config, write_config
from manyheads.data.hold_out import (
    FOLDER,
    LAYOUT,
    TRAIN,
    VALID,
    are_parts,
    splits_of,
    with_parts,
    write_parts,
)
from manyheads.data.infer_tasks import InferredTasks
from manyheads.data.readers import Layout, is_in_memory
from manyheads.data.starting_config import split_paths, starting_config
from manyheads.errors import ManyheadsError, RequestError, at, listing, option
from manyheads.modeling import list_checkpoints
from manyheads.storage import CONFIG_FILE, explained
from manyheads.training.refit import write_all_records
from manyheads.training.run_folder import refuse_other_run
from manyheads.training.state import RunMismatch

_KEPT, _OBSOLETE = ".replaced", ".replaced.obsolete"
"""Folders in `save_dir` with what a starting run replaces, until it is ready to train and after."""


@dataclass(frozen=True)
class RunConfig:
    """The configuration that the arguments of `train` stand for."""

    config: Config
    source: str
    """Its origin, in words."""
    found: InferredTasks | None = None
    """What was found in the files, if the tasks were inferred from them."""


def run_config(paths: Sequence[str], overrides: Mapping[str, Any], *, resume: bool) -> RunConfig:
    """Return the configuration in a YAML file, or one inferred from data files.

    A resumed run on data files has the configuration in its folder.

    Args:
        paths: one YAML file, or data files.
        overrides: settings that take precedence.
        resume: whether a run in the folder is continued.

    Raises:
        ManyheadsError: a file cannot be read, the tasks are not clear, or a setting is not allowed.
    """
    config, files = split_paths(paths)
    if config is None and resume:
        save_dir = Path(load_config(None, _save_dir_of(overrides)).save_dir)
        kept = save_dir / CONFIG_FILE
        config = kept if kept.exists() else None
        if config is not None:
            overrides = _refining(config, overrides)
        if config is None and not files:
            raise RequestError(
                f"there is no {CONFIG_FILE} of a run to resume",
                where=at(save_dir),
                expected="a run that was started with data files",
                fix="Name the configuration: "
                + option("manyheads train CONFIG --resume", "manyheads.train(CONFIG, resume=True)")
                + ".",
            )
    if config is not None:
        chosen = load_config(config, overrides, stored=resume)
        if files:
            _refuse_other_data(files, chosen, overrides)
        return RunConfig(chosen, f"Configuration: {config}")
    chosen, found = starting_config(files, overrides)
    return RunConfig(chosen, f"Data: {listing(files)}", found)


def _refining(config: Path, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return overrides whose `tasks` refine those of a run's folder, if they name the same ones.

    The run added settings of its own to the tasks that it was started with.
    """
    tasks = overrides.get("tasks")
    if not isinstance(tasks, Mapping):
        return overrides
    tasks = {
        name: task.model_dump(exclude_unset=True) if isinstance(task, TaskConfig) else task
        for name, task in tasks.items()
    }
    if not all(isinstance(task, Mapping) for task in tasks.values()):
        return overrides
    if tasks.keys() != load_config(config, stored=True).tasks.keys():
        return overrides
    fields = {f"tasks.{name}.{key}": v for name, task in tasks.items() for key, v in task.items()}
    return fields | {key: value for key, value in overrides.items() if key != "tasks"}


def _refuse_other_data(files: Sequence[str], run: Config, overrides: Mapping[str, Any]) -> None:
    """Refuse data files, or records in memory, other than those of the run that is resumed.

    A file of the same name may have changed, or be elsewhere now: the run keeps its own copy.

    Raises:
        RunMismatch: they are others.
    """
    if not any(map(is_in_memory, files)):
        own = run.files or [*run.train_files()]
        if sorted(Path(path).name for path in own) != sorted(Path(path).name for path in files):
            raise _other_data(files, listing(own))
        return
    layout = Layout.of(load_config(None, {k: v for k, v in overrides.items() if k in LAYOUT}))
    folder = Path(run.save_dir) / FOLDER
    train, valid = folder / TRAIN, folder / VALID
    kept = run.files is None and train.exists() and valid.exists()
    if not kept or not are_parts(files, train, valid, run.tasks, layout):
        raise _other_data(files, str(folder))


def _other_data(files: Sequence[str], own: str) -> RunMismatch:
    return RunMismatch(
        f"the run was started with other data than {listing(files)}",
        expected=f"the data that it was started with ({own})",
        fix="Leave them out to go on with its own, or start anew with "
        f"{option('--overwrite')} or another `save_dir`.",
    )


def _save_dir_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides that set the run's folder, under any of its names."""
    names = ("save_dir", "save-dir", "checkpoint_dir", "checkpoint-dir")
    return {name: overrides[name] for name in names if name in overrides}


def read_files(
    config: Config, *, resume: bool, overwrite: bool, report: Callable[[str], None]
) -> None:
    """Hold out the validation data that a configuration lacks, and keep both parts.

    A resumed run keeps the parts that it began with.

    Args:
        config: the run; nothing is done if it names its validation data.
        resume: whether a run in the folder is continued.
        overwrite: whether it is replaced.
        report: receives messages for the user.

    Raises:
        RequestError: the folder holds another run, or the resumed one has other records.
        DataError: a record cannot be read or does not fit its tasks, or there are too few.
    """
    save_dir = Path(config.save_dir)
    if config.refit is not None:
        # Before the first checkpoint there is nothing to resume, and the run begins anew.
        if resume and list_checkpoints(save_dir):
            report(f"The data are those that the run was started with: {save_dir / FOLDER}")
            return
        if not overwrite:
            refuse_other_run(save_dir, resume)
        write_all_records(config, report)
        _write_config(config, save_dir, report)
        return
    splits = splits_of(config)
    if not splits:
        return
    if resume and all(split.is_written for split in splits):
        for one in splits:
            tasks = {name: config.tasks[name] for name in one.tasks}
            own = one.train, one.valid
            if any(map(is_in_memory, one.files)) and not are_parts(
                one.files, *own, tasks, Layout.of(config)
            ):
                raise _other_data(one.files, str(one.train.parent))
        kept = listing(str(path) for split in splits for path in (split.train, split.valid))
        report(f"The data are those that the run was started with: {kept}")
        return
    if not overwrite:
        refuse_other_run(save_dir, resume)
    for split in splits:
        parts = write_parts(config, split)
        if split.valid_file is None:
            of = "" if config.files is not None else f" of {listing(split.files)}"
            report(
                f"Held out {parts.held_out:,} of {parts.training + parts.held_out:,} records{of} "
                "for validation, by class and entity type, copies of a text together: "
                f"{split.valid}"
            )
    files = [*(file for split in splits for file in split.files), config.valid_file or ""]
    in_memory = any(map(is_in_memory, files))
    _write_config(with_parts(config) if in_memory else config, save_dir, report)


def _write_config(config: Config, save_dir: Path, report: Callable[[str], None]) -> None:
    """Write a configuration to the folder of its run, unless the file there holds it already."""
    path = save_dir / CONFIG_FILE
    if not _holds(path, config):
        write_config(config, path)
        report(f"The configuration of this run, to repeat or change it: {path}")


@contextmanager
def kept_until_ready(save_dir: Path, *, overwrite: bool) -> Iterator[None]:
    """Keep the data and configuration of the run that a starting one replaces.

    If the block fails they are put back, so that the old run still fits its checkpoints; after a
    kill, the next start in the folder puts them back.

    Args:
        save_dir: the folder.
        overwrite: whether a run in it is replaced.

    Raises:
        StorageError: a file could not be kept or put back.
    """
    kept = save_dir / _KEPT
    with explained(save_dir):
        _put_back(save_dir)
        if overwrite:
            _keep(save_dir)
    try:
        yield
    except BaseException:
        if overwrite:
            with explained(save_dir):
                for name in (FOLDER, CONFIG_FILE):
                    if not (kept / name).exists():
                        _remove(save_dir / name)
                _put_back(save_dir)
        raise
    if overwrite:
        with explained(save_dir):
            # At once: what is left of it after a kill would be put back.
            kept.rename(save_dir / _OBSOLETE)
            _remove(save_dir / _OBSOLETE)


def _keep(save_dir: Path) -> None:
    """Give the files second names, in a folder that appears when it is complete."""
    _remove(save_dir / _OBSOLETE)
    partial = save_dir / f"{_KEPT}.partial"
    _remove(partial)
    partial.mkdir()
    for path in (save_dir / FOLDER, save_dir / CONFIG_FILE):
        if path.is_dir():
            shutil.copytree(path, partial / path.name, copy_function=_link)
        elif path.exists():
            _link(path, partial / path.name)
    partial.rename(save_dir / _KEPT)


def _link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it. A run's files are replaced, not written in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _put_back(save_dir: Path) -> None:
    """Move what was kept to its place, if there is any."""
    kept = save_dir / _KEPT
    if kept.is_dir():
        for path in sorted(kept.iterdir()):
            _remove(save_dir / path.name)
            path.rename(save_dir / path.name)
        kept.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _holds(path: Path, config: Config) -> bool:
    """Return whether a file already holds the configuration, perhaps with the user's comments."""
    try:
        return path.exists() and load_config(path, stored=True) == config
    except ManyheadsError:
        return False
