"""A configuration written as YAML with comments, to be read and changed by people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from manyheads.config.fields import Setting, Strict, fields_where, setting_of
from manyheads.config.options import NESTED
from manyheads.config.reference import describe
from manyheads.config.run import Config
from manyheads.config.task import TaskConfig
from manyheads.storage import atomic_file

_WIDTH = 100
_HEAD = """\
# Trained by: manyheads train {name}
#
# Input paths are relative to this file, output paths to the working directory. Every key is
# described by `manyheads train --help`.
"""


def write_config(config: Config, path: Path, notes: Mapping[str, str] | None = None) -> None:
    """Write the settings that were set explicitly.

    Args:
        config: the run.
        path: the file. The input paths in it are relative to its folder.
        notes: by task, what was found in the data.

    Raises:
        StorageError: it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(config_text(config, path, notes or {}).encode())


def config_text(config: Config, path: Path, notes: Mapping[str, str]) -> str:
    """Return a configuration as YAML, each key with a comment."""
    values = _relative(Config, config.model_dump(mode="json", exclude_unset=True), path.parent)
    tasks = values.pop("tasks", {})
    lines = [_HEAD.format(name=_printable(path))]
    for name, value in values.items():
        default = Config.model_fields[name].get_default(call_default_factory=True)
        if value in (None, {}) and value == default:
            # Set to take back what another configuration says.
            continue
        lines += [*_comment(describe(Config, name).help), f"{name}: {_flow(value)}", ""]
    lines.append("# What the model learns. Remove a task, or change its kind, field or head.")
    lines.append("tasks:")
    for name, task in tasks.items():
        note = notes.get(name)
        lines.append(f"  {name}:" + (f"  # {note}" if note else ""))
        for key, value in _relative(TaskConfig, task, path.parent).items():
            lines.append(f"    {key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _printable(path: Path) -> str:
    """Return a path as it can stand in a comment: without line ends, and in UTF-8."""
    name = str(path)
    return name if name.isprintable() else ascii(name)


def _comment(text: str) -> list[str]:
    lines, line = [], "#"
    for word in text.split():
        if len(line) + len(word) >= _WIDTH:
            lines.append(line)
            line = "#"
        line += f" {word}"
    return [*lines, line]


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.strip().removesuffix("\n...").strip()


def _relative(section: type[Strict], values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the values with input paths relative to a folder."""

    def moved(path: Any, setting: Setting) -> Any:
        if isinstance(path, list):
            return [moved(one, setting) for one in path]
        if not isinstance(path, str) or path.startswith("datasets:") or Path(path).is_absolute():
            return path
        if setting.path == "model" and not Path(path).is_dir():
            return path
        there = os.path.relpath(path, folder)
        return there if setting.path != "model" or there.startswith("..") else f"./{there}"

    paths = fields_where(section, lambda setting: setting.path in ("input", "model"))
    nested = {
        key: _relative(NESTED[key], value, folder)
        for key, value in values.items()
        if section is Config and key in NESTED and isinstance(value, dict)
    }
    own = {key: moved(values[key], setting_of(section, key)) for key in paths if key in values}
    return {**values, **own, **nested}
