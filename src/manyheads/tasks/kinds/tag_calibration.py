"""Calibration of tagging: the probabilities that predicted entities are right.

Axes: E entities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.calibration import (
    Calibration,
    Curve,
    Platt,
    curve_shares,
    fit_curve,
    log_odds,
)
from manyheads.tasks.decoding import sigmoid
from manyheads.tasks.kinds.hooks import Calibrating
from manyheads.tasks.kinds.tag_results import judgeable
from manyheads.tasks.kinds.values import Label
from manyheads.tasks.labels import Scheme, Span, WordSpan, types_of
from manyheads.tasks.results import Entity, Result, TaggingResult
from manyheads.tasks.scoring import Evidence, Judged, Scoring, judged
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


class TagCalibration(Calibrating):
    """The calibration of entities; classes of words have none."""

    calibrates = True

    def scored(
        self, spec: TaskSpec, results: list[Result], logits: Floats, learned: Any, scoring: Scoring
    ) -> list[Result]:
        """Calibrate the entities' probabilities; those below their thresholds become undecided."""
        entities = [e for r in results if isinstance(r, TaggingResult) for e in r.entities]
        # All texts at once: an array for each would take longer than its few entities.
        odds = log_odds(np.array([entity.score for entity in entities], np.float64))
        names = [entity.label for entity in entities]
        shares = _entity_shares(odds, names, spec.labels, scoring.calibration)
        each = iter(shares.tolist()), iter(odds.tolist())
        return [
            _scored(result, scoring, *each)
            if isinstance(result, TaggingResult) and result.entities
            else result
            for result in results
        ]

    def evidence(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any,
        logits: Floats,
    ) -> Evidence | None:  # fmt: skip
        """Return the log-odds of each predicted entity, and whether it is right.

        Entities that reach into words without a label may be right or wrong.
        """
        if spec.scheme is Scheme.PLAIN:
            return None
        found, gold = judgeable(result.entities, label), frozenset(label)
        right = [Span(e.start, e.end, e.label) in gold for e in found]
        scores = log_odds(np.array([e.score for e in found], np.float64))
        return Evidence(scores, np.array(right, np.int64), tuple(e.label for e in found))

    def examples(self, evidence: Sequence[Evidence]) -> int:
        """Return the number of predicted entities."""
        return sum(len(one.scores) for one in evidence)

    def fit_calibration(
        self, spec: TaskSpec, evidence: Sequence[Evidence], folds: NDArray[np.int64]
    ) -> Calibration:
        """Fit a logistic or isotonic curve, or one for each type: the best by cross-validation."""
        counts = [len(one.scores) for one in evidence]
        scores = np.concatenate([one.scores for one in evidence])
        right = np.concatenate([one.gold for one in evidence]) > 0
        names = (name for one in evidence for name in one.labels)
        types = _type_numbers(names, spec.labels)
        count = len(types_of(spec.labels))
        return fit_curve(scores, right, types, count, np.repeat(folds, counts))

    def judge(
        self, spec: TaskSpec, evidence: Sequence[Evidence], calibration: Calibration | None
    ) -> Judged:
        """Return the probability of each predicted entity."""
        shares = [_entity_shares(e.scores, e.labels, spec.labels, calibration) for e in evidence]
        return judged(
            [(share, e.gold, e.labels) for share, e in zip(shares, evidence, strict=True)]
        )

    def accepts(self, spec: TaskSpec, calibration: Calibration) -> bool:
        """Return whether it is a curve for all entities, or one for each type."""
        count = len(calibration.slope) if isinstance(calibration, Platt) else 1
        fits = count in (1, len(types_of(spec.labels)))
        return isinstance(calibration, Curve) and fits and spec.scheme is not Scheme.PLAIN


def _entity_shares(
    scores: NDArray[np.float64],
    names: Sequence[str],
    tags: tuple[str, ...],
    calibration: Calibration | None,
) -> NDArray[np.float64]:
    """Return the probabilities of entities.

    Args:
        scores: [E] their log-odds.
        names: [E] their types.
        tags: the task's.
        calibration: the task's, if it has one.
    """
    if not isinstance(calibration, Curve):
        return np.asarray(sigmoid(scores), np.float64)
    return curve_shares(calibration, scores, _type_numbers(names, tags))


def _type_numbers(names: Iterable[str], tags: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the place of each entity's type, [E], among the types of a task's tags."""
    places = _places(tags)
    return np.array([places[name] for name in names], np.int64)


@lru_cache(maxsize=64)
def _places(tags: tuple[str, ...]) -> Mapping[str, int]:
    """Return the place of each type. Kept: short texts are scored by the thousand."""
    return {name: place for place, name in enumerate(types_of(tags))}


def _scored(
    result: TaggingResult, scoring: Scoring, shares: Iterator[float], odds: Iterator[float]
) -> TaggingResult:
    """Score one text's entities, whose probabilities and log-odds come next."""
    limits, keeps_odds = scoring.thresholds, scoring.logits
    decided: list[Entity] = []
    undecided: list[Entity] = []
    for entity in result.entities:
        score, logit = next(shares), next(odds)
        reached = limits is None or score >= limits.of(entity.label)
        (decided if reached else undecided).append(
            Entity(
                entity.text, entity.label, entity.start, entity.end, score,
                logit if keeps_odds else None,
            )
        )  # fmt: skip
    return TaggingResult(tuple(decided), result.tokens, tuple(undecided))
