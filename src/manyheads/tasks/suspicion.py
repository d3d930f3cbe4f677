"""Labels that are likely wrong, according to models that did not see them in training.

Axes: L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from manyheads.errors import DataError, shorten
from manyheads.tasks.decisions import WRONG_CLASS
from manyheads.tasks.labels import Span
from manyheads.tasks.tag_sequences import Floats

MISSING = "missing"
SUPERFLUOUS = "superfluous"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A part of a record's label that is likely wrong, and a proposal for it.

    Both parts are JSON values: the name of a class, or `{"start", "end", "label"}` of an entity;
    None where there is none.
    """

    error: str
    score: float
    """The log odds that the label is wrong, by the model alone. For an entity, before a ranking is
    learned, how much more likely the proposal is: the difference of log probabilities by word that
    changes."""
    given: Any
    proposed: Any
    evidence: tuple[float, ...] = ()
    """Features from which a ranking can be learned: the same for all suspicions of a missing part,
    and the same for all others."""

    @property
    def regions(self) -> list[tuple[int, int]]:
        """The characters of its entities; none of classes."""
        parts = [part for part in (self.given, self.proposed) if isinstance(part, dict)]
        return [(part["start"], part["end"]) for part in parts]


Is = Callable[[Suspicion], bool]
"""Returns whether a suspicion is about a part of a label that was made wrong."""


def no_part(label: Any, given: Any, proposed: Any) -> DataError:
    """Return the error for a proposal that does not fit a label."""
    return DataError(
        f"{_in_words(given)} cannot become {_in_words(proposed)} in the label {_in_words(label)}",
        expected="a part of the label as it is in the data, and another one in its place",
        fix="Correct the line, or remove it.",
    )


def _in_words(value: Any) -> str:
    if isinstance(value, Span):
        value = {"start": value.start, "end": value.end, "label": value.label}
    if isinstance(value, tuple):
        return f"[{', '.join(map(_in_words, value))}]"
    return "(none)" if value is None else shorten(value)


def span_of_json(value: Any) -> Span | None:
    """Read an entity of a suspicion.

    Raises:
        DataError: it is not one.
    """
    if value is None:
        return None
    try:
        span = Span(value["start"], value["end"], value["label"])
        if not (type(span.start) is type(span.end) is int and 0 <= span.start < span.end):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"an entity is {shorten(value)}",
            expected='{"start": 0, "end": 5, "label": "PER"} or null',
        ) from None
    return span


def class_suspicion(names: Sequence[str], given: str, logs: Floats) -> Suspicion | None:
    """Compare the class of a text with the most probable alternative.

    Args:
        names: of the classes.
        given: the class.
        logs: [L] log probabilities.
    """
    if given not in names or len(names) < 2:
        return None
    own = names.index(given)
    others = np.where(np.arange(len(names)) == own, -np.inf, logs)
    wrong = float(np.logaddexp.reduce(others) - logs[own])
    return Suspicion(WRONG_CLASS, wrong, given, names[int(others.argmax())])


def classes_suspicions(names: Sequence[str], given: Sequence[str], logs: Floats) -> list[Suspicion]:
    """Compare each class of a text, and the absence of each other one, with its opposite.

    Args:
        names: of the classes.
        given: those that apply.
        logs: [L] log probabilities that a class applies.
    """
    odds = logs - np.log(-np.expm1(np.minimum(logs, -1e-6)))
    return [
        Suspicion(SUPERFLUOUS, -float(value), name, None)
        if name in given
        else Suspicion(MISSING, float(value), None, name)
        for name, value in zip(names, odds, strict=True)
    ]
