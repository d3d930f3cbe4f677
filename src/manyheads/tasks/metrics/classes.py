"""Metrics of sentence labels: one class per sentence, or any number of them.

Equal to scikit-learn's, with its rule for macro averages: they are over the labels that occur,
as gold or as prediction. Gold labels that are unknown to the model (index -1) are never right;
together they count as one more label, which `per_class` calls `<unknown>`. A sentence without a
prediction (index -2) costs recall and accuracy, but no label's precision.

Inside this module label L, after the L known ones, is the unknown label and L + 1 no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypedDict

import numpy as np

from manyheads.tasks.metrics.counts import (
    NO_ANSWER,
    UNKNOWN,
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


class MultilabelMetrics(TypedDict):
    """Scores of any number of classes per sentence.

    `accuracy` is the share of sentences with exactly the right set; `precision`, `recall` and
    `f1` are macro averages.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    f1_micro: float
    per_class: dict[str, LabelReport]


class ClassificationMetrics(MultilabelMetrics):
    """Scores of one class per sentence; the set of a sentence is that class."""

    confusions: list[Confusion]


def classification_metrics(
    gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]
) -> ClassificationMetrics:
    """Score one class per sentence.

    Args:
        gold: the right class of each sentence, an index into `labels`, or -1 for a class that
            the model does not know.
        predicted: the class predicted for each sentence, or -2 where none is.
        labels: the names of the classes.

    Raises:
        ValueError: the numbers of sentences differ, or an index is not one of `labels`.
    """
    same_length(gold, predicted)
    names = (*labels, _special("unknown", labels))
    right = _indices("gold", gold, len(labels), unknown=True)
    guess = _indices("predicted", predicted, len(labels), no_answer=True)
    hits = right[right == guess]
    counts = LabelCounts(
        names, *(tally(x, len(names)) for x in (hits, guess[guess < len(names)], right))
    )
    return {
        **_metrics(share(len(hits), len(right)), counts),
        "confusions": confusions(right, guess, (*names, _special("no answer", labels))),
    }


def classification_counts(gold: Sequence[int], predicted: Sequence[int]) -> SentenceCounts:
    """Count for each sentence what it adds to the metrics of `classification_metrics`."""
    same_length(gold, predicted)
    right, guess = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    correct = right == guess
    answered = (guess != NO_ANSWER).astype(np.int64)
    return SentenceCounts(correct, correct.astype(np.int64), answered, np.ones_like(right))


def multilabel_metrics(
    gold: Sequence[frozenset[int]], predicted: Sequence[frozenset[int]], labels: Sequence[str]
) -> MultilabelMetrics:
    """Score any number of classes per sentence.

    Args:
        gold: the right classes of each sentence, indices into `labels`; -1 means classes
            that the model does not know.
        predicted: the classes predicted for each sentence.
        labels: the names of the classes.

    Raises:
        ValueError: the numbers of sentences differ, or an index is not one of `labels`.
    """
    same_length(gold, predicted)
    names = (*labels, _special("unknown", labels))
    right = _pairs("gold", gold, len(labels), unknown=True)
    guess = _pairs("predicted", predicted, len(labels))
    hits = np.intersect1d(right, guess, assume_unique=True)
    counts = LabelCounts(
        names, *(tally(pairs % len(names), len(names)) for pairs in (hits, guess, right))
    )
    sentences = _sentence_counts(len(gold), len(names), hits, guess, right)
    return _metrics(share(sentences.correct.sum(), len(gold)), counts)


def multilabel_counts(
    gold: Sequence[frozenset[int]], predicted: Sequence[frozenset[int]], labels: Sequence[str]
) -> SentenceCounts:
    """Count for each sentence what it adds to the metrics of `multilabel_metrics`."""
    same_length(gold, predicted)
    right = _pairs("gold", gold, len(labels), unknown=True)
    guess = _pairs("predicted", predicted, len(labels))
    hits = np.intersect1d(right, guess, assume_unique=True)
    return _sentence_counts(len(gold), len(labels) + 1, hits, guess, right)


def _metrics(accuracy: float, counts: LabelCounts) -> MultilabelMetrics:
    macro = counts.macro()
    return {
        "accuracy": accuracy,
        "precision": macro["precision"],
        "recall": macro["recall"],
        "f1": macro["f1"],
        "f1_micro": counts.micro()["f1"],
        "per_class": counts.reports(),
    }


def _sentence_counts(
    sentences: int, labels: int, hits: Ints, guess: Ints, right: Ints
) -> SentenceCounts:
    per_sentence = [tally(pairs // labels, sentences) for pairs in (hits, guess, right)]
    correct = (per_sentence[0] == per_sentence[1]) & (per_sentence[0] == per_sentence[2])
    return SentenceCounts(correct, *per_sentence)


def _special(meaning: str, labels: Sequence[str]) -> str:
    """Return a name in angle brackets that no label has."""
    name = f"<{meaning}>"
    while name in labels:
        name = f"<{name}>"
    return name


def _indices(
    what: str,
    values: Sequence[int] | Ints,
    labels: int,
    *,
    unknown: bool = False,
    no_answer: bool = False,
) -> Ints:
    """Return checked indices, -1 as `labels` and -2 as `labels + 1` where they are allowed."""
    indices = np.asarray(values, np.int64)
    wrong = (indices >= labels) | (indices < 0)
    if unknown:
        wrong &= indices != UNKNOWN
    if no_answer:
        wrong &= indices != NO_ANSWER
    if wrong.any():
        raise ValueError(f"{what} index {indices[wrong][0]} is not one of {labels} labels")
    return np.where(indices < 0, labels - 1 - indices, indices)


def _pairs(
    what: str, sets: Sequence[frozenset[int]], labels: int, *, unknown: bool = False
) -> Ints:
    """Write each label of each sentence as one number: sentence * (labels + 1) + label."""
    sizes = np.fromiter(map(len, sets), np.int64, len(sets))
    flat = np.fromiter(chain.from_iterable(sets), np.int64, int(sizes.sum()))
    sentence = np.repeat(np.arange(len(sets), dtype=np.int64), sizes)
    indices = _indices(what, flat, labels, unknown=unknown)
    pairs: Ints = sentence * (labels + 1) + indices
    return pairs
