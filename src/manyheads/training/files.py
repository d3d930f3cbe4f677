"""A run that begins with labelled files: what is written to its folder before it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.config import Config, load_config, write_config
from manyheads.data.hold_out import parts_of, with_parts, write_parts
from manyheads.data.infer_tasks import InferredTasks
from manyheads.data.readers import is_in_memory
from manyheads.data.starting_config import split_paths, starting_config
from manyheads.errors import ManyheadsError, RequestError, at, listing
from manyheads.training.run_folder import refuse_other_run

CONFIG_FILE = "config.yaml"
"""The configuration in `save_dir`, from which the run can be repeated and changed."""


@dataclass(frozen=True)
class RunConfig:
    """The configuration that the arguments of `train` mean."""

    config: Config
    source: str
    """Where it comes from, in words."""
    found: InferredTasks | None = None
    """What was found in the files, where the tasks were worked out."""


def run_config(paths: Sequence[str], overrides: Mapping[str, Any], *, resume: bool) -> RunConfig:
    """Return the configuration that a YAML file states, or that data files are trained with.

    A run on data files that is resumed has the configuration in its folder.

    Args:
        paths: one YAML file, or data files.
        overrides: settings that lie over it.
        resume: whether a run in the folder is continued.

    Raises:
        ManyheadsError: a file cannot be read, the tasks are not clear, or a setting is not allowed.
    """
    config, files = split_paths(paths)
    if config is None and resume:
        save_dir = Path(load_config(None, _save_dir_of(overrides)).save_dir)
        kept = save_dir / CONFIG_FILE
        config = kept if kept.exists() else None
        if config is None and not files:
            raise RequestError(
                f"there is no {CONFIG_FILE} of a run to resume",
                where=at(save_dir),
                expected="a run that began with data files",
                fix="Name the configuration: manyheads train CONFIG --resume.",
            )
    if config is not None:
        return RunConfig(load_config(config, overrides), f"Configuration: {config}")
    chosen, found = starting_config(files, overrides)
    return RunConfig(chosen, f"Data: {listing(files)}", found)


def _save_dir_of(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting of the run's folder, by whichever of its names it is given."""
    names = ("save_dir", "save-dir", "checkpoint_dir", "checkpoint-dir")
    return {name: overrides[name] for name in names if name in overrides}


def read_files(
    config: Config, *, resume: bool, overwrite: bool, report: Callable[[str], None]
) -> None:
    """Split the files of a configuration into training and validation data, and keep both.

    A resumed run keeps the parts that it began with.

    Args:
        config: the run; without `files` nothing is done.
        resume: whether a run in the folder is continued.
        overwrite: whether it is replaced.
        report: receives messages for the user.

    Raises:
        RequestError: the folder holds another run.
        DataError: a record cannot be read or does not fit its tasks, or there are too few.
    """
    if config.files is None:
        return
    save_dir = Path(config.save_dir)
    train_file, valid_file = parts_of(config)
    if resume and train_file.exists() and valid_file.exists():
        report(f"The data are those that the run began with: {train_file} and {valid_file}.")
        return
    if not overwrite:
        refuse_other_run(save_dir, resume)
    parts = write_parts(config)
    if config.valid_file is None:
        report(
            f"Held out {parts.held_out:,} of {parts.training + parts.held_out:,} records for "
            f"validation, by class and entity type, copies of a text together: {parts.valid}"
        )
    path = save_dir / CONFIG_FILE
    if not _holds(path, config):
        in_files = not any(map(is_in_memory, (*config.files, config.valid_file or "")))
        write_config(config if in_files else with_parts(config), path)
        report(f"The configuration of this run, to repeat or change it: {path}")


def _holds(path: Path, config: Config) -> bool:
    """Return whether a file is the configuration already: then its comments are the user's."""
    try:
        return path.exists() and load_config(path) == config
    except ManyheadsError:
        return False
