"""Class names that a table stores beside its columns of indices, put in place of the indices."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from manyheads.errors import DataError, shorten

Names = tuple[str, ...]


def class_names(features: Mapping[str, Any]) -> dict[str, Names]:
    """Return the class names of each column that has them.

    Args:
        features: in the form of `datasets.Features.to_dict()`, which the `datasets` library also
            writes into Parquet files: a column of classes has `_type: ClassLabel`, one of lists of
            classes has it inside `feature`, or inside a list of one.
    """
    found = {column: _names(feature) for column, feature in features.items()}
    return {column: names for column, names in found.items() if names}


def with_names(fields: dict[str, Any], names: Mapping[str, Names], where: str) -> dict[str, Any]:
    """Replace the class indices of a row, in place, by their names; -1 means no label.

    Raises:
        DataError: an index has no name.
    """
    for column, known in names.items():
        value = fields.get(column)
        if isinstance(value, list):
            fields[column] = [_name(item, column, known, where) for item in value]
        elif value is not None:
            fields[column] = None if value == -1 else _name(value, column, known, where)
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
    return _names(feature.get("feature"))


def _name(index: Any, column: str, names: Names, where: str) -> str:
    if isinstance(index, str) and index in names:
        return index
    if isinstance(index, int) and 0 <= index < len(names):
        return names[index]
    raise DataError(
        f"`{column}` has the class {shorten(index)}",
        where=where,
        expected=f"0 to {len(names) - 1}, the indices of the table's class names",
    )
