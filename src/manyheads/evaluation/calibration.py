"""Fit calibrations on labelled records that did not choose the model.

Axes: N records with evidence, D answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.evaluation.scoring import Outcomes, TaskOutcomes
from manyheads.evaluation.statistics import last_within_chance
from manyheads.tasks import Calibration, Evidence, Judged, Scope
from manyheads.tasks.calibration import FEWEST_RECORDS
from manyheads.tasks.metrics import calibration_error, error_by_chance
from manyheads.tasks.scope import described_anew, fit_scope

FOLDS = 5


@dataclass(frozen=True, slots=True)
class FittedTask:
    """A task's calibration, and how good it is."""

    calibration: Calibration
    records: int
    answers: int
    source: str
    """The records that it was fitted on, in words."""
    error_before: float
    """The calibration error of plain scores."""
    error: float
    """The calibration error on records that were left out of the fit, fold by fold."""
    error_by_chance: float
    """The error that perfectly calibrated scores would show on as many answers."""

    def in_words(self) -> str:
        """Return the errors in words."""
        return (
            f"calibration error {self.error_before:.3f} before, {self.error:.3f} after "
            f"({self.error_by_chance:.3f} by chance)"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as the manifest has it."""
        return {
            "scores": self.calibration.to_json(),
            "records": self.records,
            "answers": self.answers,
            "source": self.source,
            "ece_before": self.error_before,
            "ece": self.error,
            "ece_by_chance": self.error_by_chance,
        }


def folds_of(records: int) -> NDArray[np.int64]:
    """Assign records to folds of equal size: [records]."""
    folds: NDArray[np.int64] = np.random.default_rng(0).permutation(records) % FOLDS
    return folds


def fit_calibrations(
    outcomes: Outcomes, source: str, leave_out: Sequence[int] = ()
) -> dict[str, FittedTask]:
    """Fit each task's calibration.

    Args:
        outcomes: of labelled records, with evidence.
        source: the records, in words.
        leave_out: folds of the records (`folds_of`) that are left out.

    Returns:
        By task; none of a kind without calibration, with too little evidence, or without a single
        answer, whose scores cannot be judged.
    """
    folds = folds_of(outcomes.records)
    fitted = {}
    for name, task in outcomes.tasks.items():
        if task.kind.calibrates and (found := _fit(task, folds, source, leave_out)) is not None:
            fitted[name] = found
    return fitted


def evidence_of(
    task: TaskOutcomes, folds: NDArray[np.int64], leave_out: Sequence[int] = ()
) -> tuple[list[Evidence], NDArray[np.int64]]:
    """Return a task's evidence, and the fold of each of its records."""
    pairs = [
        (evidence, folds[row])
        for evidence, row in zip(task.evidence, task.rows, strict=True)
        if evidence is not None and folds[row] not in leave_out
    ]
    return [e for e, _ in pairs], np.array([fold for _, fold in pairs], np.int64)


def _fit(
    task: TaskOutcomes, folds: NDArray[np.int64], source: str, leave_out: Sequence[int]
) -> FittedTask | None:
    evidence, own = evidence_of(task, folds, leave_out)
    if task.kind.examples(evidence) < FEWEST_RECORDS:
        return None
    calibration = task.kind.fit_calibration(task.spec, evidence, own)
    plain = task.kind.judge(task.spec, evidence, None)
    if not len(plain.right):
        return None
    held = cross_fitted(task, evidence, own)
    return FittedTask(
        calibration, len(evidence), len(plain.right), source,
        calibration_error(plain.scores, plain.right), calibration_error(held.scores, held.right),
        error_by_chance(held.scores),
    )  # fmt: skip


def cross_fitted(
    task: TaskOutcomes, evidence: Sequence[Evidence], folds: NDArray[np.int64]
) -> Judged:
    """Judge every record with a calibration that was fitted without its fold."""
    parts = []
    for fold in np.unique(folds).tolist():
        rest = [one for one, own in zip(evidence, folds, strict=True) if own != fold]
        held = [one for one, own in zip(evidence, folds, strict=True) if own == fold]
        calibration = None
        if task.kind.examples(rest):
            calibration = task.kind.fit_calibration(task.spec, rest, folds[folds != fold])
        parts.append(task.kind.judge(task.spec, held, calibration))
    return Judged(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def choices_without_folds(
    scores: Sequence[Sequence[float] | None], errors: Sequence[float], best: int
) -> list[int] | None:
    """Return the folds without which another epoch would have been chosen.

    Args:
        scores: of each epoch, its score on all validation records but those of each fold.
        errors: of each epoch, the standard error of its score on all of them.
        best: the number of the epoch that was chosen, from 1.

    Returns:
        None where the scores are not known, or no fold would be left.
    """
    known = [row for row in scores if row is not None]
    if len(known) < len(scores):
        return None
    folds = zip(*known, strict=True)
    chosen = [last_within_chance(column, errors) for column in folds]
    other = [fold for fold, epoch in enumerate(chosen) if epoch != best - 1]
    return None if len(other) == FOLDS else other


def fit_scope_of(
    outcomes: Outcomes,
    leave_out: Sequence[int] = (),
    unknown: Sequence[tuple[Any, Any]] = (),
) -> Scope | None:
    """Fit the scope: texts of the known classes, as opposed to all others.

    Args:
        outcomes: of labelled records, with evidence.
        leave_out: folds of the records (`folds_of`) that are left out.
        unknown: the embedding and the logits of each text that is known to be out of scope.

    Returns:
        None where no task has classes, or there are too few records.
    """
    task = outcomes.scope_task
    found = None if task is None else _scope_data(task, folds_of(outcomes.records), leave_out)
    if task is None or found is None:
        return None
    embeddings, logits, gold, own = found
    strange = None
    if unknown:
        first, second = map(np.array, zip(*unknown, strict=True))
        strange = first, second
    return fit_scope(task.spec.name, embeddings, logits, gold, own, strange)


def scope_anew(outcomes: Outcomes, before: Scope) -> Scope | None:
    """Return the scope of a model that has learned more, with the weights of one before.

    Args:
        outcomes: of labelled records, by the model of now.
        before: the scope of the model before.

    Returns:
        None where another task tells the scope by now.
    """
    task = outcomes.scope_task
    if task is None or task.spec.name != before.task:
        return None
    found = _scope_data(task, folds_of(outcomes.records))
    if found is None:
        return None
    embeddings, logits, gold, _ = found
    return described_anew(before, embeddings, gold, logits.shape[1])


def _scope_data(
    task: TaskOutcomes, folds: NDArray[np.int64], leave_out: Sequence[int] = ()
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64], NDArray[np.int64]] | None:
    """Return each text's embedding, logits, right class and fold; None where there is no text."""
    found = [
        (*inputs, int(evidence.gold[0]), folds[row])
        for row, evidence, inputs in zip(task.rows, task.evidence, task.scope_inputs, strict=True)
        if evidence is not None
        and inputs is not None
        and folds[row] not in leave_out
        and task.kind.examples([evidence])
    ]
    if not found:
        return None
    embeddings, logits, gold, own = map(np.array, zip(*found, strict=True))
    return embeddings, logits, gold, own
