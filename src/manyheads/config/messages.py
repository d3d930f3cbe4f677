"""Messages about invalid configurations: the key, its value, and the allowed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from manyheads.config.fields import NUL_IN_PATH, fields_where
from manyheads.config.reference import allowed_values, section_of, setting_at
from manyheads.config.run import ALIASES, Config
from manyheads.config.task import TaskConfig
from manyheads.config.yaml import YamlDocument
from manyheads.errors import ConfigError, listing, nearest, shorten
from manyheads.tasks import known_kinds


def config_error(error: ValidationError, document: YamlDocument | None) -> ConfigError:
    """Turn pydantic's report into one error: the first problem in full, the others in short."""
    problems = error.errors(include_url=False, include_context=False)
    # A misspelt key explains other missing ones.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    # Each missing member of a list is reported by itself; they are one error of the list.
    found = {str(one): one for one in (_problem(problem, document) for problem in problems)}
    first, *rest = found.values()
    if not rest:
        return first
    others = "; ".join(map(str, rest[:5]))
    more = f"; and {len(rest) - 5} more" if len(rest) > 5 else ""
    return ConfigError(
        first.found,
        expected=first.expected,
        where=first.where,
        fix=f"{first.fix} Also: {others}{more}".strip(),
    )


def _problem(problem: Mapping[str, Any], document: YamlDocument | None) -> ConfigError:
    location: tuple[str | int, ...] = tuple(problem["loc"])
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "missing" and isinstance(location[-1], int):
        location, kind = location[:-1], "too_short"
    key = ".".join(str(part) for part in location)
    where = document.where(location) if document else ""
    value = problem["input"]
    if kind == "extra_forbidden":
        known = _known_keys(location)
        return ConfigError(
            f"unknown key `{key}`{nearest(str(location[-1]), known)} with the value "
            f"{shorten(value, 40)}",
            where=where,
            expected=f"one of: {listing(known, len(known))}",
        )
    if kind == "value_error" and (not location or location[-1] in ("tasks",) or "`" in message):
        prefix = f"`{key}`: " if key else ""
        return ConfigError(f"{prefix}{message}", where=where)
    if kind == NUL_IN_PATH:
        return ConfigError(
            f"`{key}` is {shorten(value)}", where=where, expected=message, fix="Check the path."
        )
    if kind == "string_unicode":
        text = "a text" if setting_at(key).path is None else "a path"
        return ConfigError(f"`{key}` is {shorten(value)}", where=where, expected=f"{text} in UTF-8")
    if kind == "missing":
        return ConfigError(f"`{key}` is missing", where=where, expected=_allowed(location))
    hint = nearest(value, known_kinds()) if _is_kind(location) and isinstance(value, str) else ""
    return ConfigError(
        f"`{key}` is {shorten(value)}{hint}",
        where=where,
        expected=_allowed(location) or message.lower(),
        fix="Put it in quotes." if kind == "string_type" and _is_plain(value) else "",
    )


def _is_kind(location: tuple[str | int, ...]) -> bool:
    return section_of(location) is TaskConfig and location[2:] == ("kind",)


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    section = section_of(location)
    names = fields_where(section, lambda setting: not setting.internal)
    return [*names, *(ALIASES if section is Config else ())]


def _allowed(location: tuple[str | int, ...]) -> str:
    """Describe the allowed values of the field at a location; empty if there is no such field."""
    if not location:
        return "a mapping of keys to values"
    section = section_of(location)
    depth = {Config: 1, TaskConfig: 3}.get(section, 2)
    name = str(location[depth - 1])
    if name not in section.model_fields:
        return ""
    return allowed_values(section, name, inner=len(location) > depth and name != "tasks")
