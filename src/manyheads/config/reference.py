"""All keys of the configuration with allowed values, default and meaning, for help and docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from manyheads.config.fields import Setting, Strict, fields_where, setting_of
from manyheads.config.options import NESTED
from manyheads.config.run import ALIASES, Config
from manyheads.config.sections import SECTIONS
from manyheads.config.task import TaskConfig
from manyheads.errors import listing
from manyheads.tasks import known_kinds

_PATHS: Mapping[str | None, str] = {
    "input": "a path",
    "output": "a path",
    "model": "a name or a path",
}


@dataclass(frozen=True)
class Key:
    """A key of the configuration."""

    name: str
    """As `--set` takes it; NAME stands for a task's name."""
    aliases: tuple[str, ...]
    allowed: str
    default: str
    meaning: str
    """The text below the field, without its default."""

    @property
    def help(self) -> str:
        """The meaning and the default, as a flag's help."""
        return f"{self.meaning} Default: {self.default}." if self.default else self.meaning


@dataclass(frozen=True)
class Group:
    """Keys that belong together."""

    title: str
    purpose: str
    keys: tuple[Key, ...]


def key_groups() -> list[Group]:
    """Return the keys that users set: of the run by section, of a task, of nested settings."""
    groups = [_group(section, "") for section in SECTIONS]
    groups.append(_group(TaskConfig, "tasks.NAME."))
    return groups + [_group(section, f"{name}.") for name, section in NESTED.items()]


def _group(section: type[Strict], prefix: str) -> Group:
    text = " ".join((section.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")
    title, _, purpose = text.partition(": ")
    names = fields_where(section, lambda setting: not setting.internal)
    return Group(title, purpose, tuple(describe(section, name, prefix) for name in names))


def describe(section: type[Strict], name: str, prefix: str = "") -> Key:
    """Describe a field of a section."""
    info = section.model_fields[name]
    text = " ".join((info.description or "").split())
    meaning, _, default = text.partition(" Default: ")
    setting = setting_of(section, name)
    if not default and not info.is_required() and info.default is not None:
        default = written(info.get_default(call_default_factory=True))
    return Key(
        prefix + name,
        tuple(alias for alias, field in ALIASES.items() if field == name and not prefix),
        setting.allowed or _PATHS.get(setting.path) or allowed_values(section, name),
        default.removesuffix("."),
        meaning,
    )


def written(value: object) -> str:
    """Write a default as in a configuration file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(written, value))}]"
    return str(value)


def section_of(location: tuple[str | int, ...]) -> type[Strict]:
    """Return the section that a location is in."""
    if len(location) > 1 and location[0] in NESTED:
        return NESTED[str(location[0])]
    return TaskConfig if location[0] == "tasks" and len(location) > 2 else Config


def _field_at(key: str) -> tuple[type[Strict], str]:
    """Return the section of a dotted key, and the name of the field there."""
    parts = tuple(key.split("."))
    section = section_of(parts)
    return section, parts[-1] if section is not Config else parts[0]


def setting_at(key: str) -> Setting:
    """Return what the field at a dotted key declares; the strict defaults for an unknown key."""
    section, name = _field_at(key)
    return setting_of(section, name) if name in section.model_fields else Setting()


def default_at(key: str) -> object:
    """Return the default of the field at a dotted key as a JSON value, or None."""
    section, name = _field_at(key)
    info = section.model_fields.get(name)
    if info is None or info.is_required():
        return None
    default = info.get_default(call_default_factory=True)
    return TypeAdapter(Any).dump_python(default, mode="json")


def allowed_values(section: type[Strict], name: str, *, inner: bool = False) -> str:
    """Describe the values that a field takes, or with `inner` the members of its value."""
    info = section.model_fields[name]
    if section is TaskConfig and name == "kind":
        return f"one of: {', '.join(known_kinds())}"
    allowed = setting_of(section, name).allowed
    if allowed and not inner:
        return allowed
    if issubclass(Config, section) and name in NESTED:
        method = NESTED[name].model_fields.get("method")
        short = _type_words(method.annotation, False) if method else "a number"
        return f"{short}; or a mapping with: {listing(NESTED[name].model_fields)}"
    if inner and "dict" in str(info.annotation):
        return "a number at least 0" if "float" in str(info.annotation) else "a name"
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
    return " ".join([_type_words(info.annotation, inner), " and ".join(limits)]).strip()


def _type_words(annotation: Any, inner: bool) -> str:
    text = str(annotation)
    is_list = "tuple" in text and not inner
    choices = literals(annotation)
    if choices:
        return ("a list of: " if is_list else "one of: ") + ", ".join(choices)
    if annotation is bool:
        return "true or false"
    if "float" in text:
        return "a list of numbers" if is_list else "a number"
    if "tuple" in text:
        return "a list of names" if is_list else "a name"
    return "a whole number" if "int" in text else "a text"


def literals(annotation: Any) -> list[str]:
    """Return the choices in a field's type; empty if it is not a choice."""
    if getattr(annotation, "__origin__", None) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [c for part in get_args(annotation) for c in literals(part)]
