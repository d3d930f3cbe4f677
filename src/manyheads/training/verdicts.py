"""Verdicts on joint training: whether it helps each task, in numbers and in words.

A difference is the score of joint training minus that of training alone. It is significant only
if 0 lies outside both of its intervals: the one over the seeds covers other runs, the one over the
sentences other test data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from manyheads.evaluation import MeanInterval, PairedDifference

Outcome = Literal["better", "worse", "noise"]

METRIC_WORDS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_micro": "F1",
    "token_accuracy": "token accuracy",
    "spearman": "rank correlation",
}
"""The main metrics' names in a sentence."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each task alone, and of all tasks together."""

    alone: Mapping[str, float]
    together: float

    @property
    def saved(self) -> float:
        """The share of the separate models' time that one model saves; negative if it adds."""
        whole = sum(self.alone.values())
        return 1.0 - self.together / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"alone": dict(self.alone), "together": self.together, "saved": self.saved}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The effect of joint training on one task."""

    task: str
    metric: str
    """The task's main metric, a share between 0 and 1."""
    alone: tuple[float, ...]
    """The metric of the model trained alone, by seed."""
    together: tuple[float, ...]
    """The metric of the model trained together, by seed."""
    seeds: MeanInterval
    """The difference's mean and interval over the seeds."""
    sentences: PairedDifference | None
    """The same over the sentences, for the models of all seeds together; None for a metric that is
    not a ratio of sums over sentences."""

    @property
    def outcome(self) -> Outcome:
        """Whether joint training is better, worse, or indistinguishable from noise."""
        intervals = _intervals(self)
        if intervals and all(low > 0 for low, _ in intervals):
            return "better"
        if intervals and all(high < 0 for _, high in intervals):
            return "worse"
        return "noise"

    def words(self, inference: Times) -> str:
        """Describe it in a sentence, in percentage points, with the effect on inference time."""
        return f"joint training {self._change()}, {self._certainty()}, and {_time(inference)}"

    def _change(self) -> str:
        points = f"{abs(100 * self.seeds.mean):.1f}"
        what = METRIC_WORDS.get(self.metric, self.metric)
        if points == "0.0":
            change = f"changes {self.task} by 0.0 {what}"
        else:
            verb = "gains" if self.seeds.mean > 0 else "costs"
            change = f"{verb} {self.task} {points} {what}"
        intervals = _intervals(self)
        if not intervals:
            return change
        low, high = intervals[0]
        return f"{change} [{100 * low:.1f}, {100 * high:.1f}]"

    def _certainty(self) -> str:
        if not _intervals(self):
            return "which a single seed cannot tell from noise"
        words = {
            "better": "which is more than noise",
            "worse": "which is more than noise",
            "noise": "which is within noise",
        }[self.outcome]
        if self.seeds.low is None:
            return f"{words} as far as one seed tells"
        return words

    def to_json(self, inference: Times) -> dict[str, Any]:
        """Return plain values."""
        return {
            "metric": self.metric,
            "alone": list(self.alone),
            "together": list(self.together),
            "difference": self.seeds.mean,
            "seeds": asdict(self.seeds),
            "sentences": None if self.sentences is None else asdict(self.sentences),
            "verdict": self.outcome,
            "words": self.words(inference),
        }


def _intervals(verdict: Verdict) -> list[tuple[float, float]]:
    """Return the available intervals, the one over the seeds first."""
    seeds, sentences = verdict.seeds, verdict.sentences
    found = []
    if seeds.low is not None and seeds.high is not None:
        found.append((seeds.low, seeds.high))
    if sentences is not None:
        found.append((sentences.low, sentences.high))
    return found


def _time(inference: Times) -> str:
    percent = round(100 * inference.saved)
    if percent == 0:
        return "takes as long at inference"
    if percent < 0:
        return f"takes {-percent} % more inference time"
    return f"saves {percent} % of the inference time"
