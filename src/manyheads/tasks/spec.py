"""What it takes to read a task's logits, as it is stored with a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from manyheads.errors import DataError, ModelError, listing, nearest, shorten
from manyheads.tasks.labels import LabelSet, Scheme, TagSet

Decoder = Literal["linear", "crf"]

CLASSIFICATION, MULTILABEL, TAGGING = "classification", "multilabel", "tagging"
SIMILARITY = "similarity"
"""The kind that says nothing of a single sentence: pairs train and score the embedding."""

OWN_FIELDS: Mapping[str, tuple[str, ...]] = {
    CLASSIFICATION: (),
    MULTILABEL: ("threshold",),
    TAGGING: ("scheme", "decoder"),
    SIMILARITY: (),
}
"""The fields of each kind besides name, kind and labels."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What it takes to read a task's logits: stored with every model, torch or not.

    Args:
        name: the task's name, unique in its model.
        kind: "classification", "multilabel", "tagging", "similarity" or a kind of a head
            registered elsewhere.
        labels: label names in the order of the logits.
        scheme: tagging only: what the tags mean.
        decoder: tagging only: whether learned transitions are used ("crf") or none ("linear").
        threshold: multilabel only: the probability from which a label is predicted.

    Raises:
        ModelError: the fields are not those of the kind, or a value is impossible.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    scheme: Scheme | None = None
    decoder: Decoder | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        wanted = OWN_FIELDS.get(self.kind, ())
        for field in ("scheme", "decoder", "threshold"):
            present = getattr(self, field) is not None
            if present != (field in wanted):
                problem = f"has no {field}" if field in wanted else f"has a {field}"
                raise self._error(
                    f"{self.kind} task {problem}",
                    expected=f"{' and '.join(wanted) or 'no field'} besides name, kind and labels",
                )
        if self.decoder not in (None, "linear", "crf"):
            raise self._error(f"decoder {shorten(self.decoder)}", expected='"linear" or "crf"')
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise self._error(f"threshold {self.threshold}", expected="a number from 0 to 1")
        if self.kind == SIMILARITY and self.labels:
            raise self._error(f"labels {listing(self.labels)}", expected="none: pairs have scores")
        if self.kind in OWN_FIELDS and self.kind != SIMILARITY and not self.labels:
            raise self._error("no labels", expected="at least one")
        try:
            self.label_set()
        except DataError as error:
            raise self._error(error.found, expected=error.expected) from None

    @property
    def answers(self) -> bool:
        """Whether the task says something of a single sentence, beside its embedding."""
        return self.kind != SIMILARITY

    def label_set(self) -> LabelSet | TagSet:
        """Return the task's labels as the set that data are read with."""
        if self.scheme is None:
            return LabelSet(self.labels)
        return TagSet(self.labels, self.scheme)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that the task's kind has, as JSON values."""
        stored: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "labels": list(self.labels),
        }
        if self.scheme is not None:
            stored["scheme"] = self.scheme.value
        if self.decoder is not None:
            stored["decoder"] = self.decoder
        if self.threshold is not None:
            stored["threshold"] = self.threshold
        return stored

    @classmethod
    def from_json(cls, stored: object) -> TaskSpec:
        """Read a task back, strictly: no field missing, none unknown, each of its type.

        Raises:
            ModelError: what is stored is not a task.
        """
        if not isinstance(stored, Mapping):
            raise _stored_error(f"a task stored as {shorten(stored)}", "an object")
        known = ("name", "kind", "labels", "scheme", "decoder", "threshold")
        for field in stored:
            if field not in known:
                hint = nearest(str(field), known)
                raise _stored_error(f"unknown field {shorten(field)}{hint}", listing(known))
        for field in ("name", "kind"):
            if not isinstance(stored.get(field), str) or not stored[field]:
                raise _stored_error(f"{field} is {shorten(stored.get(field))}", "a string", stored)
        labels = stored.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise _stored_error(f"labels are {shorten(labels)}", "a list of strings", stored)
        scheme = stored.get("scheme")
        if scheme is not None and scheme not in [known.value for known in Scheme]:
            raise _stored_error(f"scheme is {shorten(scheme)}", '"bio" or "plain"', stored)
        threshold = stored.get("threshold")
        if threshold is not None and (
            isinstance(threshold, bool) or not isinstance(threshold, int | float)
        ):
            raise _stored_error(f"threshold is {shorten(threshold)}", "a number", stored)
        return cls(
            name=stored["name"],
            kind=stored["kind"],
            labels=tuple(labels),
            scheme=None if scheme is None else Scheme(scheme),
            decoder=stored.get("decoder"),
            threshold=None if threshold is None else float(threshold),
        )

    def _error(self, found: str, *, expected: str) -> ModelError:
        return ModelError(found, expected=expected, where=f"task {shorten(self.name)}")


def _stored_error(
    found: str, expected: str, stored: Mapping[str, object] | None = None
) -> ModelError:
    where = "tasks of the model" if stored is None else f"task {shorten(stored.get('name'))}"
    return ModelError(
        found, expected=expected, where=where, fix="The model's files are damaged or were edited."
    )
