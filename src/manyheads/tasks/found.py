"""The labels that discovery finds in the training data, and the checks that kinds share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from manyheads.errors import DataError, counted, listing, nearest, shorten

MAX_LABELS = 100_000
"""The maximum number of distinct labels of a task: more would be texts, and fill the memory."""

CORRECT_COUNT = "Correct the record, or the number of labels in the configuration."
"""How to fix an index that is too large."""

_L = TypeVar("_L", str, int)


@dataclass(slots=True)
class Found:
    """The labels in a task's records, each with the place of its first occurrence.

    A kind with labels of another type collects them in a subclass.
    """

    task: str = ""
    """The task's name, for messages."""
    fields: str = ""
    """The fields that hold its labels, for messages."""
    names: dict[str, str] = field(default_factory=dict)
    """Names of classes or tags."""
    indices: dict[int, str] = field(default_factory=dict)
    """Indices of classes or tags."""
    types: dict[str, str] = field(default_factory=dict)
    """Types of entities that are given as spans."""
    index_field: str = ""
    """The field of the first indices of tags, for messages."""

    def __len__(self) -> int:
        return len(self.names) + len(self.indices) + len(self.types)

    def note(self, places: dict[_L, str], labels: Iterable[_L], where: str) -> None:
        """Remember the first place of each label.

        Args:
            places: `names`, `indices` or `types`.
            labels: a record's labels.
            where: the record's place.

        Raises:
            DataError: there are too many different labels.
        """
        for label in labels:
            if label not in places:
                places[label] = where
                if len(places) > MAX_LABELS:
                    raise DataError(
                        f"the task {self.task!r} has more than {MAX_LABELS:,} different labels",
                        where=where,
                        expected="labels that repeat",
                        fix=f"Is {self.fields} the field of its labels?",
                    )


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names, with numbers in them by value: `level 2` comes before `level 10`."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", name)
        # `2` and `02` have the same value, so the text breaks the tie.
        return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p], name

    return sorted(names, key=key)


Refuse = Callable[[DataError], None]
"""Receives the error about a label that the configuration does not allow."""


def raise_error(error: DataError) -> None:
    """Refuse a label by raising its error."""
    raise error


def count_of(found: Found) -> int:
    """Return the number of classes that the indices found imply.

    Raises:
        DataError: most of these classes never occur.
    """
    largest = max(found.indices)
    if largest + 1 > 2 * len(found.indices) + 10:
        raise DataError(
            f"the largest index is {largest}, but only "
            f"{counted(len(found.indices), 'index occurs', 'indices occur')}",
            where=found.indices[largest],
            expected="indices that count the labels from 0",
            fix="Write codes as strings, or set `num_labels` if so many labels are meant.",
        )
    return largest + 1


def check_range(task: str, found: Found, count: int, refuse: Refuse) -> None:
    """Refuse indices that are too large for the number of labels."""
    for index, where in found.indices.items():
        if index >= count:
            refuse(
                DataError(
                    f"the index {index} is beyond the {counted(count, 'label')} of the task "
                    f"{task!r}",
                    where=where,
                    expected=f"0 to {count - 1}",
                    fix=CORRECT_COUNT,
                )
            )


def check_bound(
    task: str, places: dict[str, str], count: int | None, *, are_types: bool = False
) -> None:
    """Refuse more labels than the configuration allows, at the place of the first one too many."""
    size = 2 * len(places) + 1 if are_types else len(places)
    if count is None or size <= count:
        return
    what = f"{counted(len(places), 'entity type')} ({size} tags)" if are_types else f"{size} labels"
    allowed = (count - 1) // 2 if are_types else count
    raise DataError(
        f"the task {task!r} has {what}: {listing(natural_order(places))}",
        where=list(places.values())[allowed],
        expected=f"at most {count} {'tags' if are_types else 'labels'}, as the configuration says",
        fix="Correct the records, or the number of labels in the configuration.",
    )


def refuse_mixture(task: str, found: Found) -> None:
    """Refuse names and indices in one task.

    Raises:
        DataError: there are both.
    """
    named = {**found.names, **found.types}
    if named and found.indices:
        (name, place), (index, where) = next(iter(named.items())), next(iter(found.indices.items()))
        raise DataError(
            f"the task {task!r} has the name {shorten(name)} ({place}) and the index {index}",
            where=where,
            expected="names or indices, not both",
            fix="List the names in order as the task's `labels`, and both can be read.",
        )


def unlisted(task: str, name: str, known: Sequence[str], where: str) -> DataError:
    """Make the error for a label that the configuration does not list."""
    return DataError(
        f"{shorten(name)} is not a label of the task {task!r}{nearest(name, known)}",
        where=where,
        expected=f"one of its `labels`: {listing(known)}",
        fix="Correct the record, or add the label to the configuration.",
    )
