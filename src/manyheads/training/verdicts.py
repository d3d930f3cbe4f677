"""Whether training tasks together helps: each task's verdict, in numbers and in words.

A difference is that of training together minus training alone. It counts as one only if 0 lies
outside of both its intervals: that over the seeds, which says whether other runs would differ, and
that over the sentences, which says whether other test data would.
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
"""Main metrics as they are called in a sentence."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that each task takes alone, and all of them together."""

    alone: Mapping[str, float]
    together: float

    @property
    def saved(self) -> float:
        """The share of the separate ones' time that one model saves; negative where it costs."""
        whole = sum(self.alone.values())
        return 1.0 - self.together / whole if whole else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"alone": dict(self.alone), "together": self.together, "saved": self.saved}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What training together did to one task."""

    task: str
    metric: str
    """Its main metric, a share between 0 and 1."""
    alone: tuple[float, ...]
    """The metric of the model trained alone, by seed."""
    together: tuple[float, ...]
    """The metric of the model trained together, by seed."""
    seeds: MeanInterval
    """Of the difference."""
    sentences: PairedDifference | None
    """The same over the sentences, all seeds' models taken together; None for a metric that is no
    ratio of sums over sentences."""

    @property
    def outcome(self) -> Outcome:
        """Whether training together is better, worse, or not to be told from noise."""
        intervals = _intervals(self)
        if intervals and all(low > 0 for low, _ in intervals):
            return "better"
        if intervals and all(high < 0 for _, high in intervals):
            return "worse"
        return "noise"

    def words(self, inference: Times) -> str:
        """Say it in a sentence, in points of a hundred, with what it does to inference."""
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
    """Return the intervals that there are, that over the seeds first."""
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
