"""Counts of hits, predictions and gold labels, from which the metrics of labels are computed.

A share without anything to divide by is 0, never NaN: precision without a prediction, recall
without a gold label, F1 without either, accuracy without a record. This is what scikit-learn
calls `zero_division=0`, and JSON has no NaN.

Arrays: B sentences, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

UNKNOWN = -1
"""The index of a gold label that is unknown to the model."""

NO_ANSWER = -2
"""The index for no prediction, as for a text without words; never right."""

MAX_CONFUSIONS = 10


class LabelReport(TypedDict):
    """One label's part of a report; `support` is the number of its gold labels."""

    precision: float
    recall: float
    f1: float
    support: int


class Confusion(TypedDict):
    """A label that was mistaken for another, and how often."""

    gold: str
    predicted: str
    count: int


class Averages(TypedDict):
    """Scores over several labels at once."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, eq=False)
class SentenceCounts:
    """Each sentence's contribution to a task's metrics, for paired tests and frame accuracy.

    Args:
        correct: bool [B], whether all of the sentence is right.
        hits: int64 [B], labels (or entities) both predicted and right.
        predicted: int64 [B], labels predicted.
        gold: int64 [B], labels that are right.
    """

    correct: NDArray[np.bool_]
    hits: Ints
    predicted: Ints
    gold: Ints


@dataclass(frozen=True, slots=True, eq=False)
class LabelCounts:
    """By label, the numbers of predictions, of gold labels and of hits: int64 [L] each."""

    names: tuple[str, ...]
    hits: Ints
    predicted: Ints
    gold: Ints

    def reports(self) -> dict[str, LabelReport]:
        """Report each label that occurs, as gold or as prediction."""
        precision, recall, f1 = self._scores()
        return {
            self.names[i]: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(self.gold[i]),
            }
            for i in np.flatnonzero(self._present())
        }

    def macro(self) -> Averages:
        """Average over the labels that occur, each weighing the same."""
        present = self._present()
        if not present.any():
            return {"precision": 0.0, "recall": 0.0, "f1": 0.0}
        precision, recall, f1 = (float(scores[present].mean()) for scores in self._scores())
        return {"precision": precision, "recall": recall, "f1": f1}

    def micro(self) -> Averages:
        """Score all decisions together, whatever their label."""
        hits, predicted, gold = self.hits.sum(), self.predicted.sum(), self.gold.sum()
        return {
            "precision": share(hits, predicted),
            "recall": share(hits, gold),
            "f1": share(2 * hits, predicted + gold),
        }

    def _present(self) -> NDArray[np.bool_]:
        return (self.predicted > 0) | (self.gold > 0)

    def _scores(self) -> tuple[Floats, Floats, Floats]:
        return (
            shares(self.hits, self.predicted),
            shares(self.hits, self.gold),
            shares(2 * self.hits, self.predicted + self.gold),
        )


def share(part: float | np.integer, whole: float | np.integer) -> float:
    """Divide, or return 0 where there is nothing to divide by."""
    return float(part / whole) if whole else 0.0


def shares(part: Ints | Floats, whole: Ints | Floats) -> Floats:
    """Divide number by number, with 0 where there is nothing to divide by."""
    result: Floats = np.zeros(len(part))
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def tally(labels: Ints, count: int) -> Ints:
    """Count each label: int64 [count]."""
    return np.bincount(labels, minlength=count).astype(np.int64, copy=False)


def confusions(gold: Ints, predicted: Ints, names: Sequence[str]) -> list[Confusion]:
    """List the most frequent wrong pairs of labels, the most frequent first.

    Args:
        gold, predicted: the labels of the same decisions, as indices into `names`.
    """
    wrong = gold != predicted
    pairs, counts = np.unique(gold[wrong] * len(names) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_CONFUSIONS]
    return [
        {
            "gold": names[pairs[i] // len(names)],
            "predicted": names[pairs[i] % len(names)],
            "count": int(counts[i]),
        }
        for i in order
    ]


def same_length(gold: Sequence[object], predicted: Sequence[object]) -> None:
    """Refuse predictions whose number differs from that of the gold labels.

    Raises:
        ValueError: the numbers differ.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(predicted)} predictions for {len(gold)} gold labels")


def frame_accuracy(correct: Mapping[str, Sequence[bool | None]]) -> float | None:
    """Return the share of sentences in which all labelled tasks are right; None without any.

    Args:
        correct: for each task, whether it is right in each sentence; None where the sentence is
            not labelled for it. A sentence that is labelled for no task does not count.

    Raises:
        ValueError: the tasks have different numbers of sentences.
    """
    if len({len(answers) for answers in correct.values()}) > 1:
        lengths = {task: len(answers) for task, answers in correct.items()}
        raise ValueError(f"the tasks differ in the number of sentences: {lengths}")
    frames = [one for one in frames_of(correct) if one is not None]
    return share(sum(frames), len(frames)) if frames else None


def frames_of(correct: Mapping[str, Sequence[bool | None]]) -> list[bool | None]:
    """Return whether all labelled tasks are right, by sentence; None where none is labelled."""
    known = ([one for one in row if one is not None] for row in zip(*correct.values(), strict=True))
    return [all(answers) if answers else None for answers in known]
