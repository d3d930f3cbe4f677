"""Texts that occur more than once: duplicates, contradictions, and leaks between files."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from manyheads.data.records import Label, Record
from manyheads.tasks import Pair, Span
from manyheads.tasks.labels import unlabelled_words

_NONE = -1
_PARTLY = 1
"""Stands for a label that leaves out some words: it contradicts no other."""


@dataclass(frozen=True, slots=True)
class Place:
    """A record: the number of its file, and the line or number it has there."""

    file: int
    line: int
    record: int | None = None
    """Its number, if it has both (see `Row`)."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A record whose text has occurred before."""

    place: Place
    duplicate_of: Place | None
    """The first record with this text in the same file."""
    leaked_from: Place | None
    """The first one in another file with a label of one of the same tasks."""
    contradicts: tuple[str, Place] | None
    """A task for which an earlier record has another label, and that record."""


class CopyFinder:
    """Stores texts and labels as 64-bit hashes: about 24 bytes a record and 8 more for each task.

    Records with a number beside their line, as in JSON lists, take 8 more. Texts that differ only
    in white space are the same. The chance that two others have the same hash is negligible up to
    some hundred million records.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._files = array("i")
        self._lines = array("q")
        # Empty until a record has a number, then 0 for those without.
        self._numbers = array("q")
        self._texts = array("q")
        # A hash for each record and task; 0 if the record has no label for the task.
        self._labels = {task: array("q") for task in tasks}

    def add(self, file: int, line: int, record: Record, number: int | None = None) -> None:
        """Store a record, with its number where its line alone does not find it."""
        if number is not None and not self._numbers:
            self._numbers.extend([0] * len(self._files))
        if number is not None or self._numbers:
            self._numbers.append(number or 0)
        self._files.append(file)
        self._lines.append(line)
        # A pair is a copy of another if both of its texts are.
        self._texts.append(hash("\n".join(" ".join(text.split()) for text in record.texts)))
        for task, column in self._labels.items():
            label = record.labels.get(task)
            column.append(0 if label is None else _hash(label, record.text))

    def copies(self, tasks: Sequence[str]) -> Iterator[Copy]:
        """Yield every record whose text has occurred before, in the order of files and lines.

        Args:
            tasks: those whose labels are compared. Without any, every repeated text is a leak.
        """
        columns = [self._labels[task] for task in tasks]
        texts = np.frombuffer(self._texts, np.int64)
        order = np.argsort(texts, kind="stable")
        same = texts[order][1:] == texts[order][:-1]
        # Groups of equal texts: runs of `same`, each with the record before it.
        borders = np.diff(np.concatenate([[False], same, [False]]).astype(np.int8))
        starts, ends = (borders == 1).nonzero()[0], (borders == -1).nonzero()[0] + 1
        found = array("q")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            for numbers in self._group(order[start:end].tolist(), columns):
                found.extend(numbers)
        table = np.frombuffer(found, np.int64).reshape(-1, 5)
        for row in table[np.argsort(table[:, 0])]:
            number, twin, leak, task, other = row.tolist()
            contradiction = (tasks[task], self._place(other)) if task != _NONE else None
            yield Copy(
                self._place(number),
                None if twin == _NONE else self._place(twin),
                None if leak == _NONE else self._place(leak),
                contradiction,
            )

    def _place(self, number: int) -> Place:
        record = self._numbers[number] if self._numbers else 0
        return Place(self._files[number], self._lines[number], record or None)

    def _group(
        self, numbers: Sequence[int], columns: Sequence[Sequence[int]]
    ) -> Iterator[tuple[int, int, int, int, int]]:
        """Compare the records of one text, in their order; all but the first are copies.

        Yields record numbers: the copy, the first in the same file, the one it is leaked from, the
        number of the contradicted task, and the record with the other label.
        """
        first_in: dict[int, int] = {}
        answered: list[dict[int, int]] = [{} for _ in columns]
        answers: dict[int, int] = {}
        for i, number in enumerate(numbers):
            file = self._files[number]
            leak = _NONE if columns else _elsewhere(first_in, file)
            contradicted = other = _NONE
            for task, column in enumerate(columns):
                if not column[number]:
                    continue
                if leak == _NONE:
                    leak = _elsewhere(answered[task], file)
                answered[task].setdefault(file, number)
                if column[number] == _PARTLY:
                    continue
                before = answers.setdefault(task, number)
                if contradicted == _NONE and column[before] != column[number]:
                    contradicted, other = task, before
            if i:
                yield number, first_in.get(file, _NONE), leak, contradicted, other
            first_in.setdefault(file, number)


def _elsewhere(first_in: Mapping[int, int], file: int) -> int:
    return next((number for other, number in first_in.items() if other != file), _NONE)


def _hash(label: Label, text: str) -> int:
    """Hash a label; entities by their text, since white space elsewhere shifts their offsets."""
    if unlabelled_words(label):
        return _PARTLY
    if not isinstance(label, tuple):
        # The second text of a pair is hashed with its first one. Numbers are hashed by their
        # digits: small ones are their own hashes, and -1 and -2 have the same.
        answer = label.value if isinstance(label, Pair) else label
        value = hash(answer if isinstance(answer, str) else repr(answer))
    elif label and isinstance(label[0], Span):
        spans = [item for item in label if isinstance(item, Span)]
        value = hash(tuple((" ".join(text[s.start : s.end].split()), s.label) for s in spans))
    else:
        value = hash(frozenset(label))
    return value if value not in (0, _PARTLY) else 2
