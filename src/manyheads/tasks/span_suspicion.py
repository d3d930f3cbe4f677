"""Entities that are likely wrong: of another type, with other borders, missing or superfluous.

Axes: W words, L tags, K types.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from manyheads.tasks.decisions import WRONG_BORDER, WRONG_BOTH, WRONG_TYPE
from manyheads.tasks.labels import OUTSIDE, Span, Stretches, TagSet, WordSpan, borders_of
from manyheads.tasks.surfaces import Elsewhere, ReadWords
from manyheads.tasks.suspicion import MISSING, SUPERFLUOUS, Is, Suspicion
from manyheads.tasks.tag_sequences import Floats

_T = TypeVar("_T")

SPAN_ERRORS = (WRONG_TYPE, WRONG_BORDER, MISSING, SUPERFLUOUS)
LONGEST = 4
"""The longest unlabelled entity that is looked for, in units such as tokens."""
_SHIFT = 2
"""The number of units by which a border is moved outwards at most."""
_LEAST = 1e-5
"""Share of a uniform distribution mixed into the probabilities. A word that is no entity for
certain is stronger evidence than one that is hardly any, so it is small."""
_OUTSIDE = 0.95
"""From this probability of no entity, a word is not searched for one."""
_NO_GAIN = -20.0
_BESIDE = -5.0
"""The log odds of an entity beside the first and the last word."""


def span_suspicions(
    tags: TagSet,
    given: Sequence[Span],
    text: ReadWords,
    units: Sequence[WordSpan],
    logs: Floats,
    elsewhere: Elsewhere,
    unlabelled: Sequence[WordSpan] = (),
) -> list[Suspicion]:
    """Compare each entity with no entity, other types and other borders, and find missing ones.

    Args:
        tags: BIO tags.
        given: the entities of a text.
        text: the text and its words.
        units: the characters of what entities consist of: the user's tokens, or the words.
        logs: [W, L] log probabilities of the tags of its words.
        elsewhere: how the other records are labelled.
        unlabelled: the characters of words without a label, about which nothing is wrong.
    """
    changes = _Changes(tags, given, text, units, logs, elsewhere, unlabelled)
    return [*changes.of_entities(), *changes.missing()]


@dataclass(frozen=True, slots=True)
class _Change:
    """Another entity in place of one, or none."""

    gain: float
    """The increase of the log probability of the text's tags."""
    changed: int
    """Words whose tag changes."""
    error: str
    proposed: Span | None

    @property
    def mean(self) -> float:
        """The gain by word, so that long entities are not favoured."""
        return self.gain / self.changed


class _Changes:
    """Scores changes of a text's entities. Places are word numbers."""

    def __init__(
        self,
        tags: TagSet,
        given: Sequence[Span],
        text: ReadWords,
        units: Sequence[WordSpan],
        logs: Floats,
        elsewhere: Elsewhere,
        unlabelled: Sequence[WordSpan],
    ) -> None:
        self._types, self._text, self._words = tags.types, text, text.words
        self._elsewhere = elsewhere
        shares = np.exp(logs.astype(np.float64)) * (1 - _LEAST) + _LEAST / len(tags)
        outside = shares[:, tags.index(OUTSIDE)]
        begin = shares[:, [tags.index(f"B-{kind}") for kind in tags.types]]
        inside = shares[:, [tags.index(f"I-{kind}") for kind in tags.types]]
        self._begin, self._within, self._outside = np.log(begin), np.log(inside), np.log(outside)
        self._of_type = np.log(begin + inside)
        self._odds = np.log(np.maximum(1 - outside, 1e-6)) - self._outside
        self._inside_before = np.vstack([np.zeros(len(tags.types)), self._within.cumsum(axis=0)])
        self._outside_before = np.append(0.0, self._outside.cumsum())
        starts, ends = {start for start, _ in units}, {end for _, end in units}
        self._begins = [i for i, (start, _) in enumerate(self._words) if start in starts]
        self._ends = [i + 1 for i, (_, end) in enumerate(self._words) if end in ends]
        self._entities = [
            (span, *place) for span in given if (place := _place(span.start, span.end, self._words))
        ]
        self._labelled = np.zeros(len(self._words), np.bool_)
        for _, first, last in self._entities:
            self._labelled[first:last] = True
        self._taken = self._labelled.copy()
        for start, end in unlabelled:
            if place := _place(start, end, self._words):
                self._taken[slice(*place)] = True

    def of_entities(self) -> Iterator[Suspicion]:
        """Yield the best change of each entity, with evidence of all changes."""
        for span, first, last in self._entities:
            if span.label not in self._types:
                continue
            own, size = self._types.index(span.label), last - first
            total = float(self._whole(first, last)[own])
            removed = _Change(self._none(first, last) - total, size, SUPERFLUOUS, None)
            retyped = self._moved(span, (first, last), (first, last), own)
            moved = self._best_border(span, (first, last), own)
            best = max(removed, retyped, *moved, key=lambda one: one.gain)
            border = max(
                (one for one in moved if one.error == WRONG_BORDER),
                key=lambda one: one.gain,
                default=_Change(_NO_GAIN, 1, WRONG_BORDER, None),
            )
            changes = (removed, retyped, border)
            means, sums = (
                values - np.logaddexp.reduce(values)
                for values in (
                    self._of_type[first:last].mean(axis=0),
                    self._of_type[first:last].sum(axis=0),
                )
            )
            weakest = min([self._begin[first, own], *self._within[first + 1 : last, own]])
            evidence = (
                total, total / size, weakest, *(one.gain for one in changes),
                *(one.mean for one in changes), means[own], sums[own],
                np.delete(means, own).max(initial=_NO_GAIN), max(one.gain for one in changes),
                max(one.mean for one in changes), self._elsewhere.shares[span.label],
                size, np.log(size), len(self._entities), *self._around(first, last, own),
            )  # fmt: skip
            yield Suspicion(
                best.error, best.mean, _shown(span), _shown(best.proposed), _numbers(evidence)
            )

    def missing(self) -> Iterator[Suspicion]:
        """Yield entities where there is no label; of overlapping ones only the likeliest."""
        found = []
        for begin in self._begins:
            if self._taken[begin] or self._outside[begin] > np.log(_OUTSIDE):
                continue
            first_end = bisect_right(self._ends, begin)
            for end in self._ends[first_end : first_end + LONGEST]:
                if self._taken[begin:end].any():
                    break
                gains = self._whole(begin, end) - self._none(begin, end)
                found.append((float(gains.max()), begin, end, int(gains.argmax())))
        taken = np.zeros(len(self._words), np.bool_)
        for gain, begin, end, kind in sorted(found, key=lambda one: -one[0]):
            if taken[begin:end].any():
                continue
            taken[begin:end] = True
            size = end - begin
            total = self._whole(begin, end)[kind]
            means = self._of_type[begin:end].mean(axis=0)
            evidence = (
                gain, gain / size, total, total / size, means[kind] - np.logaddexp.reduce(means),
                self._elsewhere.shares[self._types[kind]], size, len(self._entities),
                begin > 0 and self._labelled[begin - 1],
                end < len(self._words) and self._labelled[end], *self._around(begin, end, kind),
            )  # fmt: skip
            proposed = self._entity(begin, end, kind)
            yield Suspicion(MISSING, gain / size, None, _shown(proposed), _numbers(evidence))

    def _around(self, first: int, last: int, kind: int) -> Iterator[Any]:
        """Yield evidence about an entity's borders, and how its words are labelled elsewhere."""
        words, odds = self._words, self._odds
        before, after = first - 1, last
        inner = odds[first:last]
        yield from (odds[before] if first else _BESIDE, odds[first], odds[last - 1])
        yield odds[after] if after < len(words) else _BESIDE
        yield (self._within[after, kind] - self._outside[after] if after < len(words) else _BESIDE)
        yield self._begin[first, kind] - self._within[first, kind]
        yield from (inner.mean(), inner.min(), inner.max())
        yield self._of_type[before, kind] if first else _BESIDE
        yield from (first == 0, last == len(words))
        start, end = words[first][0], words[last - 1][1]
        yield from self._elsewhere.of_entity(self._text, start, end, self._types[kind])
        for number in (before, first, last - 1, after):
            yield from self._elsewhere.of_word(self._text, number)

    def _best_border(self, span: Span, place: tuple[int, int], own: int) -> list[_Change]:
        """Return changes of an entity's borders, a few units outwards and more inwards."""
        first, last = place
        after_first, before_last = bisect_right(self._begins, first), bisect_left(self._ends, last)
        begins = self._begins[max(0, after_first - _SHIFT - 1) : after_first]
        begins += [b for b in self._begins[after_first : after_first + LONGEST] if b < last]
        ends = [e for e in self._ends[max(0, before_last - LONGEST) : before_last] if e > first]
        ends += self._ends[before_last : before_last + _SHIFT + 1]
        others = [(begin, end) for begin in begins for end in ends if begin < end]
        return [
            self._moved(span, place, other, kind)
            for other in others
            if other != place and not self._reaches_others(place, other)
            for kind in (own, None)
        ]

    def _reaches_others(self, place: tuple[int, int], other: tuple[int, int]) -> bool:
        """Return whether words of a place that are not in the first one are taken."""
        (first, last), (begin, end) = place, other
        return bool(self._taken[begin:first].any() or self._taken[last:end].any())

    def _moved(
        self, span: Span, place: tuple[int, int], other: tuple[int, int], kind: int | None
    ) -> _Change:
        """Compare an entity with one of a type at some place; None is the best other type.

        At the same place the type always changes.
        """
        (first, last), (begin, end) = place, other
        own = self._types.index(span.label)
        low, high = min(first, begin), max(last, end)
        before = self._none(low, first) + self._whole(first, last)[own] + self._none(last, high)
        gains = self._none(low, begin) + self._whole(begin, end) + self._none(end, high) - before
        keeps = kind is not None and place != other
        if not keeps:
            gains[own] = -np.inf
            kind = int(gains.argmax())
        assert kind is not None
        # With the same type, words inside both keep their tags, except at a new beginning.
        changed = high - low
        if keeps:
            changed = abs(first - begin) + abs(last - end) + (first != begin)
        error = WRONG_TYPE if place == other else WRONG_BORDER if keeps else WRONG_BOTH
        gain = max(float(gains[kind]), _NO_GAIN * (high - low))
        return _Change(gain, changed, error, self._entity(begin, end, kind))

    def _whole(self, begin: int, end: int) -> Any:
        """Return the log probability of an entity of each type, [K]."""
        inside = self._inside_before[end] - self._inside_before[begin + 1]
        return self._begin[begin] + inside

    def _none(self, begin: int, end: int) -> float:
        return float(self._outside_before[end] - self._outside_before[begin]) if begin < end else 0

    def _entity(self, begin: int, end: int, kind: int) -> Span:
        return Span(self._words[begin][0], self._words[end - 1][1], self._types[kind])


def _place(start: int, end: int, words: Sequence[WordSpan]) -> tuple[int, int] | None:
    """Return the first word that has one of the characters and the one after the last."""
    first = bisect_right(words, start, key=lambda word: word[1])
    last = bisect_left(words, end, lo=first, key=lambda word: word[0])
    return (first, last) if first < last else None


def _shown(span: Span | None) -> dict[str, Any] | None:
    return None if span is None else {"start": span.start, "end": span.end, "label": span.label}


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def spoiled_spans(
    types: Sequence[str],
    given: Sequence[Span],
    units: Sequence[WordSpan],
    error: str,
    generator: np.random.Generator,
) -> tuple[tuple[Span, ...], Is] | None:
    """Make one entity of a text wrong.

    Args:
        types: the entity types.
        given: the entities.
        units: the characters of what entities consist of.
        error: what becomes wrong, one of `SPAN_ERRORS`.
        generator: draws the entity and the change.

    Returns:
        The entities, and a function that returns whether a suspicion is about the change; None
        where there is no entity, or the drawn one cannot be changed so.
    """
    if error == SUPERFLUOUS:
        return _with_another(types, given, units, generator)
    if not given:
        return None
    old = _drawn(given, generator)
    others = [span for span in given if span is not old]
    if error == MISSING:
        return tuple(others), _is_at(old.start, old.end)
    if error == WRONG_TYPE:
        choices = [Span(old.start, old.end, kind) for kind in types if kind != old.label]
    else:
        choices = [
            span
            for span in _shifted(old, units)
            if not any(other.overlaps(span.start, span.end) for other in others)
        ]
    if not choices:
        return None
    new = _drawn(choices, generator)
    place = _is_at(min(old.start, new.start), max(old.end, new.end))
    return tuple(sorted([*others, new])), place


def _with_another(
    types: Sequence[str],
    given: Sequence[Span],
    units: Sequence[WordSpan],
    generator: np.random.Generator,
) -> tuple[tuple[Span, ...], Is] | None:
    """Add an entity of one unit (see `spoiled_spans`)."""
    covered = Stretches(borders_of(given))
    free = [unit for unit in units if not covered.touch(*unit)]
    if not free:
        return None
    start, end = _drawn(free, generator)
    return tuple(sorted([*given, Span(start, end, _drawn(types, generator))])), _is_at(start, end)


def _drawn(choices: Sequence[_T], generator: np.random.Generator) -> _T:
    return choices[int(generator.integers(len(choices)))]


def _shifted(span: Span, units: Sequence[WordSpan]) -> Iterator[Span]:
    """Yield an entity with one border moved by a unit."""
    place = _place(span.start, span.end, units)
    if place is None:
        return
    first, last = place
    for begin, end in ((first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)):
        if 0 <= begin < end <= len(units):
            yield Span(units[begin][0], units[end - 1][1], span.label)


def _is_at(start: int, end: int) -> Is:
    def is_at(suspicion: Suspicion) -> bool:
        return any(first < end and start < last for first, last in suspicion.regions)

    return is_at
