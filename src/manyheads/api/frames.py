"""DataFrames of pandas and polars: reading their texts and adding predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from manyheads.data.readers import is_missing
from manyheads.errors import RequestError, listing, nearest
from manyheads.inference import Text, TextPair
from manyheads.tasks import EMBEDDING, Prediction

_SECOND = "text2"


def is_frame(data: object) -> bool:
    """Return whether an object is a DataFrame."""
    return hasattr(data, "columns") and (hasattr(data, "assign") or hasattr(data, "with_columns"))


def texts_of(frame: Any, column: str, pairs: bool) -> list[Text]:
    """Return a DataFrame's texts; a missing one is empty.

    Args:
        frame: the DataFrame.
        column: its column of texts.
        pairs: whether a column `text2` has second texts.

    Raises:
        RequestError: there is no such column, or several.
    """
    names = list(frame.columns)
    if column not in names:
        raise RequestError(
            f"the DataFrame has no column {column!r}{nearest(column, map(str, names))}",
            expected=f"one of: {listing(names)}",
            fix="Name the column of texts: text=NAME.",
        )
    for name in (column, *([_SECOND] if pairs else [])):
        if names.count(name) > 1:
            raise RequestError(
                f"the DataFrame has {names.count(name)} columns {name!r}",
                expected="one, with the texts",
                fix="Rename the others.",
            )
    texts = [_text(value) for value in frame[column]]
    if not (pairs and _SECOND in names):
        return list(texts)
    return [TextPair(a, _text(b)) for a, b in zip(texts, frame[_SECOND], strict=True)]


def with_predictions(
    frame: Any,
    predictions: Sequence[Prediction],
    blank: Prediction,
    *,
    scoped: bool,
    embed: bool,
    top_k: int,
    logits: bool,
) -> Any:
    """Return a copy of a DataFrame with columns for predictions, and for what they were asked for.

    A column that exists is kept, and the new one is called `predicted_NAME`, or
    `predicted_predicted_NAME` if that exists too.

    Args:
        frame: the DataFrame.
        predictions: one for each row.
        blank: the prediction for a text without words; it has all columns, also those of no row.
        scoped: whether there is a column `in_scope`.
        embed: whether there is a column for the embedding.
        top_k: whether the most probable labels have columns: above 0.
        logits: whether the head's own output has columns.
    """
    columns: dict[str, list[Any]] = {}
    for number, prediction in enumerate([blank, *predictions], -1):
        row = table_cells(prediction, candidates=top_k > 0, logits=logits)
        if scoped:
            row["in_scope"] = prediction.in_scope
        if embed:
            row[EMBEDDING] = prediction.embedding
        for name, value in row.items():
            column = columns.setdefault(name, [None] * len(predictions))
            if number >= 0:
                column[number] = value
    names = set(map(str, frame.columns))
    renamed = {}
    for name, values in columns.items():
        new = name
        while new in names:
            new = f"predicted_{new}"
        renamed[new] = values
    if hasattr(frame, "assign"):
        return frame.assign(**renamed)
    # polars joins frames of the same height, and makes columns of lists of numbers, not of arrays.
    listed = {name: [_plain(value) for value in values] for name, values in renamed.items()}
    new = type(frame)(listed, strict=False)
    return frame.hstack(new)


def table_cells(prediction: Prediction, *, candidates: bool, logits: bool) -> dict[str, Any]:
    """Return the values of a prediction's columns by name.

    Args:
        prediction: the prediction.
        candidates: whether the most probable labels have columns.
        logits: whether the head's own output has columns.
    """
    row = {}
    for task, result in prediction.results.items():
        requested = {
            ending: value
            for ending, value in result.requested_cells().items()
            if (candidates if ending == "_candidates" else logits)
        }
        for ending, value in {**result.cells(), **requested}.items():
            row[f"{task}{ending}"] = value
    return row


def _plain(value: Any) -> Any:
    """Return an embedding as a list, and other values as they are."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _text(value: Any) -> Any:
    return "" if is_missing(value) else value
