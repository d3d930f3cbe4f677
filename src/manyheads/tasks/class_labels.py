"""Labels that are names of classes: how they are read from records, and which ones a task has."""

from __future__ import annotations

from collections.abc import Sequence

from manyheads.errors import DataError, counted, listing, nearest, shorten
from manyheads.tasks.found import (
    CORRECT_COUNT,
    Found,
    Refuse,
    check_bound,
    check_range,
    count_of,
    natural_order,
    raise_error,
    refuse_mixture,
    unlisted,
)
from manyheads.tasks.label_values import NameOrIndex
from manyheads.tasks.labels import LabelSet


class Names:
    """The names of a task's labels, for names and indices in records.

    Args:
        task: its name, for messages.
        known: the labels; without them, names stay as they are and indices become names.
        keeps_unseen: whether names that are not known are kept instead of refused.
    """

    def __init__(self, task: str, known: LabelSet | None, keeps_unseen: bool) -> None:
        self.task, self.keeps_unseen = task, keeps_unseen
        self._known = known
        self._numerals_are_names = known is not None and numerals_are_names(known.names)

    def of(self, label: NameOrIndex, field: str, where: str) -> str:
        """Return the name of a label; a whole number is an index unless `numerals_are_names`.

        Raises:
            DataError: it is not among the known ones.
        """
        known, name = self._known, str(label)
        if known is None or name in known:
            return name
        # "3" from a file of texts is an index, too.
        is_index = not self._numerals_are_names and (isinstance(label, int) or is_numeral(label))
        if is_index and int(label) < len(known):
            return known.names[int(label)]
        if is_index or (isinstance(label, int) and _count_from_0(known.names)):
            raise self.beyond(int(label), len(known), field, where)
        if self.keeps_unseen:
            return name
        raise self.unknown(name, known.names, field, where)

    def unknown(self, name: str, known: Sequence[str], field: str, where: str) -> DataError:
        """Make the error for a name that is not known."""
        return DataError(
            f"`{field}` is {shorten(name)}, which is not a label of the task {self.task!r}"
            f"{nearest(name, known)}",
            where=where,
            expected=f"one of: {listing(known)}",
        )

    def beyond(self, index: int, count: int, field: str, where: str) -> DataError:
        """Make the error for an index that is too large."""
        return DataError(
            f"`{field}` is {index}, beyond the {counted(count, 'label')} of the task {self.task!r}",
            where=where,
            expected=f"0 to {count - 1}",
            fix=CORRECT_COUNT,
        )


def decide_classes(
    task: str,
    labels: Sequence[str] | None,
    count: int | None,
    found: Found,
    refuse: Refuse = raise_error,
) -> LabelSet:
    """Decide which classes a task has, and their order.

    Args:
        task: its name, for messages.
        labels: the configuration's, if it lists them.
        count: how many there are at most, if the configuration sets it.
        found: the labels of the training data.
        refuse: takes the error of each label that the configuration does not list.

    Raises:
        DataError: what was found contradicts itself or the configuration.
    """
    if labels is not None:
        known = LabelSet(tuple(labels))
        are_names = numerals_are_names(known.names)
        for name, where in found.names.items():
            if name not in known and (are_names or not is_numeral(name) or int(name) >= len(known)):
                refuse(unlisted(task, name, known.names, where))
        if not are_names or _count_from_0(known.names):
            check_range(task, found, len(known), refuse)
            return known
        for index, where in found.indices.items():
            if str(index) not in known:
                refuse(unlisted(task, str(index), known.names, where))
        return known
    refuse_mixture(task, found)
    if found.indices and _count_from_1(found) and count in (None, max(found.indices)):
        # Five stars are five classes, and their names are what the records say.
        return LabelSet(tuple(map(str, sorted(found.indices))))
    if found.indices:
        if count is not None:
            check_range(task, found, count, refuse)
        return LabelSet(_numerals(count_of(found) if count is None else count))
    if count is not None and all(is_numeral(n) and int(n) < count for n in found.names):
        return LabelSet(_numerals(count))
    check_bound(task, found.names, count)
    return LabelSet(tuple(natural_order(found.names)))


def _count_from_1(found: Found) -> bool:
    """Return whether the indices are 1, 2, 3... up to the largest."""
    return len(found.indices) > 1 and set(found.indices) == set(range(1, len(found.indices) + 1))


def _count_from_0(names: Sequence[str]) -> bool:
    """Return whether names are the indices of as many classes, in any order."""
    return set(names) == set(_numerals(len(names)))


def _numerals(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def numerals_are_names(names: Sequence[str]) -> bool:
    """Return whether a whole number is a class's name, not its index: where a name is one."""
    return any(map(is_numeral, names))


def is_numeral(name: str) -> bool:
    """Return whether a name is an index in digits, such as a CSV cell has."""
    return name.isascii() and name.isdecimal() and len(name) < 10 and str(int(name)) == name
