"""What is said of a configuration that is not allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import ValidationError

from manyheads.config.fields import Setting, Strict, setting_of
from manyheads.config.options import (
    NESTED,
)
from manyheads.config.run import ALIASES, Config
from manyheads.config.task import TaskConfig
from manyheads.config.yaml import YamlDocument
from manyheads.errors import ConfigError, listing, nearest, shorten
from manyheads.tasks import known_kinds


def config_error(error: ValidationError, document: YamlDocument | None) -> ConfigError:
    """Turn pydantic's report into one message: the first problem whole, the others in short."""
    problems = error.errors(include_url=False, include_context=False)
    # A key that is misspelt explains what else is missing.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = _problem(problems[0], document)
    if len(problems) == 1:
        return first
    others = "; ".join(str(_problem(p, document)) for p in problems[1:6])
    more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
    return ConfigError(
        first.found,
        expected=first.expected,
        where=first.where,
        fix=f"{first.fix} Also: {others}{more}".strip(),
    )


def _problem(problem: Mapping[str, Any], document: YamlDocument | None) -> ConfigError:
    location: tuple[str | int, ...] = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    where = document.where(location) if document else ""
    value = problem["input"]
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _known_keys(location)
        return ConfigError(
            f"unknown key `{key}`{nearest(str(location[-1]), known)} with the value "
            f"{shorten(value, 40)}",
            where=where,
            expected=f"one of: {listing(known, 60)}",
        )
    if kind == "value_error" and (not location or location[-1] in ("tasks",) or "`" in message):
        prefix = f"`{key}`: " if key else ""
        return ConfigError(f"{prefix}{message}", where=where)
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


def section_of(location: tuple[str | int, ...]) -> type[Strict]:
    """Return the mapping that a key's place is in."""
    if len(location) > 1 and location[0] in NESTED:
        return NESTED[str(location[0])]
    return TaskConfig if location[0] == "tasks" and len(location) > 2 else Config


def setting_at(key: str) -> Setting:
    """Return what the field at a dotted key declares; of an unknown one, the strict defaults."""
    parts = tuple(key.split("."))
    section = section_of(parts)
    name = parts[-1] if section is not Config else parts[0]
    return setting_of(section, name) if name in section.model_fields else Setting()


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model = section_of(location)
    return [*model.model_fields, *(ALIASES if model is Config else ())]


def _allowed(location: tuple[str | int, ...]) -> str:
    """Say in words what values a field takes."""
    if not location:
        return "a mapping of keys to values"
    holder = section_of(location)
    if location[0] == "tasks" and holder is Config:
        return "a mapping from a task's name to its settings"
    if _is_kind(location):
        return f"one of: {', '.join(known_kinds())}"
    depth = {Config: 1, TaskConfig: 3}.get(holder, 2)
    name = str(location[depth - 1])
    info = holder.model_fields.get(name)
    if info is None:
        return ""
    allowed = setting_of(holder, name).allowed
    if allowed and len(location) == depth:
        return allowed
    if holder is Config and name in NESTED:
        method = NESTED[name].model_fields.get("method")
        short = _type_words(method.annotation, False) if method else "a number"
        return f"{short}; or a mapping with: {listing(NESTED[name].model_fields)}"
    inner = len(location) > depth
    if inner and "dict" in str(info.annotation):
        return "a number at least 0"
    words = _type_words(info.annotation, inner)
    bounds = {type(m).__name__: m for m in info.metadata}
    limits = [
        f"{text} {getattr(bounds[kind], attribute)}"
        for kind, attribute, text in (
            ("Ge", "ge", "at least"),
            ("Gt", "gt", "above"),
            ("Le", "le", "at most"),
            ("Lt", "lt", "below"),
        )
        if kind in bounds
    ]
    return " ".join([words, " and ".join(limits)]).strip()


def _type_words(annotation: Any, inner: bool) -> str:
    choices = literals(annotation)
    if choices:
        return "one of: " + ", ".join(choices)
    if annotation is bool:
        return "true or false"
    text = str(annotation)
    if "tuple" in text:
        return "a name" if inner else "a list of names"
    if "float" in text:
        return "a number"
    if "int" in text:
        return "a whole number"
    return "a text"


def literals(annotation: Any) -> list[str]:
    """Return the choices that a field's type spells out, if it does."""
    if getattr(annotation, "__origin__", None) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [c for part in get_args(annotation) for c in literals(part)]
