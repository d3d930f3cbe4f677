"""Labels that are likely wrong, according to models that did not see them in training.

Axes: W words, L labels, K types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from manyheads.errors import DataError, shorten
from manyheads.tasks.decisions import WRONG_BORDER, WRONG_BOTH, WRONG_CLASS, WRONG_TYPE
from manyheads.tasks.labels import OUTSIDE, Span, TagSet, WordSpan
from manyheads.tasks.tag_sequences import Floats

_T = TypeVar("_T")

MISSING = "missing"
SUPERFLUOUS = "superfluous"

LONGEST = 4
"""The longest unlabelled entity that is looked for, in units such as tokens."""
_SHIFT = 2
"""The number of units by which a border is moved outwards at most."""
_LEAST = 0.01
"""Share of a uniform distribution mixed into the probabilities, so that no single word decides."""
_OUTSIDE = 0.95
"""From this probability of no entity, a word is not searched for one."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A part of a record's label that is likely wrong, and a proposal for it.

    Both parts are JSON values: the name of a class, or `{"start", "end", "label"}` of an entity;
    None where there is none.
    """

    error: str
    score: float
    """How much more likely the proposal is than the label: the difference of their log
    probabilities; for an entity, the mean over the words that change."""
    given: Any
    proposed: Any
    evidence: tuple[float, ...] = ()
    """Features from which a ranking can be learned; as many for all suspicions of a kind."""


Is = Callable[[Suspicion], bool]
"""Returns whether a suspicion is about a part of a label that was made wrong."""


def no_part(label: Any, given: Any, proposed: Any) -> DataError:
    """Return the error for a proposal that does not fit a label."""
    return DataError(
        f"{shorten(given)} cannot become {shorten(proposed)} in the label {shorten(label)}",
        expected="a part of the label as it is in the data, and another one in its place",
        fix="Correct the line, or remove it.",
    )


def span_of_json(value: Any) -> Span | None:
    """Read an entity of a suspicion.

    Raises:
        DataError: it is not one.
    """
    if value is None:
        return None
    try:
        span = Span(value["start"], value["end"], value["label"])
        if not (type(span.start) is type(span.end) is int and 0 <= span.start < span.end):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"an entity is {shorten(value)}",
            expected='{"start": 0, "end": 5, "label": "PER"} or null',
        ) from None
    return span


def class_suspicion(names: Sequence[str], given: str, logs: Floats) -> Suspicion | None:
    """Compare the class of a text with the most probable alternative.

    Args:
        names: of the classes.
        given: the class.
        logs: [L] log probabilities.
    """
    if given not in names or len(names) < 2:
        return None
    own = names.index(given)
    others = np.where(np.arange(len(names)) == own, -np.inf, logs)
    best = int(others.argmax())
    return Suspicion(WRONG_CLASS, float(logs[best] - logs[own]), given, names[best])


def classes_suspicions(names: Sequence[str], given: Sequence[str], logs: Floats) -> list[Suspicion]:
    """Compare each class of a text, and the absence of each other one, with its opposite.

    Args:
        names: of the classes.
        given: those that apply.
        logs: [L] log probabilities that a class applies.
    """
    odds = logs - np.log(-np.expm1(np.minimum(logs, -1e-6)))
    return [
        Suspicion(SUPERFLUOUS, -float(value), name, None)
        if name in given
        else Suspicion(MISSING, float(value), None, name)
        for name, value in zip(names, odds, strict=True)
    ]


def span_suspicions(
    tags: TagSet,
    given: Sequence[Span],
    words: Sequence[WordSpan],
    units: Sequence[WordSpan],
    logs: Floats,
) -> list[Suspicion]:
    """Compare each entity with no entity, other types and other borders, and find missing ones.

    Overlapping changes exclude each other; only the best of them is returned.

    Args:
        tags: BIO tags.
        given: the entities of a text.
        words: the characters of its words.
        units: the characters of what entities consist of: the user's tokens, or the words.
        logs: [W, L] log probabilities of the tags of its words.
    """
    changes = _Changes(tags, given, words, units, logs)
    found = sorted([*changes.of_entities(), *changes.missing()], key=lambda one: -one.total)
    kept: list[_Change] = []
    taken = np.zeros(len(words), np.bool_)
    for change in found:
        if not taken[change.begin : change.end].any():
            taken[change.begin : change.end] = True
            kept.append(change)
    return [changes.suspicion(change) for change in kept]


@dataclass(frozen=True, slots=True)
class _Change:
    """An entity in place of another; either may be None."""

    total: float
    """The increase of the log probability of the text's tags."""
    changed: int
    """Words whose tag changes."""
    begin: int
    """The first word that the change affects; `end` is the one after the last."""
    end: int
    error: str
    given: Span | None
    proposed: Span | None


class _Changes:
    """Scores changes of a text's entities. Places are word numbers."""

    def __init__(
        self,
        tags: TagSet,
        given: Sequence[Span],
        words: Sequence[WordSpan],
        units: Sequence[WordSpan],
        logs: Floats,
    ) -> None:
        self._types, self._words = tags.types, words
        safe = np.log(np.exp(logs.astype(np.float64)) * (1 - _LEAST) + _LEAST / len(tags))
        outside = safe[:, tags.index(OUTSIDE)]
        begin = safe[:, [tags.index(f"B-{kind}") for kind in tags.types]]
        inside = safe[:, [tags.index(f"I-{kind}") for kind in tags.types]]
        self._begin, self._within, self._outside = begin, inside, outside
        self._inside_before = np.vstack([np.zeros(len(tags.types)), inside.cumsum(axis=0)])
        self._outside_before = np.append(0.0, outside.cumsum())
        starts, ends = {start for start, _ in units}, {end for _, end in units}
        self._begins = [i for i, (start, _) in enumerate(words) if start in starts]
        self._ends = [i + 1 for i, (_, end) in enumerate(words) if end in ends]
        self._entities = [(span, *place) for span in given if (place := _place(span, words))]
        self._labelled = np.zeros(len(words), np.bool_)
        for _, first, last in self._entities:
            self._labelled[first:last] = True

    def of_entities(self) -> Iterator[_Change]:
        """Yield the best change of each entity."""
        for span, first, last in self._entities:
            if span.label not in self._types:
                continue
            own = self._types.index(span.label)
            free = ~self._labelled
            free[first:last] = True
            gain = self._none(first, last) - float(self._whole(first, last)[own])
            best = _Change(gain, last - first, first, last, SUPERFLUOUS, span, None)
            begins = [b for b in self._begins if b < last]
            ends = [e for e in self._ends if e > first]
            # A few units outwards, and more inwards.
            begins = [b for b in begins if b <= first][-_SHIFT - 1 :] + [
                b for b in begins if b > first
            ][:LONGEST]
            ends = [e for e in ends if e < last][-LONGEST:] + [e for e in ends if e >= last][
                : _SHIFT + 1
            ]
            for begin in begins:
                for end in ends:
                    if begin < end and free[begin:end].all():
                        change = self._moved(span, (first, last), own, (begin, end))
                        best = max(best, change, key=lambda one: one.total)
            yield best

    def missing(self) -> Iterator[_Change]:
        """Yield entities where there is no label."""
        for begin in self._begins:
            if self._labelled[begin] or self._outside[begin] > np.log(_OUTSIDE):
                continue
            for end in [end for end in self._ends if end > begin][:LONGEST]:
                if self._labelled[begin:end].any():
                    break
                gains = self._whole(begin, end) - self._none(begin, end)
                kind = int(gains.argmax())
                proposed = self._entity(begin, end, kind)
                yield _Change(float(gains[kind]), end - begin, begin, end, MISSING, None, proposed)

    def suspicion(self, change: _Change) -> Suspicion:
        """Return a change with its mean over the words, so that long entities are not favoured."""
        given, proposed = (self._logs_of(change, one) for one in (change.given, change.proposed))
        gains = proposed - given
        outside = self._outside[change.begin : change.end]
        mean = change.total / change.changed
        evidence = (
            mean, change.total, gains.max(), gains.min(), given.mean(), given.min(),
            proposed.mean(), proposed.min(), outside.mean(), outside.min(),
            change.end - change.begin, change.changed,
        )  # fmt: skip
        old, new = (None if s is None else _shown(s) for s in (change.given, change.proposed))
        return Suspicion(change.error, mean, old, new, tuple(float(n) for n in evidence))

    def _logs_of(self, change: _Change, span: Span | None) -> Any:
        """Return the log probabilities of the words' tags, with an entity or none."""
        logs = self._outside[change.begin : change.end].copy()
        place = None if span is None else _place(span, self._words)
        if span is not None and place is not None:
            kind = self._types.index(span.label)
            first, last = place[0] - change.begin, place[1] - change.begin
            logs[first:last] = self._within[place[0] : place[1], kind]
            logs[first] = self._begin[place[0], kind]
        return logs

    def _moved(
        self, span: Span, place: tuple[int, int], own: int, other: tuple[int, int]
    ) -> _Change:
        """Compare an entity with the best of other types or borders at some place."""
        (first, last), (begin, end) = place, other
        low, high = min(first, begin), max(last, end)
        before = self._none(low, first) + self._whole(first, last)[own] + self._none(last, high)
        gains = self._none(low, begin) + self._whole(begin, end) + self._none(end, high) - before
        if place == other:
            gains[own] = -np.inf
        kind = int(gains.argmax())
        # With the same type, words inside both keep their tags, except at a new beginning.
        changed = high - low
        if kind == own:
            changed = abs(first - begin) + abs(last - end) + (first != begin)
        error = WRONG_TYPE if place == other else WRONG_BORDER if kind == own else WRONG_BOTH
        proposed = self._entity(begin, end, kind)
        return _Change(float(gains[kind]), changed, low, high, error, span, proposed)

    def _whole(self, begin: int, end: int) -> Any:
        """Return the log probability of an entity of each type, [K]."""
        inside = self._inside_before[end] - self._inside_before[begin + 1]
        return self._begin[begin] + inside

    def _none(self, begin: int, end: int) -> float:
        return float(self._outside_before[end] - self._outside_before[begin]) if begin < end else 0

    def _entity(self, begin: int, end: int, kind: int) -> Span:
        return Span(self._words[begin][0], self._words[end - 1][1], self._types[kind])


def _place(span: Span, words: Sequence[WordSpan]) -> tuple[int, int] | None:
    """Return the first word of a span and the one after its last."""
    inside = [i for i, (start, end) in enumerate(words) if start < span.end and span.start < end]
    return (inside[0], inside[-1] + 1) if inside else None


def _shown(span: Span) -> dict[str, Any]:
    return {"start": span.start, "end": span.end, "label": span.label}


def spoiled_spans(
    types: Sequence[str],
    given: Sequence[Span],
    units: Sequence[WordSpan],
    generator: np.random.Generator,
) -> tuple[tuple[Span, ...], Is] | None:
    """Make one entity of a text wrong: its type, a border, missing or superfluous.

    Args:
        types: the entity types.
        given: the entities.
        units: the characters of what entities consist of.
        generator: draws what becomes wrong.

    Returns:
        The entities, and a function that returns whether a suspicion is about the change; None
        where what was drawn is not possible.
    """
    error = (WRONG_TYPE, WRONG_BORDER, MISSING, SUPERFLUOUS)[generator.integers(4)]
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
    free = [unit for unit in units if not any(span.overlaps(*unit) for span in given)]
    if not free:
        return None
    start, end = _drawn(free, generator)
    return tuple(sorted([*given, Span(start, end, _drawn(types, generator))])), _is_at(start, end)


def _drawn(choices: Sequence[_T], generator: np.random.Generator) -> _T:
    return choices[int(generator.integers(len(choices)))]


def _shifted(span: Span, units: Sequence[WordSpan]) -> Iterator[Span]:
    """Yield an entity with one border moved by a unit."""
    place = _place(span, units)
    if place is None:
        return
    first, last = place
    for begin, end in ((first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)):
        if 0 <= begin < end <= len(units):
            yield Span(units[begin][0], units[end - 1][1], span.label)


def _is_at(start: int, end: int) -> Is:
    def is_at(suspicion: Suspicion) -> bool:
        parts = [part for part in (suspicion.given, suspicion.proposed) if part is not None]
        return any(part["start"] < end and start < part["end"] for part in parts)

    return is_at
