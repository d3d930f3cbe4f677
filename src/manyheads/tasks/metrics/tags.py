"""Metrics of tagging: strict entities, or tokens where every token has a class of its own.

An entity is right when its type and both its borders are. Tags are read by `labels.to_bio`, so that
the scores equal seqeval's default mode and conlleval's, ill-formed sequences
included. Without any entity, gold or predicted, the scores are 0, as seqeval's are.

Entities are found with arrays over the tokens of all sentences at once: a million tokens take
well under a second. Arrays: N tokens of all sentences, B sentences, K entity types.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.labels import OUTSIDE, Scheme, to_bio
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

Bools = NDArray[np.bool_]


class TaggingMetrics(TypedDict):
    """Scores of tags; `precision`, `recall` and `f1` are micro averages over the entities.

    `confusions` are entities with the right borders and the wrong type. Under `Scheme.PLAIN`
    every token counts as an entity of its own.
    """

    precision: float
    recall: float
    f1: float
    f1_macro: float
    token_accuracy: float
    per_type: dict[str, LabelReport]
    confusions: list[Confusion]


def tagging_metrics(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: Scheme = Scheme.BIO,
) -> TaggingMetrics:
    """Score the tags of sentences.

    Args:
        gold: the right tag of each token of each sentence.
        predicted: the tags predicted for the same tokens.
        scheme: how tags make entities.

    Raises:
        ValueError: the numbers of sentences, or of a sentence's tags, differ.
    """
    comparison = _compare(gold, predicted, scheme)
    names = comparison.names
    right, guess = comparison.gold, comparison.predicted
    counts = LabelCounts(
        names,
        tally(right.kinds[comparison.hits], len(names)),
        tally(guess.kinds[guess.begins], len(names)),
        tally(right.kinds[right.begins], len(names)),
    )
    micro = counts.micro()
    bounded = comparison.bounded
    return {
        "precision": micro["precision"],
        "recall": micro["recall"],
        "f1": micro["f1"],
        "f1_macro": counts.macro()["f1"],
        "token_accuracy": share(comparison.equal_tags, len(comparison.sentence)),
        "per_type": dict(sorted(counts.reports().items())),
        "confusions": confusions(right.kinds[bounded], guess.kinds[bounded], names),
    }


def tagging_counts(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: Scheme = Scheme.BIO,
) -> SentenceCounts:
    """Count for each sentence what it adds to the metrics of `tagging_metrics`.

    A sentence is correct when it has exactly the right entities.
    """
    comparison = _compare(gold, predicted, scheme)
    hits, guess, right = (
        tally(comparison.sentence[mask], len(gold))
        for mask in (comparison.hits, comparison.predicted.begins, comparison.gold.begins)
    )
    return SentenceCounts((hits == guess) & (hits == right), hits, guess, right)


@dataclass(frozen=True, slots=True, eq=False)
class _Entities:
    """Where entities begin (bool [N]), of which type (int64 [N]) and length there (int64 [N])."""

    begins: Bools
    kinds: Ints
    lengths: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """Gold and predicted entities of the same tokens.

    Args:
        names: the entity types; kind 0 is no entity.
        sentence: int64 [N], each token's sentence.
        equal_tags: tokens whose tags are the same.
        bounded: bool [N], where a gold and a predicted entity begin that end together.
        hits: bool [N], the same, of one type.
    """

    names: tuple[str, ...]
    sentence: Ints
    gold: _Entities
    predicted: _Entities
    equal_tags: int
    bounded: Bools
    hits: Bools


class _Codes(dict[str, int]):
    """Numbers the distinct tags in the order in which they are first seen."""

    def __missing__(self, tag: str) -> int:
        self[tag] = code = len(self)
        return code

    def of(self, sentences: Iterable[Iterable[str]], tokens: int) -> Ints:
        return np.fromiter(map(self.__getitem__, chain.from_iterable(sentences)), np.int64, tokens)


def _compare(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme
) -> _Comparison:
    same_length(gold, predicted)
    lengths = np.fromiter(map(len, gold), np.int64, len(gold))
    differs = lengths != np.fromiter(map(len, predicted), np.int64, len(gold))
    if differs.any():
        i = int(np.argmax(differs))
        raise ValueError(
            f"sentence {i} has {len(gold[i])} gold and {len(predicted[i])} predicted tags"
        )
    tokens = int(lengths.sum())
    sentence = np.repeat(np.arange(len(gold), dtype=np.int64), lengths)
    first = np.ones(tokens, bool)
    first[1:] = sentence[1:] != sentence[:-1]

    codes = _Codes()
    gold_codes, predicted_codes = codes.of(gold, tokens), codes.of(predicted, tokens)
    names, readings = _read_tags(tuple(codes), scheme)
    right = _entities(readings[gold_codes], first)
    guess = _entities(readings[predicted_codes], first)
    bounded = right.begins & guess.begins & (right.lengths == guess.lengths)
    return _Comparison(
        names=names,
        sentence=sentence,
        gold=right,
        predicted=guess,
        equal_tags=int((gold_codes == predicted_codes).sum()),
        bounded=bounded,
        hits=bounded & (right.kinds == guess.kinds),
    )


def _read_tags(tags: Sequence[str], scheme: Scheme) -> tuple[tuple[str, ...], Ints]:
    """Return the entity types, and for each tag [kind, opens, closes]: int64 [tags, 3].

    `to_bio` decides whether a tag opens or closes an entity among tags of its own type, so that
    there is one reading of tags.
    """
    kinds: dict[str | None, int] = {None: 0}
    readings = []
    for tag in tags:
        if scheme is Scheme.PLAIN:
            readings.append((kinds.setdefault(tag, len(kinds)), True, True))
            continue
        kind = to_bio([tag])[0][2:]
        if not kind:
            readings.append((0, False, False))
            continue
        inside = f"I-{kind}"
        opens = to_bio([inside, tag])[1] != inside
        closes = to_bio([tag, inside])[1] != inside
        readings.append((kinds.setdefault(kind, len(kinds)), opens, closes))
    names = tuple(OUTSIDE if kind is None else kind for kind in kinds)
    return names, np.array(readings, np.int64).reshape(-1, 3)


def _entities(readings: Ints, first: Bools) -> _Entities:
    """Find the entities of all sentences.

    Args:
        readings: int64 [N, 3], the meaning of each token's tag (see `_read_tags`).
        first: bool [N], whether a token is the first of its sentence.
    """
    kinds, opens, closes = readings.T
    inside = kinds > 0
    begins = inside & ((opens > 0) | first)
    begins[1:] |= inside[1:] & ((kinds[1:] != kinds[:-1]) | (closes[:-1] > 0))
    # Tokens inside an entity belong to the last one that has begun.
    number = np.cumsum(begins)[inside] - 1
    lengths = np.zeros(len(kinds), np.int64)
    lengths[begins] = np.bincount(number, minlength=int(begins.sum()))
    return _Entities(begins, kinds, lengths)
