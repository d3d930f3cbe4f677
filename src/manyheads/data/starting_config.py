"""A configuration for labelled files without one: their tasks, and settings for few records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.config import AUTO, Config, key_groups, load_config, make_config, written
from manyheads.data.hold_out import LAYOUT
from manyheads.data.infer_tasks import InferredTasks, infer_tasks
from manyheads.data.readers import Layout, is_data_file
from manyheads.errors import RequestError, listing
from manyheads.tasks import Kind, kind_of, known_kinds

SETTINGS: Mapping[str, Any] = {
    "num_epochs": AUTO,
    "batch_size": 16,
    "keep_checkpoints": 1,
}
"""The settings of a run without a configuration, apart from the learning rates, which depend on its
tasks. Measured with all-MiniLM-L6-v2 (see docs/benchmarks.md)."""


def starting_config(
    files: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> tuple[Config, InferredTasks]:
    """Work out the configuration of a run on labelled files.

    Args:
        files: data of any format that the readers know, read as one.
        overrides: settings that replace those worked out, as `load_config` takes them. If they
            include `tasks`, no others are looked for.

    Returns:
        The configuration, and the tasks found in the files.

    Raises:
        DataError: a file cannot be read.
        RequestError: the tasks are ambiguous; the message shows the option that names them.
        ConfigError: a setting is not allowed.
    """
    given = dict(overrides or {})
    layout = Layout.of(load_config(None, {k: v for k, v in given.items() if k in LAYOUT}))
    tasks = make_config({"tasks": given.pop("tasks")}).tasks if "tasks" in given else None
    found = infer_tasks(files, layout, tasks)
    joint = {"schedule": "joint"} if found.complete and len(found.tasks) > 1 else {}
    rates = [kind_of(task.kind).starting_rates(task.values) for task in found.tasks]
    values = {
        "files": list(files),
        **SETTINGS,
        "learning_rate": max(rate.encoder for rate in rates),
        "head_learning_rate": max(rate.heads for rate in rates),
        **joint,
        "tasks": found.options(),
    }
    return load_config(None, {**values, **given}), found


def starting_defaults() -> dict[str, str]:
    """Return the defaults of a run on labelled files in words, where they are not the schema's.

    Keys of tasks begin with `tasks.NAME.`, as in `key_groups`.
    """
    schema = {key.name: key.default for group in key_groups() for key in group.keys}
    rate = "by the kinds of the tasks and the number of records"
    found = {name: written(value) for name, value in SETTINGS.items()} | {
        "learning_rate": rate,
        "head_learning_rate": rate,
        "schedule": "joint, or alternate where there is one task or records lack labels of some",
    }
    kinds = [kind_of(name) for name in known_kinds()]
    for option in dict.fromkeys(name for kind in kinds for name in kind.starting):
        key = f"tasks.NAME.{option}"
        found[key] = _by_kind(option, kinds, schema[key])
    return {name: default for name, default in found.items() if default != schema[name]}


def _by_kind(option: str, kinds: Sequence[Kind], otherwise: str) -> str:
    """Return an option's default, by the kinds of tasks where it depends on them."""
    able = [kind for kind in kinds if option in kind.options]
    own = {kind.name: written(kind.starting[option]) for kind in able if option in kind.starting}
    if len(own) == len(able) and len(set(own.values())) == 1:
        return next(iter(own.values()))
    rest = [f"{otherwise} for others"] if len(own) < len(able) else []
    return ", ".join([*(f"{value} for {name}" for name, value in own.items()), *rest])


def split_paths(paths: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Separate a configuration from data files among the arguments of `train`.

    Returns:
        The configuration, or None and the data files.

    Raises:
        RequestError: there are both, or two configurations.
    """
    configs = [path for path in paths if not is_data_file(path)]
    if not configs:
        return None, list(paths)
    if len(paths) > 1:
        raise RequestError(
            f"{configs[0]} is a configuration, and is given together with "
            f"{listing(p for p in paths if p != configs[0])}",
            expected="one configuration, or only data files",
            fix="Name the files in the configuration (`files`), or leave it out.",
        )
    return Path(configs[0]), []
