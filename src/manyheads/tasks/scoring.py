"""How a task's results are scored: calibration, thresholds and candidates.

Axes: N records, L labels, D decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, option, shorten
from manyheads.tasks.calibration import Calibration

CANDIDATES = 3
"""The number of candidates shown in place of an undecided label, unless `top_k` is set."""


NEVER = 2.0
"""The threshold of a label that is never decided: no score reaches it."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The scores from which at least a given share of a task's answers is right."""

    precision: float
    """The requested share."""
    confidence: float
    """The probability that the precision holds on new data of the same kind."""
    score: float
    """The score from which an answer counts, for labels without a score of their own."""
    labels: Mapping[str, float] = field(default_factory=dict)
    """By label, where there was enough evidence; `NEVER` where no score is enough."""

    def of(self, label: str | None) -> float:
        """Return the score from which a label counts."""
        return self.score if label is None else self.labels.get(label, self.score)

    def to_json(self) -> dict[str, Any]:
        """Return the thresholds as a JSON object."""
        return {
            "precision": self.precision,
            "confidence": self.confidence,
            "score": self.score,
            "labels": dict(self.labels),
        }


def read_thresholds(stored: object, where: str) -> Thresholds:
    """Read stored thresholds strictly.

    Raises:
        ModelError: they are not what `Thresholds.to_json` returns.
    """
    values = stored if isinstance(stored, Mapping) else {}
    numbers = [values.get(name) for name in ("precision", "confidence", "score")]
    labels = values.get("labels")
    if isinstance(labels, Mapping):
        numbers += [0 if number == NEVER else number for number in labels.values()]
    able = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    if len(values) != 4 or not isinstance(labels, Mapping) or not able:
        able = False
    if not able or not all(0 <= number <= 1 for number in numbers if number is not None):
        raise ModelError(
            f"its thresholds are {shorten(stored)}",
            expected="a precision, a confidence, a score and scores by label, from 0 to 1 "
            f"({NEVER:g} for a label that is never decided)",
            fix="The model's files are damaged or were edited. Run: "
            + option("manyheads thresholds MODEL", "manyheads.thresholds(MODEL)"),
            where=where,
        )
    precision, confidence, score = (
        float(values[name]) for name in ("precision", "confidence", "score")
    )
    by_label = {str(name): float(value) for name, value in (labels or {}).items()}
    return Thresholds(precision, confidence, score, by_label)


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the results of one task are scored."""

    calibration: Calibration | None = None
    thresholds: Thresholds | None = None
    top_k: int = 0
    """The number of most probable labels listed with each result."""
    logits: bool = False
    """Whether results include the head's raw output."""

    @property
    def is_plain(self) -> bool:
        """Whether results stay as decoded."""
        return self == _PLAIN

    @property
    def candidates(self) -> int:
        """The number of candidates shown in place of an undecided label."""
        return self.top_k or CANDIDATES


_PLAIN = Scoring()


class Evidence(NamedTuple):
    """What a calibration learns from one record, in the form of the task's kind."""

    scores: NDArray[np.float64]
    """Logits [L] of classes; log-odds of each predicted entity."""
    gold: NDArray[np.int64]
    """The right class, or L flags; for entities a flag each, whether it is right."""
    labels: tuple[str, ...] = ()
    """The type of each predicted entity."""


class Judged(NamedTuple):
    """The answers given for some records, and whether they are right."""

    scores: NDArray[np.float64]
    """[D]."""
    right: NDArray[np.bool_]
    """[D]."""
    labels: NDArray[Any]
    """[D] the label of each answer."""
    records: NDArray[np.int64]
    """[D] the number of each answer's record, from 0 to N - 1."""


def judged(answers: Sequence[tuple[Any, Any, Sequence[str]]]) -> Judged:
    """Join the scores, flags and labels of each record's answers."""
    counts = [len(labels) for _, _, labels in answers]
    none = np.zeros(0)
    return Judged(
        np.concatenate([none, *(scores for scores, _, _ in answers)]).astype(np.float64),
        np.concatenate([none, *(right for _, right, _ in answers)]).astype(np.bool_),
        np.array([label for _, _, labels in answers for label in labels], np.object_),
        np.repeat(np.arange(len(answers)), counts),
    )
