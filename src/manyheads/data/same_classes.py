"""Fields that say the same, such as the indices of classes and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manyheads.tasks import FieldValues, Kind
from manyheads.tasks.label_values import MAX_LABEL_LENGTH

_MOST_FIELDS = 12
_NUMBER = re.compile(r"(?i)[_ .-]?(id|idx|index|no|nr|num|number|code)$")
_NAME = re.compile(r"(?i)[_ .-]?(text|name|str|string|title|description)$")
"""The endings by which a field of numbers and one of their names differ."""
_MANY_CLASSES = 500
"""From so many on, a pair of fields is given up if their values do not repeat: these are texts or
identifiers, which would fill the memory."""


@dataclass
class _Pair:
    """The values of two fields, as far as each value of one goes with one of the other."""

    records: int = 0
    """With both fields."""
    there: dict[str, str] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)

    def add(self, one: str, other: str) -> bool:
        """Take note of a record; return whether the values still map one to one."""
        self.records += 1
        return (
            self.there.setdefault(one, other) == other
            and self.back.setdefault(other, one) == one
            and (len(self.there) < _MANY_CLASSES or 2 * len(self.there) <= self.records)
        )


class SameClasses:
    """Compares the classes of the first 12 fields, record by record."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._pairs: dict[tuple[str, str], _Pair] = {}
        """The pairs whose values map one to one so far."""

    def add(self, fields: Mapping[str, Any]) -> None:
        """Compare the fields of a record, apart from its texts."""
        classes = {name: str(value) for name, value in fields.items() if _is_class(value)}
        for name in classes:
            if name not in self._names and len(self._names) < _MOST_FIELDS:
                self._pairs.update({(other, name): _Pair() for other in self._names})
                self._names.append(name)
        for (one, other), pair in [*self._pairs.items()]:
            if one in classes and other in classes and not pair.add(classes[one], classes[other]):
                del self._pairs[one, other]

    def pairs(self) -> dict[tuple[str, str], int]:
        """Return the fields whose classes map one to one, and the number of records with both.

        A pair of classes occurs twice on average, or they may do so by chance.
        """
        return {
            names: pair.records
            for names, pair in self._pairs.items()
            if 1 < len(pair.there) <= pair.records / 2
        }

    def names_of_numbers(
        self, columns: Mapping[str, FieldValues], able: Mapping[str, Sequence[Kind]]
    ) -> dict[str, str]:
        """Return the fields of whole numbers, each with a field that names every one of them.

        The fields' own names show it, such as `label` and `label_text`, or `intent_id` and
        `intent`: values of others may agree by chance.

        Args:
            columns: the values of all fields.
            able: the kinds of tasks that recognise them.
        """
        found: dict[str, str] = {}
        for pair, records in self.pairs().items():
            for number, name in (pair, pair[::-1]):
                numbers, names = columns[number], columns[name]
                if (
                    _NUMBER.sub("", number).lower() == _NAME.sub("", name).lower()
                    and numbers.wholes == numbers.records == records
                    and not names.numbers
                    and not names.commas
                    and any(kind.exclusive for kind in able[number])
                    and [kind.exclusive for kind in able[name]] == [True]
                ):
                    found.setdefault(number, name)
        return found


def _is_class(value: Any) -> bool:
    """Return whether a value can be a class: a short text, a boolean or a whole number."""
    if type(value) is str:
        return len(value) <= MAX_LABEL_LENGTH
    return type(value) in (bool, int) or (type(value) is float and value.is_integer())
