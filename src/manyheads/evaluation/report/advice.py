"""Advice: which labels to work on first, and by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from manyheads.evaluation.report.data import Confidence, Finding, LabelScore
from manyheads.tasks import Decision
from manyheads.tasks.decisions import INVENTED, MERGED, MISSED, SPLIT, WRONG_BORDER

LABELS = 3
_FEW = 30
_GOOD = 0.9
_OFF = 0.05
_MAIN = 0.3
"""The share of a label's confusions from which the label it is confused with is their cause."""
_BORDERS = (WRONG_BORDER, SPLIT, MERGED)


def findings(labels: Sequence[LabelScore], decisions: Iterable[Decision]) -> tuple[Finding, ...]:
    """Return the labels in most errors, each with its most frequent cause and what helps."""
    first = sorted(labels, key=lambda label: -label.errors)[:LABELS]
    by_label: dict[str, Counter[tuple[str, str]]] = {one.label: Counter() for one in first}
    for decision in decisions:
        if decision.error:
            for label in {decision.gold, decision.predicted} & by_label.keys():
                assert label is not None
                by_label[label][_cause(label, decision)] += 1
    return tuple(_finding(one, by_label[one.label]) for one in first if by_label[one.label])


def _cause(label: str, decision: Decision) -> tuple[str, str]:
    if decision.error in _BORDERS:
        return ("borders", "")
    if decision.gold is None or decision.error == INVENTED:
        return (INVENTED, "")
    if decision.predicted is None or decision.error == MISSED:
        return (MISSED, "")
    other = decision.predicted if decision.gold == label else decision.gold
    return ("confused", other)


def _finding(label: LabelScore, causes: Counter[tuple[str, str]]) -> Finding:
    kinds: Counter[str] = Counter()
    for (kind, _), number in causes.items():
        kinds[kind] += number
    [(cause, count)] = kinds.most_common(1)
    others = Counter({name: n for (kind, name), n in causes.items() if kind == cause})
    [(other, most)] = others.most_common(1)
    times = "once" if count == 1 else f"{count:,} times"
    if cause == "confused" and most < _MAIN * count:
        text = (
            f"confused with {len(others):,} other labels {times}, most often {other} ({most:,}): "
            "add more and more varied examples"
        )
    elif cause == "borders":
        text = f"its borders are wrong {times}: check that training labels begin and end alike"
    elif cause == "confused":
        times = "once" if most == 1 else f"{most:,} times"
        text = (
            f"confused with {other} {times}: add examples that tell the two apart, and look for "
            "contradicting labels"
        )
    elif cause == MISSED:
        text = f"missed {times} (of {label.support:,}): add more and more varied examples"
    else:
        text = (
            f"predicted {times} where there is none: look for unlabelled ones in the training "
            "data, and add sentences without it"
        )
    if label.training is not None and label.training < _FEW:
        text += f"; only {label.training:,} training records have it"
    return Finding(label.label, label.f1, label.errors, f"{cause} {other}".strip(), text)


def verdict(
    task: str,
    score: tuple[str, float, float | None, float | None],
    records: int,
    labels: Sequence[LabelScore],
    found: Sequence[Finding],
    confidence: Confidence | None,
) -> tuple[str, ...]:
    """Describe a task in sentences: its score, what is good, what to work on.

    Args:
        task: its name.
        score: the main metric's name, value and interval.
        records: how many were scored.
        labels: the scores of its labels.
        found: the labels to work on first.
        confidence: of its predictions.
    """
    metric, value, low, high = score
    between = "" if low is None else f" (95 % interval {low:.3f} to {high:.3f})"
    sentences = [f"{task}: {metric} {value:.4f}{between} on {records:,} records."]
    good = [one for one in labels if one.f1 >= _GOOD and one.support]
    if good:
        best = sorted(good, key=lambda one: (-one.f1, -one.support))[:LABELS]
        names = ", ".join(f"{one.label} ({one.f1:.2f})" for one in best)
        sentences.append(
            f"{task}: {len(good)} of {len(labels)} labels have an F1 of {_GOOD} or more; the best: "
            f"{names}."
        )
    sentences += [f"{task}: work on {one.label} (F1 {one.f1:.2f}): {one.advice}." for one in found]
    if confidence is not None and abs(off := confidence.mean_score - confidence.precision) >= _OFF:
        direction = "higher" if off > 0 else "lower"
        sentences.append(
            f"{task}: scores are {abs(off):.2f} {direction} on average than predictions are right; "
            "`manyheads thresholds` finds the scores to rely on."
        )
    return tuple(sentences)
