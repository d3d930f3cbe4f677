"""Metrics of tagging: strict entities, or tokens where every token has a class of its own.

An entity is right when its type and both its borders are, to the character. Where records have
tokens, and every entity begins and ends with one, the scores equal seqeval's default mode and
conlleval's. Without any entity, gold or predicted, the scores are 0, as seqeval's are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np

from manyheads.tasks.labels import OUTSIDE, Scheme, Span
from manyheads.tasks.metrics.counts import (
    Confusion,
    Ints,
    LabelCounts,
    LabelReport,
    SentenceCounts,
    confusions,
    same_length,
    share,
    tally,
)


@dataclass(frozen=True, slots=True)
class TaggedText:
    """A text's entities and the tags of its tokens, gold or predicted.

    Two are equal when their entities are; of tags that are plain classes, when the tags are.
    """

    tags: tuple[str, ...] = field(compare=False)
    """One per token, for the same tokens in gold and prediction."""
    entities: frozenset[Span] | None = None
    """None where tags are plain classes."""
    _compared: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compared", self.tags if self.entities is None else ())


class TaggingMetrics(TypedDict):
    """Scores of tags; `precision`, `recall` and `f1` are micro averages over the entities.

    `confusions` are entities with the right borders and the wrong type. Under `Scheme.PLAIN` they
    are averages over the tokens, and `O` is no class.
    """

    precision: float
    recall: float
    f1: float
    f1_macro: float
    token_accuracy: float
    per_type: dict[str, LabelReport]
    confusions: list[Confusion]


def tagging_metrics(
    gold: Sequence[TaggedText], predicted: Sequence[TaggedText], scheme: Scheme = Scheme.BIO
) -> TaggingMetrics:
    """Score the tags of texts.

    Args:
        gold: the right entities and tags of each text.
        predicted: the predicted ones.
        scheme: how tags make entities.

    Raises:
        ValueError: the numbers of texts, or of a text's tags, differ.
    """
    same_length(gold, predicted)
    for i, (one, other) in enumerate(zip(gold, predicted, strict=True)):
        if len(one.tags) != len(other.tags):
            raise ValueError(
                f"text {i} has {len(one.tags)} gold and {len(other.tags)} predicted tags"
            )
    pairs = [
        pair
        for g, p in zip(gold, predicted, strict=True)
        for pair in zip(g.tags, p.tags, strict=True)
    ]
    compared = _of_tokens(pairs) if scheme is Scheme.PLAIN else _of_entities(gold, predicted)
    names = tuple(sorted({*compared.gold, *compared.predicted}))
    number = {name: i for i, name in enumerate(names)}

    def numbers(labels: Iterable[str]) -> Ints:
        return np.fromiter((number[label] for label in labels), np.int64)

    counts = LabelCounts(names, *(tally(numbers(labels), len(names)) for labels in compared[:3]))
    micro = counts.micro()
    return {
        "precision": micro["precision"],
        "recall": micro["recall"],
        "f1": micro["f1"],
        "f1_macro": counts.macro()["f1"],
        "token_accuracy": share(sum(a == b for a, b in pairs), len(pairs)),
        "per_type": dict(sorted(counts.reports().items())),
        "confusions": confusions(
            numbers(a for a, _ in compared.aligned), numbers(b for _, b in compared.aligned), names
        ),
    }


class _Compared(NamedTuple):
    """The labels of tokens or entities, gold and predicted."""

    hits: Sequence[str]
    predicted: Sequence[str]
    gold: Sequence[str]
    aligned: Sequence[tuple[str, str]]
    """Gold and predicted labels of the same token, or of entities with the same borders."""


def _of_tokens(pairs: Sequence[tuple[str, str]]) -> _Compared:
    """Compare the tags of tokens, gold and predicted; `O` is not a class."""
    return _Compared(
        [a for a, b in pairs if a == b != OUTSIDE],
        [b for _, b in pairs if b != OUTSIDE],
        [a for a, _ in pairs if a != OUTSIDE],
        [(a, b) for a, b in pairs if OUTSIDE not in (a, b)],
    )


def _of_entities(gold: Sequence[TaggedText], predicted: Sequence[TaggedText]) -> _Compared:
    """Compare the entities of texts."""
    texts = list(zip(gold, predicted, strict=True))
    return _Compared(
        [span.label for g, p in texts for span in _entities(g) & _entities(p)],
        [span.label for _, p in texts for span in _entities(p)],
        [span.label for g, _ in texts for span in _entities(g)],
        [pair for g, p in texts for pair in _bounded(g, p)],
    )


def entity_counts(gold: Sequence[TaggedText], predicted: Sequence[TaggedText]) -> SentenceCounts:
    """Count for each text what it adds to the metrics of entities.

    A text is correct when it has exactly the right entities.
    """
    same_length(gold, predicted)
    both = [len(_entities(g) & _entities(p)) for g, p in zip(gold, predicted, strict=True)]
    hits, guess, right = (
        np.array(values, np.int64)
        for values in (
            both,
            [len(_entities(p)) for p in predicted],
            [len(_entities(g)) for g in gold],
        )
    )
    return SentenceCounts((hits == guess) & (hits == right), hits, guess, right)


def _entities(text: TaggedText) -> frozenset[Span]:
    return frozenset() if text.entities is None else text.entities


def _bounded(gold: TaggedText, predicted: TaggedText) -> list[tuple[str, str]]:
    """Return the types of the gold and predicted entities that have the same borders."""
    types = {(span.start, span.end): span.label for span in _entities(gold)}
    return [
        (types[borders], span.label)
        for span in sorted(_entities(predicted))
        if (borders := (span.start, span.end)) in types
    ]
