"""Statistics of a field's values, by which kinds of tasks recognise their labels."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from manyheads.tasks.label_values import MAX_LABEL_LENGTH, SECOND_TEXT, read_number
from manyheads.tasks.labels import OUTSIDE

MAX_DISTINCT = 5000
"""The maximum number of distinct values counted; a field with more holds texts or numbers."""

_SPAN = {"start", "end", "label"}
_NUMBERING = re.compile(
    r"(?i)(.*[_ .-])?(id|idx)|index|unnamed: \d+|__index_level_\d+__|u(u|ser)?id|guid|docid"
    r"|(?-i:.*[a-z](Id|ID|Idx))"
)
"""Names of fields that number the records, or what they belong to."""
_OF_CLASSES = re.compile(
    r"(?i)(.*[_ .-])?(label|class|intent|category|topic|domain|sentiment|emotion|type|tag|target)"
    r"[_ .-]?(id|index|idx)"
)
"""Of these, the names of fields that may number classes."""
_WITH_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


@dataclass
class FieldValues:
    """Statistics of a field's values. All counts are of records."""

    name: str
    records: int = 0
    """With a value that is not null."""
    paired: int = 0
    """Of these, with a second text."""
    texts: int = 0
    """With one string, or a boolean."""
    classes: int = 0
    """With one string, boolean or whole number."""
    wholes: int = 0
    """With a whole number, or a string that reads as one."""
    numbers: int = 0
    """With any number, or a string that reads as one."""
    commas: int = 0
    """With a number that has one comma, of decimals or of thousands."""
    gaps: int = 0
    """With NaN, as pandas writes missing values to JSON."""
    lists: int = 0
    """With a list of strings or whole numbers, even an empty one."""
    filled: int = 0
    """With a list that is not empty."""
    repeating: int = 0
    """With a list in which an item is repeated."""
    per_word: int = 0
    """With as many items as the text has words, in a list or in a string separated by spaces."""
    spans: int = 0
    """With a list of objects that have start, end and label; an empty list does not count."""
    has_outside: bool = False
    """Whether `O` is among the items."""
    longest: int = 0
    """Characters of the longest string."""
    low: float = math.inf
    high: float = -math.inf
    distinct: Counter[str] = field(default_factory=Counter)
    """The values, items of lists or labels of spans, with their counts."""
    same_as: str = ""
    """The field that has the names of these classes, if that one is used in place of this one."""

    def add(self, value: Any, words: int, fields: Mapping[str, Any]) -> None:
        """Take note of a record's value.

        Args:
            value: not None.
            words: the words of its text.
            fields: the record's.
        """
        self.records += 1
        self.paired += fields.get(SECOND_TEXT) is not None
        if type(value) is list:
            self._add_list(value, words)
            return
        self._count([value])
        number = read_number(value)
        self.gaps += type(value) is float and math.isnan(number)
        if math.isfinite(number):
            self.numbers += 1
            self.wholes += number.is_integer()
            self.low, self.high = min(self.low, number), max(self.high, number)
        self.classes += type(value) in (str, bool) or (math.isfinite(number) and number % 1 == 0)
        if type(value) in (str, bool):
            self.texts += 1
            self.commas += _WITH_COMMA.fullmatch(str(value)) is not None
            parts = str(value).split()
            self.longest = max(self.longest, len(str(value)))
            self.per_word += len(parts) == words
            self.has_outside |= OUTSIDE in parts and len(parts) > 1

    def _add_list(self, value: list[Any], words: int) -> None:
        # Some words of a sentence may have no tag.
        kinds = {type(item) for item in value if item is not None}
        if kinds == {dict} and None not in value:
            self.spans += all(item.keys() >= _SPAN for item in value)
            self._count([item.get("label") for item in value])
        elif kinds <= {str, int}:
            self.lists += 1
            self.filled += bool(value)
            self.per_word += len(value) == words
            self.repeating += len(set(value)) < len(value)
            self.has_outside |= OUTSIDE in value
            self._count(value)

    def _count(self, items: list[Any]) -> None:
        for item in items:
            # No label is longer, and a field of long texts would fill the memory.
            key = str(item)[: MAX_LABEL_LENGTH + 1]
            if key in self.distinct or len(self.distinct) <= MAX_DISTINCT:
                self.distinct[key] += 1

    def joined(self, other: FieldValues) -> FieldValues:
        """Return the statistics of this field and another one that no record has beside it."""
        both = FieldValues(self.name, distinct=self.distinct + other.distinct)
        for one in fields(self):
            if one.type == "int" and one.name != "longest":
                setattr(both, one.name, getattr(self, one.name) + getattr(other, one.name))
        both.has_outside = self.has_outside or other.has_outside
        both.longest = max(self.longest, other.longest)
        both.low, both.high = min(self.low, other.low), max(self.high, other.high)
        return both

    @property
    def is_paired(self) -> bool:
        """Whether the values are about two texts, as in most records; the others are faulty."""
        return self.records < 2 * self.paired

    @property
    def is_few(self) -> bool:
        """Whether there are few distinct values, as with classes: at most half of all."""
        return (
            2 <= len(self.distinct) <= MAX_DISTINCT
            and 2 * len(self.distinct) <= self.distinct.total()
            and self.longest <= MAX_LABEL_LENGTH
        )

    @property
    def is_identifier(self) -> bool:
        """Whether whole numbers number the records, or by the field's name what they belong to."""
        return self.wholes == self.records and (self._is_distinct or self._is_numbering)

    @property
    def has_commas(self) -> bool:
        """Whether all values are numbers, some of them with a comma."""
        return bool(self.commas) and self.commas + self.numbers == self.records

    @property
    def _is_distinct(self) -> bool:
        return len(self.distinct) == self.distinct.total()

    @property
    def _is_numbering(self) -> bool:
        """Whether the field's name is that of identifiers, and not of those of classes."""
        numbering, classes = (p.fullmatch(self.name) for p in (_NUMBERING, _OF_CLASSES))
        return numbering is not None and classes is None

    def describe(self) -> str:
        """Describe the values in a few words, for messages."""
        count = len(self.distinct)
        several = f"more than {MAX_DISTINCT}" if count > MAX_DISTINCT else str(count)
        if self.gaps:
            return f"NaN in {self.gaps} of {self.records} records"
        if count == 1 and not self.spans and not self.lists:
            return f"the same value in all {self.records} records"
        if self.spans:
            return f"entities of {several} types in {self.records} records"
        if self.lists:
            return f"lists of {several} different items in {self.records} records"
        if self.numbers == self.records:
            whole = "whole " if self.wholes == self.records else ""
            numbers = f"{several} different {whole}numbers in {self.records} records"
            if self.same_as:
                return f"{numbers}, one for each of the names in `{self.same_as}`"
            named = self.is_identifier and not self._is_distinct
            return numbers + ", identifiers by the field's name" * named
        if self.has_commas:
            return f"{several} different numbers with a comma in {self.records} records"
        if self.classes == self.records:
            return f"{several} different texts in {self.records} records"
        return f"objects or lists in {self.records} records"
