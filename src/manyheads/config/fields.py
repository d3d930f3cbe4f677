"""Types of fields: numbers that are not truth values, intervals, strict sections."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def interval(units: str) -> Callable[[object], int | str | None]:
    def read(value: object) -> int | str | None:
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        if isinstance(value, str) and re.fullmatch(rf"[1-9][0-9]{{0,9}}[{units}]", value):
            return value
        raise ValueError("not an interval")

    return read


Int = Annotated[int, BeforeValidator(_not_bool)]


Float = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


def default_of(model: type[BaseModel], field: str) -> object:
    return model.model_fields[field].default


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )
