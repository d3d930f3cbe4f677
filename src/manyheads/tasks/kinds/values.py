"""The values that kinds of tasks accept and return: records, settings, targets and shapes.

Axes: N records, R rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.labels import WordSpan
from manyheads.tasks.tag_sequences import Floats

UNLABELLED = -100
"""The target of padding and of records without a label of the task; it is ignored."""
UNKNOWN = -101
"""The target of a word without a tag in a sentence that has tags for other words."""

HEAD_OPTIONS = ("reads", "dropout", "frozen")
"""Options of every kind whose head has parameters."""
LABEL_OPTIONS = ("labels", "num_labels")
"""Options of every kind whose labels have names."""
SENTENCE_OPTIONS = ("pooling", "hidden")
"""Options of a head that reads one vector per sentence (`SentenceScorer`)."""

Lengths = Sequence[int] | NDArray[np.integer[Any]]

Label = Any
"""A record's label, by name. In the built-in kinds: a class, any number of classes, spans, a number
or a `Pair`."""
Columns = type[Any] | dict[str, "Columns"] | list["Columns"]
"""The type of a table's column: `str`, `int` or `float`, a dict of them for a struct, or a list of
one element for a list."""


class Settings(Protocol):
    """The part of a task's configuration (`TaskConfig`) that kinds read."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that may hold the label."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels, if the configuration lists them."""

    @property
    def num_labels(self) -> int | None:
        """The maximum number of labels."""

    @property
    def scheme(self) -> str:
        """The interpretation of tags without a prefix."""

    @property
    def score_range(self) -> tuple[float, float]:
        """The lowest and the highest score of a pair."""


class RawRecord(NamedTuple):
    """A record whose labels have not been read."""

    fields: Mapping[str, Any]
    text: str
    tokens: tuple[WordSpan, ...] | None
    """The characters of the user's tokens, if the text was given as such."""
    where: str
    """The record's place, for messages."""


class ReadText(Protocol):
    """A text that the model has read."""

    @property
    def text(self) -> str:
        """The text as the user gave it."""

    @property
    def tokens(self) -> Sequence[WordSpan] | None:
        """The characters of the user's tokens, if the text was given as such."""

    @property
    def words(self) -> Sequence[WordSpan]:
        """The characters of the words that the model read."""


class Rows(Protocol):
    """Rows of numbers, of different lengths."""

    def row(self, i: int) -> NDArray[Any]:
        """Return one row."""

    def padded(self, rows: NDArray[np.int64], fill: int, width: int | None = None) -> NDArray[Any]:
        """Gather rows into a rectangle, padded on the right."""


class Targets(Protocol):
    """One task's targets for all records of a data set."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[N] whether the record has a label."""

    @property
    def values(self) -> Rows:
        """[N] rows from `Kind.target`."""

    @property
    def num_labels(self) -> int:
        """L."""

    @property
    def partners(self) -> NDArray[np.int64] | None:
        """[N] the row of each record's second text, -1 where it has none."""


ReadLabel = Callable[[RawRecord, str], Label]
"""Reads a task's label from (record, field)."""


Shape = tuple[int | None, ...]
"""The shape of an array; None for an axis of any length."""

ReadParameter = Callable[[str, Shape], Floats]
"""Reads a head's parameter from (name, shape) as float32."""


def fits(found: tuple[int, ...], expected: Shape) -> bool:
    """Return whether an array has a shape."""
    return len(found) == len(expected) and all(
        size in (None, length) for length, size in zip(found, expected, strict=True)
    )


def paired(
    targets: Targets, rows: NDArray[np.int64], values: NDArray[Any]
) -> NDArray[Any]:  # fmt: skip
    """Add to each pair's target the position of its second text in the batch.

    The second texts are at the end of a batch, in the order of the first ones.

    Args:
        targets: of all records.
        rows: [R] the batch's rows.
        values: [R] the targets.

    Returns:
        [R, 2], `UNLABELLED` where there is no label.
    """
    partners = np.full(len(rows), -1) if targets.partners is None else targets.partners[rows]
    is_pair = partners >= 0
    places = len(rows) - is_pair.sum() + np.cumsum(is_pair) - 1
    places = np.where(targets.labelled[rows], places, UNLABELLED)
    return np.stack([values, places.astype(values.dtype)], axis=1)
