"""Types of fields, and what a setting declares about itself besides its type."""

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
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from manyheads.errors import shorten

May = Literal["same", "same name", "differ"]
"""How far the values of a setting in two places must agree: be equal; be equal in the last part of
a path; or not at all."""

WarmStart = Literal["own", "inherited", "fixed", "training"]
"""Whose value counts with `init_from`: the configuration's (own); the trained model's unless the
configuration sets it (inherited); the trained model's, and another value is refused because trained
parameters depend on it (fixed); or the configuration's, dropped for carried tasks, which are not
trained (training)."""


@dataclass(frozen=True)
class Setting:
    """How a field is treated, declared with the field: `Annotated[T, Setting(...)]`.

    The defaults are the strict ones: a field that declares nothing is compared when a run is
    resumed, must be equal in all processes, and is not a path.
    """

    resume: May = "same"
    """Whether it may differ between a run and its continuation."""
    processes: May = "same"
    """Whether it may differ between the processes of a run."""
    warm_start: WarmStart | None = None
    """Its role in a warm start. Default: the `warm_start` of its section."""
    compare: Literal["same", "several"] = "same"
    """Whether it applies to runs of a single task (`compare`), or only to several tasks."""
    path: Literal["input", "output", "model"] | None = None
    """Whether it is a path. In a configuration file, paths are relative to the file (input, and
    model unless it may be a name on the hub) or to the working directory (output)."""
    allowed: str = ""
    """The allowed values in words, if the type does not show them."""
    internal: bool = False
    """Whether only trained models set it; help and documentation leave it out."""
    first: bool = False
    """Whether the help lists it among the most important settings."""
    layout: bool = False
    """Whether it states how data files are laid out."""


FREE = Setting(resume="differ", processes="differ")
"""A setting that does not affect what is learned, such as where a run writes."""

INPUT_FILE = Setting(resume="differ", processes="differ", path="input")
"""A data file. It may move: the content is compared, by checksum."""


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
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


RENAMING = "a mapping from fields to the fields that they are read as"


def pairs(value: object) -> object:
    """Read `a=b,c=d`, as the command line has it, as a mapping."""
    if not isinstance(value, str):
        return value
    found = [part.partition("=") for part in value.split(",")]
    if any(not theirs or not ours for theirs, _, ours in found):
        raise ValueError("not FIELD=NAME,FIELD=NAME")
    names = [theirs for theirs, _, _ in found]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"the field {shorten(twice[0])} is repeated; keep one `FIELD=NAME` of it")
    return {theirs: ours for theirs, _, ours in found}


NUL_IN_PATH = "nul_in_path"
"""The type of the error about a path that no system can open."""


def _has_nul(value: object) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(part, str) and "\0" in part for part in parts)


def default_of(model: type[BaseModel], field: str) -> object:
    """Return the default of a model's field."""
    return model.model_fields[field].default


class Strict(BaseModel):
    """A frozen section of the configuration that refuses unknown keys."""

    warm_start: ClassVar[WarmStart] = "own"
    """The role of its fields in a warm start, unless they declare one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _paths_have_no_nul(cls, value: object, info: ValidationInfo) -> object:
        if _has_nul(value) and setting_of(cls, str(info.field_name)).path is not None:
            raise PydanticCustomError(NUL_IN_PATH, "a path without a NUL character")
        return value


def setting_of(model: type[Strict], field: str) -> Setting:
    """Return what a field declares, with the strict defaults for the rest."""
    metadata = model.model_fields[field].metadata
    declared = next((one for one in metadata if isinstance(one, Setting)), Setting())
    return replace(declared, warm_start=declared.warm_start or model.warm_start)


def fields_where(model: type[Strict], holds: Callable[[Setting], bool]) -> tuple[str, ...]:
    """Return the fields of a section whose settings have a property, in their order."""
    return tuple(name for name in model.model_fields if holds(setting_of(model, name)))
