"""Types of fields, and what a setting means beside its value."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)

May = Literal["same", "same name", "differ"]
"""How the values of a setting in two places must agree: equal; equal in the last part of a path;
or not at all."""

WarmStart = Literal["own", "inherited", "fixed", "training"]
"""Whose value counts with `init_from`. The configuration's (own); the trained model's unless the
configuration sets it (inherited); the same, but another value is refused, because trained
parameters depend on it (fixed); the configuration's, and dropped for a task that is carried along,
which is not trained (training)."""


@dataclass(frozen=True)
class Setting:
    """The meaning of a field beside its value, declared with the field: `Annotated[T, Setting()]`.

    The defaults are the strict ones, so a field that does not declare a meaning is compared when
    a run is resumed, has to be equal in all processes, and is no path.
    """

    resume: May = "same"
    """Whether a run and its continuation may differ in it."""
    processes: May = "same"
    """Whether processes that train one model may differ in it."""
    warm_start: WarmStart | None = None
    """Its meaning for a warm start. Default: the `warm_start` of its section."""
    compare: Literal["same", "several"] = "same"
    """Whether `compare` gives it to the runs of single tasks too, or it is about several tasks."""
    path: Literal["input", "output", "model"] | None = None
    """Whether it is a path. Those of a configuration file are relative to the file (input, and
    model where it cannot be a name on the hub) or to the working directory (output)."""
    allowed: str = ""
    """The allowed values in words, where the type does not tell."""
    internal: bool = False
    """Whether trained models set it, and users do not: help and docs leave it out."""
    first: bool = False
    """Whether it is among the settings that the help shows first."""


FREE = Setting(resume="differ", processes="differ")
"""Where a run writes and what it runs on: nothing that it learns depends on it."""

INPUT_FILE = Setting(resume="differ", processes="differ", path="input")
"""A data file. It may move: what is compared is the data's content, by checksum."""


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


Int = Annotated[int, BeforeValidator(_not_bool)]


Float = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


def interval(units: str) -> Callable[[object], int | str | None]:
    """Return a validator of intervals: a number of steps, a number with one of `units`, or None."""

    def read(value: object) -> int | str | None:
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        if isinstance(value, str) and re.fullmatch(rf"[1-9][0-9]{{0,9}}[{units}]", value):
            return value
        raise ValueError("not an interval")

    return read


AUTO = "auto"


def _epoch_count(value: object) -> int | str:
    """Read a number of epochs, or `auto`."""
    text = str(value).strip()
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    if not isinstance(value, bool) and (text == AUTO or (text.isdecimal() and int(text) >= 1)):
        return AUTO if text == AUTO else int(text)
    raise ValueError("not a number of epochs")


EpochCount = Annotated[int | str, PlainValidator(_epoch_count)]
"""A number of epochs, or `auto`."""


def pairs(value: object) -> object:
    """Read `a=b,c=d`, as the command line has it, as a mapping."""
    if not isinstance(value, str):
        return value
    found = [part.partition("=") for part in value.split(",")]
    if any(not theirs or not ours for theirs, _, ours in found):
        raise ValueError("not FIELD=NAME,FIELD=NAME")
    return {theirs: ours for theirs, _, ours in found}


def default_of(model: type[BaseModel], field: str) -> object:
    """Return the default of a model's field."""
    return model.model_fields[field].default


class Strict(BaseModel):
    """A frozen section of the configuration that refuses unknown keys."""

    warm_start: ClassVar[WarmStart] = "own"
    """The meaning of its fields for a warm start, unless they declare it."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


def setting_of(model: type[Strict], field: str) -> Setting:
    """Return what a field declares, filled up with the strict defaults."""
    metadata = model.model_fields[field].metadata
    declared = next((one for one in metadata if isinstance(one, Setting)), Setting())
    return replace(declared, warm_start=declared.warm_start or model.warm_start)


def fields_where(model: type[Strict], holds: Callable[[Setting], bool]) -> tuple[str, ...]:
    """Return the fields of a section whose settings have a property, in their order."""
    return tuple(name for name in model.model_fields if holds(setting_of(model, name)))
