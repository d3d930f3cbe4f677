"""Class names that a table stores beside its columns of indices, put in place of the indices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from manyheads.errors import DataError, shorten

Names: TypeAlias = "tuple[str, ...] | Mapping[str, Names]"
"""The names of a column of classes; of a column of objects, those of their keys with classes."""

_ENTITY = {"start", "end", "label"}
_NO_LABEL = (-1, -100)
"""The indices that mean that there is no label: of a test set, and of a word whose loss is left
out."""


def class_names(features: Mapping[str, Any]) -> dict[str, Names]:
    """Return the class names of each column that has them, or whose objects have them.

    Args:
        features: in the form of `datasets.Features.to_dict()`, which the `datasets` library also
            writes into Parquet files: a column of classes has `_type: ClassLabel`, one of lists of
            classes has it inside `feature`, or inside a list of one.
    """
    found = {column: _names(feature) for column, feature in features.items()}
    return {column: names for column, names in found.items() if names}


def with_names(fields: dict[str, Any], names: Mapping[str, Names], where: str) -> dict[str, Any]:
    """Replace the class indices of a row, in place, by their names; -1 and -100 mean no label.

    Inside objects, which may be of no task, an index without a name stays as it is.

    Entities that the `datasets` library stores as an object of lists become a list of objects.

    Raises:
        DataError: an index has no name.
    """
    for column, known in names.items():
        if column in fields:
            value = fields[column]
            if isinstance(known, tuple):
                fields[column] = _named(value, column, known, where)
            else:
                fields[column] = _named_inside(value, known)
    for column, value in fields.items():
        if isinstance(value, dict) and value.keys() >= _ENTITY:
            fields[column] = _objects(value)
    return fields


def stored_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Names]:
    """Return the class names that the `datasets` library stored in a table's metadata."""
    try:
        stored: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = stored["info"]["features"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {}
    return class_names(features) if isinstance(features, dict) else {}


def _names(feature: Any) -> Names:
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, Mapping):
        return ()
    if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        return tuple(map(str, feature["names"]))
    if "_type" in feature:
        return _names(feature.get("feature"))
    return {key: names for key, one in feature.items() if (names := _names(one))}


def _named(value: Any, column: str, names: tuple[str, ...], where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_named(item, column, names, where) for item in value]
    return _name(value, column, names, where)


def _named_inside(value: Any, names: Names) -> Any:
    """Return objects with the names of the indices inside them."""
    if isinstance(value, list):
        return [_named_inside(item, names) for item in value]
    if isinstance(names, Mapping):
        if not isinstance(value, dict):
            return value
        return {**value, **{key: _named_inside(value.get(key), n) for key, n in names.items()}}
    if value in _NO_LABEL:
        return None
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _objects(lists: dict[str, Any]) -> Any:
    """Return the objects whose values an object of lists of one length holds, by key."""
    values = [*lists.values()]
    if all(isinstance(one, list) and len(one) == len(values[0]) for one in values):
        return [dict(zip(lists, items, strict=True)) for items in zip(*values, strict=True)]
    return lists


def _name(index: Any, column: str, names: tuple[str, ...], where: str) -> str | None:
    if index in _NO_LABEL:
        return None
    if isinstance(index, str) and index in names:
        return index
    if isinstance(index, int) and 0 <= index < len(names):
        return names[index]
    raise DataError(
        f"`{column}` has the class {shorten(index)}",
        where=where,
        expected=f"0 to {len(names) - 1}, the indices of the table's class names",
    )
