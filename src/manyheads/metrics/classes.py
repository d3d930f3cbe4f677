"""Metrics of sentence labels: one class a sentence, or any number of them.

Equal to scikit-learn's, with its rule for macro averages: they are over the labels that occur,
as gold or as prediction. Gold labels that the model does not know (index -1) are never right;
together they count as one more label, which `per_class` calls `<unknown>`.

Arrays: B sentences, L labels (with the unknown one, the last).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypedDict

import numpy as np

from manyheads.metrics.counts import (
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


class ClassificationMetrics(TypedDict):
    """Scores of one class a sentence; `precision`, `recall` and `f1` are macro averages."""

    accuracy: float
    precision: float
    recall: float
    f1: float
    f1_micro: float
    per_class: dict[str, LabelReport]
    confusions: list[Confusion]


class MultilabelMetrics(TypedDict):
    """Scores of any number of classes a sentence.

    `accuracy` is the share of sentences with exactly the right set; `precision`, `recall` and
    `f1` are macro averages.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    f1_micro: float
    per_class: dict[str, LabelReport]


def classification_metrics(
    gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str]
) -> ClassificationMetrics:
    """Score one class a sentence.

    Args:
        gold: the right class of each sentence, an index into `labels`, or -1 for a class that
            the model does not know.
        predicted: the class predicted for each sentence.
        labels: the names of the classes.

    Raises:
        ValueError: the numbers of sentences differ, or an index is not one of `labels`.
    """
    same_length(gold, predicted)
    names = _names(labels)
    right = _indices(gold, len(labels), unknown=True)
    said = _indices(predicted, len(labels), unknown=False)
    hits = right[right == said]
    counts = LabelCounts(names, *(tally(x, len(names)) for x in (hits, said, right)))
    macro = counts.macro()
    return {
        "accuracy": share(len(hits), len(right)),
        "precision": macro["precision"],
        "recall": macro["recall"],
        "f1": macro["f1"],
        "f1_micro": counts.micro()["f1"],
        "per_class": counts.reports(),
        "confusions": confusions(right, said, names),
    }


def classification_counts(gold: Sequence[int], predicted: Sequence[int]) -> SentenceCounts:
    """Count for each sentence what it adds to the metrics of `classification_metrics`."""
    same_length(gold, predicted)
    correct = np.asarray(gold, np.int64) == np.asarray(predicted, np.int64)
    one = np.ones(len(gold), np.int64)
    return SentenceCounts(correct, correct.astype(np.int64), one, one)


def multilabel_metrics(
    gold: Sequence[frozenset[int]], predicted: Sequence[frozenset[int]], labels: Sequence[str]
) -> MultilabelMetrics:
    """Score any number of classes a sentence.

    Args:
        gold: the right classes of each sentence, indices into `labels`; -1 stands for classes
            that the model does not know.
        predicted: the classes predicted for each sentence.
        labels: the names of the classes.

    Raises:
        ValueError: the numbers of sentences differ, or an index is not one of `labels`.
    """
    same_length(gold, predicted)
    names = _names(labels)
    right = _pairs(gold, len(labels), unknown=True)
    said = _pairs(predicted, len(labels), unknown=False)
    hits = np.intersect1d(right, said, assume_unique=True)
    counts = LabelCounts(
        names, *(tally(pairs % len(names), len(names)) for pairs in (hits, said, right))
    )
    sentences = _sentence_counts(len(gold), len(names), hits, said, right)
    macro = counts.macro()
    return {
        "accuracy": share(sentences.correct.sum(), len(gold)),
        "precision": macro["precision"],
        "recall": macro["recall"],
        "f1": macro["f1"],
        "f1_micro": counts.micro()["f1"],
        "per_class": counts.reports(),
    }


def multilabel_counts(
    gold: Sequence[frozenset[int]], predicted: Sequence[frozenset[int]], labels: Sequence[str]
) -> SentenceCounts:
    """Count for each sentence what it adds to the metrics of `multilabel_metrics`."""
    same_length(gold, predicted)
    right = _pairs(gold, len(labels), unknown=True)
    said = _pairs(predicted, len(labels), unknown=False)
    hits = np.intersect1d(right, said, assume_unique=True)
    return _sentence_counts(len(gold), len(labels) + 1, hits, said, right)


def _sentence_counts(
    sentences: int, labels: int, hits: Ints, said: Ints, right: Ints
) -> SentenceCounts:
    per_sentence = [tally(pairs // labels, sentences) for pairs in (hits, said, right)]
    correct = (per_sentence[0] == per_sentence[1]) & (per_sentence[0] == per_sentence[2])
    return SentenceCounts(correct, *per_sentence)


def _names(labels: Sequence[str]) -> tuple[str, ...]:
    unknown = "<unknown>"
    while unknown in labels:
        unknown = f"<{unknown}>"
    return (*labels, unknown)


def _indices(values: Sequence[int] | Ints, labels: int, *, unknown: bool) -> Ints:
    """Return checked indices, the unknown label as the last one, `labels`."""
    indices = np.asarray(values, np.int64)
    wrong = (indices >= labels) | (indices < (UNKNOWN if unknown else 0))
    if wrong.any():
        what = "gold" if unknown else "predicted"
        raise ValueError(f"{what} index {indices[wrong][0]} is not one of {labels} labels")
    return np.where(indices == UNKNOWN, labels, indices)


def _pairs(sets: Sequence[frozenset[int]], labels: int, *, unknown: bool) -> Ints:
    """Write each label of each sentence as one number: sentence * (labels + 1) + label."""
    sizes = np.fromiter(map(len, sets), np.int64, len(sets))
    flat = np.fromiter(chain.from_iterable(sets), np.int64, int(sizes.sum()))
    sentence = np.repeat(np.arange(len(sets), dtype=np.int64), sizes)
    pairs: Ints = sentence * (labels + 1) + _indices(flat, labels, unknown=unknown)
    return pairs
