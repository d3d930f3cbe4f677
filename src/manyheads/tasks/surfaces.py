"""How words are labelled elsewhere in a file: contradictions are evidence of errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from manyheads.tasks.labels import Span, Stretches, WordSpan, borders_of

_LONGEST = 6
"""The longest entity, in words, whose unlabelled occurrences are counted."""


class ReadWords(Protocol):
    """A text and its words."""

    @property
    def text(self) -> str:
        """The text."""

    @property
    def words(self) -> Sequence[WordSpan]:
        """The characters of its words."""


class Surfaces:
    """Counts entities and words by their text in lower case, over all records of a file.

    Args:
        types: the entity types.
        labels: the entities of each record.
        texts: the text of each record.
    """

    def __init__(
        self, types: Sequence[str], labels: Sequence[Sequence[Span]], texts: Sequence[ReadWords]
    ) -> None:
        self._labels, self._texts = labels, texts
        self._named = {
            _surface(text, span.start, span.end)
            for label, text in zip(labels, texts, strict=True)
            for span in label
        }
        self._total = _Counts()
        for label, text in zip(labels, texts, strict=True):
            self._total.add(label, text, self._named)
        counts = Counter(span.label for label in labels for span in label)
        self._shares = {
            name: float(np.log((counts[name] + 1) / (counts.total() + 1))) for name in types
        }

    def elsewhere(self, record: int) -> Elsewhere:
        """Return what all records but one show."""
        own = _Counts()
        own.add(self._labels[record], self._texts[record], self._named)
        return Elsewhere(self._shares, self._total, own)


class Elsewhere:
    """The counts over all records but one.

    Args:
        shares: the log share of each type among the entities.
        total: over all records.
        own: over the one.
    """

    def __init__(self, shares: Mapping[str, float], total: _Counts, own: _Counts) -> None:
        self.shares, self._total, self._own = shares, total, own

    def of_entity(self, text: ReadWords, start: int, end: int, label: str) -> tuple[float, ...]:
        """Return how often characters are an entity of a type, of other types, and none."""
        surface = _surface(text, start, end)
        named = [
            self._total.entities[surface, name] - self._own.entities[surface, name]
            for name in self.shares
        ]
        same, labelled = named[list(self.shares).index(label)], sum(named)
        seen = self._total.runs[surface] - self._own.runs[surface]
        return (
            np.log1p(same), np.log1p(labelled - same), np.log1p(max(0, seen - labelled)),
            np.log((labelled + 0.1) / (seen + 1.0)), np.log((same + 0.1) / (labelled + 0.6)),
            float(seen == 0),
        )  # fmt: skip

    def of_word(self, text: ReadWords, number: int) -> tuple[float, float]:
        """Return how often a word is part of an entity, as log odds, and how often it occurs."""
        if not 0 <= number < len(text.words):
            return float(np.log(0.1)), 0.0
        word = _surface(text, *text.words[number])
        inside = self._total.inside[word] - self._own.inside[word]
        count = self._total.words[word] - self._own.words[word]
        return float(np.log((inside + 0.05) / (count + 0.5))), float(np.log1p(count))


class _Counts:
    """Occurrences by surface."""

    def __init__(self) -> None:
        self.entities: Counter[tuple[str, str]] = Counter()
        self.inside: Counter[str] = Counter()
        self.words: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        """Of single words, and of words in a row that are an entity somewhere."""

    def add(self, label: Sequence[Span], text: ReadWords, named: set[str]) -> None:
        """Count a record."""
        for span in label:
            self.entities[_surface(text, span.start, span.end), span.label] += 1
        covered = Stretches(borders_of(label))
        for i, (start, end) in enumerate(text.words):
            word = _surface(text, start, end)
            self.words[word] += 1
            self.inside[word] += covered.touch(start, end)
            self.runs[word] += 1
            for _, last in text.words[i + 1 : i + _LONGEST]:
                run = _surface(text, start, last)
                if run in named:
                    self.runs[run] += 1


def _surface(text: ReadWords, start: int, end: int) -> str:
    return text.text[start:end].lower()
