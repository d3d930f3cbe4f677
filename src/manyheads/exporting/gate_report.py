"""What the gate found about a graph, and the reasons to refuse it.

A head may lose a little. With few records, a loss over the limit may be chance: then the graph is
refused only if the 95 % interval over the changed answers lies above the limit, or if so many
answers change, sentences without labels included, that far more may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

POSSIBLE = 10
"""Times the limit that a loss which may be chance could at most be, with the share of answers that
change (the upper end of its 95 % interval)."""

MIN_COSINE = 0.95
"""The least mean cosine of the embeddings with the reference."""

EXACT_LOGITS = 1e-2
EXACT_COSINE = 0.9999
"""The bounds for a float32 graph, which computes the same in another order."""

MAX_ERROR_ADDED = 0.02
"""How much larger the calibration error may be, each with its own calibration."""


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """A head of the graph compared with the same head of the reference."""

    metric: str
    reference: float
    exported: float
    decisions: int
    """Sentences of the task."""
    changed: int
    """Sentences with another answer."""
    lost_low: float
    lost_high: float
    """The 95 % interval of the points that the head loses on other sentences."""
    changed_share: float
    """Share of all sentences, unlabelled ones included, with another answer."""
    lost_at_most: float
    """Points lost if as many answers change as the 95 % interval of that share allows."""
    max_logit_difference: float
    mean_logit_difference: float
    error_reference: float | None = None
    """The calibration error of the reference's scores, calibrated; None without scores."""
    error_exported: float | None = None
    """The same of the graph's, with a calibration of its own."""

    @property
    def lost(self) -> float:
        """Points of the main metric that the head loses; negative for a gain."""
        return 100.0 * (self.reference - self.exported)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "metric": self.metric,
            "reference": self.reference,
            "exported": self.exported,
            "points_lost": self.lost,
            "decisions": self.decisions,
            "changed": self.changed,
            "interval_of_points_lost": [self.lost_low, self.lost_high],
            "changed_share": self.changed_share,
            "points_lost_at_most": self.lost_at_most,
            "max_logit_difference": self.max_logit_difference,
            "mean_logit_difference": self.mean_logit_difference,
            "ece_reference": self.error_reference,
            "ece_exported": self.error_exported,
        }


@dataclass(frozen=True, slots=True)
class BatchMates:
    """The effect of predicting a sentence in a batch with others instead of alone."""

    sentences: int
    changed: Mapping[str, int]
    """By task, sentences with another answer."""
    max_score_difference: float
    """The largest difference of a probability."""
    min_cosine: float
    """The smallest cosine between the embeddings."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "sentences": self.sentences,
            "changed": dict(self.changed),
            "max_score_difference": self.max_score_difference,
            "min_cosine": self.min_cosine,
        }


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's findings about a graph."""

    backend: str
    setting: str
    """The arithmetic of the parts of the graph, in words."""
    heads: Mapping[str, HeadComparison]
    min_cosine: float
    mean_cosine: float
    batch_mates: BatchMates
    records: int
    unlabelled: int
    """Sentences without labels whose answers were compared, too."""
    sentences_per_second: float
    """In batches, from text to answer."""
    milliseconds_alone: float
    """The median for sentences one by one, from text to answer."""
    reference_sentences_per_second: float
    threads: int
    limit: float
    faults: tuple[str, ...]
    """Why the graph is refused; none if it passes."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """About the export: fused operators, opset, versions, bytes."""

    @property
    def passed(self) -> bool:
        """Whether the graph may be used."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, as it is stored beside the graph."""
        return {
            "backend": self.backend,
            "setting": self.setting,
            "passed": self.passed,
            "faults": list(self.faults),
            "limit_points": self.limit,
            "records": self.records,
            "unlabelled": self.unlabelled,
            "heads": {name: head.to_json() for name, head in self.heads.items()},
            "embedding": {"min_cosine": self.min_cosine, "mean_cosine": self.mean_cosine},
            "batch_mates": self.batch_mates.to_json(),
            "sentences_per_second": self.sentences_per_second,
            "milliseconds_alone": self.milliseconds_alone,
            "reference_sentences_per_second": self.reference_sentences_per_second,
            "threads": self.threads,
            **self.details,
        }


def reasons_to_refuse(report: GateReport, exact: bool, independent: bool) -> Iterator[str]:
    """Yield why a graph may not be used; nothing if it passes.

    Args:
        report: what was found.
        exact: whether it must compute what the reference does, but for rounding (float32).
        independent: whether no answer may depend on the others of a batch.
    """
    for name, head in report.heads.items():
        yield from _of_head(name, head, report.limit, exact)
    least, found = (EXACT_COSINE, report.min_cosine) if exact else (MIN_COSINE, report.mean_cosine)
    if not found >= least:
        yield (
            f"the {'smallest' if exact else 'mean'} cosine of the embeddings is {found:.4f}; "
            f"at least {least:g} is needed"
        )
    if independent and any(report.batch_mates.changed.values()):
        yield "the answers depend on the other sentences of a batch"


def _of_head(name: str, head: HeadComparison, limit: float, exact: bool) -> Iterator[str]:
    # On few records one changed answer is more than the limit, and may be chance.
    certain = head.lost_low > limit
    possible = head.lost_at_most > POSSIBLE * limit
    if head.lost > limit and (certain or possible):
        reason = (
            f"{head.lost_low:.2f} to {head.lost_high:.2f} with 95 %" if certain
            else f"{head.lost_at_most:.2f} are possible, as {head.changed_share:.1%} of all "
            "answers change"
        )  # fmt: skip
        yield (
            f"head {name!r} loses {head.lost:.2f} points of {head.metric} "
            f"({100 * head.reference:.2f} to {100 * head.exported:.2f}; {reason}); "
            f"at most {limit:g} are allowed"
        )
    before, after = head.error_reference, head.error_exported
    if before is not None and after is not None and after - before > MAX_ERROR_ADDED:
        yield (
            f"head {name!r} has scores with a calibration error of {after:.3f}, where it was "
            f"{before:.3f}; at most {MAX_ERROR_ADDED:g} more are allowed"
        )
    if exact and not head.max_logit_difference <= EXACT_LOGITS:
        yield (
            f"head {name!r} has logits that differ by {head.max_logit_difference:.2g}; "
            f"at most {EXACT_LOGITS:g} is rounding"
        )
