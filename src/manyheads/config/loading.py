"""A configuration from a file, flags or Python values."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    ValidationError,
)

from manyheads.config.fields import Setting, Strict, fields_where, setting_of
from manyheads.config.messages import config_error
from manyheads.config.options import (
    NESTED,
    UNFOLD,
)
from manyheads.config.reference import section_of
from manyheads.config.run import ALIASES, Config, standard_tasks
from manyheads.config.sections.mixing import STORED
from manyheads.config.task import TaskConfig
from manyheads.config.yaml import YamlDocument, parse_scalar, read_yaml
from manyheads.errors import ConfigError, listing, nearest, shorten


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    stored: bool = False,
) -> Config:
    """Read a configuration file and lay `overrides` over it.

    Args:
        path: a YAML file, or None for the defaults alone. Input paths in it are relative to it.
        overrides: values by field name, alias or dotted key (`tasks.ner.decoder`), hyphens and
            underscores alike. Text is read as YAML. Paths among them are relative to the working
            directory.
        stored: whether a run was started with it, which may have names of tasks and settings
            refused since.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not allowed.
    """
    document = YamlDocument({}, {}, None) if path is None else read_yaml(Path(path))
    values = _canonical(document.values, document)
    if path is not None:
        _resolve_inputs(values, Path(path).parent)
    # The longest keys come last: they refine what the shorter ones make.
    given = sorted((overrides or {}).items(), key=lambda item: item[0].count("."))
    paths = [_key_path(key) for key, _ in given]
    made = {parts[1] for parts in paths if parts[0] == "tasks" and parts[2:] == ("kind",)}
    for parts, (_, value) in zip(paths, given, strict=True):
        _set(values, parts, _parse(parts, value) if isinstance(value, str) else value, made)
        document = document.without(parts)
    return _validated(values, document, stored=stored)


def make_config(values: Mapping[str, Any]) -> Config:
    """Validate values, in which paths may be `os.PathLike`.

    Raises:
        ConfigError: naming the key, its value, what is allowed and the nearest known key.
    """
    return _validated(values, None, stored=False)


def stored_config(values: Mapping[str, Any]) -> Config:
    """Validate the configuration of a run or model, which may have what is refused since.

    Raises:
        ConfigError: a key or value is not allowed.
    """
    return _validated(values, None, stored=True)


def _validated(values: Mapping[str, Any], document: YamlDocument | None, *, stored: bool) -> Config:
    try:
        return Config.model_validate(_with_texts(values), context={STORED: stored})
    except ValidationError as error:
        raise config_error(error, document) from None


def _with_texts(value: Any) -> Any:
    """Return a value with texts for the paths in it, at any depth."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _with_texts(inner) for key, inner in value.items()}
    return [*map(_with_texts, value)] if isinstance(value, list | tuple) else value


def _canonical(values: Mapping[str, Any], document: YamlDocument) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = _field_name(key)
        if name in result:
            raise ConfigError(
                f"`{key}` sets {name} a second time",
                where=document.where((key,)),
                fix="Keep one of the two.",
            )
        result[name] = value
    return result


def _field_name(key: str) -> str:
    name = key.replace("-", "_")
    return ALIASES.get(name, name)


def _resolve_inputs(values: dict[str, Any], folder: Path) -> None:
    """Make the input paths of a file, in place, relative to the file's folder."""
    holders: list[tuple[type[Strict], dict[str, Any]]] = [(Config, values)]
    if isinstance(values.get("tasks"), dict):
        values["tasks"] = {
            name: dict(task) if isinstance(task, dict) else task
            for name, task in values["tasks"].items()
        }
        tasks = values["tasks"].values()
        holders += [(TaskConfig, task) for task in tasks if isinstance(task, dict)]
    for name, section in NESTED.items():
        unfolded = UNFOLD[name](values.get(name))
        if isinstance(unfolded, dict):
            values[name] = dict(unfolded)
            holders.append((section, values[name]))
    for section, holder in holders:
        for key in fields_where(section, lambda setting: setting.path in ("input", "model")):
            path = holder.get(key)
            setting = setting_of(section, key)
            if isinstance(path, str) and _is_relative(path, setting):
                holder[key] = _from(folder, path)
            elif isinstance(path, list):
                holder[key] = [
                    _from(folder, one)
                    if isinstance(one, str) and _is_relative(one, setting)
                    else one
                    for one in path
                ]


def _is_relative(path: str, setting: Setting) -> bool:
    if "\0" in path:  # which is refused, and has no home folder to look up
        return False
    if setting.path == "model":  # which may be a name on the hub
        return path.startswith(("./", "../", "~"))
    return not path.startswith("datasets:")


def _from(folder: Path, path: str) -> str:
    # os.path leaves the name of an unknown user alone, where Path raises.
    return os.path.normpath(folder / os.path.expanduser(path))  # noqa: PTH111


def _key_path(key: str) -> tuple[str, ...]:
    """Split a dotted key. A task's name keeps its hyphens; the names of fields do not."""
    first, *rest = key.split(".")
    name = _field_name(first)
    if rest and not (name == "tasks" and len(rest) <= 2) and not (name in NESTED and len(rest) < 2):
        nested = " or ".join(f"{field}.FIELD" for field in ("tasks.NAME", *NESTED))
        raise ConfigError(f"there is no key `{key}`", expected=f"the name of a field, or {nested}")
    if len(rest) > 1 or name in NESTED:
        rest[-1:] = [part.replace("-", "_") for part in rest[-1:]]
    return (name, *rest)


def _parse(parts: tuple[str, ...], text: str) -> Any:
    """Read an override given as text: as YAML where the field holds a list or a mapping.

    `null` and nothing at all are null where that is allowed, and so is `~` unless the field may
    hold any text, such as a separator.
    """
    section = section_of(parts)
    info = section.model_fields.get(parts[-1])
    if info is None or "tuple" in str(info.annotation) or "dict" in str(info.annotation):
        return parse_scalar(text)
    # Kept as text, so that a folder may be called 2024; numbers are read by their fields.
    optional = type(None) in get_args(info.annotation)
    is_any_text = info.annotation == (str | None) and setting_of(section, parts[-1]).path is None
    return None if optional and text in ("", "null", *([] if is_any_text else "~")) else text


def _set(values: dict[str, Any], parts: tuple[str, ...], value: Any, made: Collection[str]) -> None:
    """Set the value at a dotted key, in place.

    A task, or all of them, that is no mapping is left as it is: validation refuses it.

    Args:
        values: the configuration.
        parts: the key.
        value: the value.
        made: the tasks whose kind is set by a dotted key, and which may be new.

    Raises:
        ConfigError: the key is one of a task that there is not, or `tasks` is no mapping.
    """
    if parts == ("tasks",) and not isinstance(value, dict):
        raise ConfigError(
            f"`tasks` is {shorten(value)}",
            expected="a mapping",
            fix="Set one field of one task: tasks.NAME.FIELD=VALUE.",
        )
    if len(parts) == 3 and not values.get("tasks"):
        values["tasks"] = standard_tasks(
            values.pop("num_classes", None), values.pop("num_ner_labels", None)
        )
    tasks = values.get("tasks")
    if len(parts) == 3 and isinstance(tasks, dict) and parts[1] not in (*tasks, *made):
        raise ConfigError(
            f"there is no task {shorten(parts[1])}{nearest(parts[1], tasks)}",
            where=f"`{'.'.join(parts)}`",
            expected=f"one of: {listing(tasks)}",
            fix=f"For a new task, set `tasks.{parts[1]}.kind` too.",
        )
    holder = values
    for part in parts[:-1]:
        inner = holder.get(part)
        if part in NESTED:
            inner = UNFOLD[part](inner)
        elif isinstance(inner, TaskConfig):
            inner = inner.model_dump(exclude_unset=True)
        elif inner is not None and not isinstance(inner, Mapping):
            return
        holder[part] = dict(inner) if isinstance(inner, Mapping) else {}
        holder = holder[part]
    holder[parts[-1]] = value
