"""Decisions: gold labels paired with predictions, each with its kind of error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from manyheads.tasks.labels import Span

MISSED = "missed"
INVENTED = "invented"
WRONG_CLASS = "wrong class"
WRONG_TYPE = "wrong type"
WRONG_BORDER = "wrong border"
WRONG_BOTH = "wrong type and border"
SPLIT = "split"
MERGED = "merged"


@dataclass(frozen=True, slots=True)
class Decision:
    """A gold label and the prediction it is compared with; either may be missing.

    Every gold label and every prediction of a record is in exactly one of its decisions.
    """

    gold: str | None
    predicted: str | None
    error: str = ""
    """The kind of error; empty where the prediction is right."""
    score: float | None = None
    """The probability of the prediction, where the kind has one."""
    follows: bool = False
    """Whether it belongs to the error of the decision before: the second part of a split entity."""


def entity_decisions(
    gold: Iterable[Span], predicted: Iterable[Span], scores: Sequence[float] = ()
) -> tuple[Decision, ...]:
    """Compare entities by their characters.

    Wrong entities are grouped by overlap. A gold entity that overlaps several predictions is split,
    and a prediction that overlaps several gold entities has merged them. In larger groups each gold
    entity is paired with the prediction that it shares most characters with.

    Args:
        gold: the right entities.
        predicted: the predicted ones.
        scores: their probabilities, in the order of the text; none if they are not known.
    """
    found = sorted(predicted)
    known = dict(zip(found, scores, strict=True)) if scores else {}
    right = sorted(gold)
    hits = set(right) & set(found)
    decisions = [Decision(s.label, s.label, "", known.get(s)) for s in right if s in hits]
    for some, others in _overlapping(
        [s for s in right if s not in hits], [s for s in found if s not in hits]
    ):
        decisions += _group(some, others, known)
    return tuple(decisions)


def _overlapping(gold: list[Span], predicted: list[Span]) -> list[tuple[list[Span], list[Span]]]:
    """Group entities that overlap, directly or by way of others."""
    marked = sorted([(s, True) for s in gold] + [(s, False) for s in predicted])
    groups: list[tuple[list[Span], list[Span]]] = []
    end = -1
    for span, is_gold in marked:
        if span.start >= end:
            groups.append(([], []))
        groups[-1][0 if is_gold else 1].append(span)
        end = max(end, span.end)
    return groups


def _group(gold: list[Span], found: list[Span], known: dict[Span, float]) -> list[Decision]:
    if len(gold) == 1 and len(found) > 1:
        first, *rest = (Decision(None, s.label, SPLIT, known.get(s), follows=True) for s in found)
        return [replace(first, gold=gold[0].label, follows=False), *rest]
    if len(found) == 1 and len(gold) > 1:
        first, *rest = (Decision(s.label, None, MERGED, follows=True) for s in gold)
        [span] = found
        return [replace(first, predicted=span.label, score=known.get(span), follows=False), *rest]
    decisions, left = [], list(found)
    for span in gold:
        best = max(left, key=lambda other: _shared(span, other), default=None)
        if best is None or not _shared(span, best):
            decisions.append(Decision(span.label, None, MISSED))
            continue
        left.remove(best)
        decisions.append(Decision(span.label, best.label, _error(span, best), known.get(best)))
    return decisions + [Decision(None, s.label, INVENTED, known.get(s)) for s in left]


def _shared(one: Span, other: Span) -> int:
    return max(0, min(one.end, other.end) - max(one.start, other.start))


def _error(gold: Span, found: Span) -> str:
    same_borders = (gold.start, gold.end) == (found.start, found.end)
    if gold.label == found.label:
        return WRONG_BORDER
    return WRONG_TYPE if same_borders else WRONG_BOTH
