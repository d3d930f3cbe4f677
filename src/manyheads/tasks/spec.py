"""The description of a task that is stored with a model and needed to decode its logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from manyheads.errors import DataError, ModelError, listing, nearest, shorten
from manyheads.tasks.kinds.registry import find_kind, kind_of
from manyheads.tasks.kinds.values import Lengths
from manyheads.tasks.label_values import usual_form
from manyheads.tasks.labels import LabelSet, Scheme
from manyheads.tasks.tag_sequences import Floats
from manyheads.text import WORD_FEATURES_VERSION

Decoder = Literal["linear", "crf"]
EMBEDDING = "embedding"
"""The name of the embedding among a model's outputs, which no task has."""

_STANDARD = ("name", "kind", "labels", "scheme", "decoder", "threshold")


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The description of a task that is needed to decode its logits, stored with every model.

    Args:
        name: the task's name, unique in its model.
        kind: the name of a registered kind.
        labels: label names in the order of the logits.
        scheme: tagging only: what the tags mean.
        decoder: tagging only: whether learned transitions are used ("crf") or none ("linear").
        threshold: multilabel only: the probability from which a label is predicted.
        details: other values that the kind stores (its `spec_fields`), as JSON values.

    Raises:
        ModelError: the fields are not those of the kind, or a value is impossible.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    scheme: Scheme | None = None
    decoder: Decoder | None = None
    threshold: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind = find_kind(self.kind)
        wanted = kind.spec_fields if kind else ()
        present = [name for name in _STANDARD[3:] if getattr(self, name) is not None]
        present += self.details
        optional = kind.optional_fields if kind else ()
        for name in dict.fromkeys((*wanted, *present)):
            if (name in present) != (name in wanted) and name not in optional:
                problem = f"has no {name}" if name in wanted else f"has a {name}"
                raise self._error(
                    f"{self.kind} task {problem}",
                    expected=f"{' and '.join(wanted) or 'no field'} besides name, kind and labels",
                )
        if self.decoder not in (None, "linear", "crf"):
            raise self._error(f"decoder {shorten(self.decoder)}", expected='"linear" or "crf"')
        if self.word_features not in (None, WORD_FEATURES_VERSION):
            raise self._error(
                f"word_features {shorten(self.word_features)}",
                expected=f"{WORD_FEATURES_VERSION}, the version that this version of Manyheads has",
            )
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise self._error(f"threshold {self.threshold}", expected="a number from 0 to 1")
        if kind and self.labels and not kind.named_labels:
            raise self._error(f"labels {listing(self.labels)}", expected=f"none: {kind.no_labels}")
        if kind and kind.named_labels and not self.labels:
            raise self._error("no labels", expected="at least one")
        try:
            self.label_set()
        except DataError as error:
            raise self._error(error.found, expected=error.expected) from None

    @property
    def word_features(self) -> int | None:
        """The version of the features of words that its head reads; None if it reads none."""
        return self.details.get("word_features")

    @property
    def answers(self) -> bool:
        """Whether a text has a result of the task, besides its embedding."""
        return kind_of(self.kind).answers

    @property
    def main_metric(self) -> str:
        """The name of the metric that represents the task."""
        return kind_of(self.kind).metric_of(self)

    def label_set(self) -> LabelSet:
        """Return the task's labels as the set with which data are read."""
        kind = find_kind(self.kind)
        return LabelSet(self.labels) if kind is None else kind.label_set(self)

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
        return {**stored, **self.details}

    @classmethod
    def from_json(cls, stored: object) -> TaskSpec:
        """Read a stored task strictly: no field missing, none unknown, each of its type.

        Raises:
            ModelError: what is stored is not a task.
        """
        if not isinstance(stored, Mapping):
            raise _stored_error(f"a task stored as {shorten(stored)}", "an object")
        for name in ("name", "kind"):
            if not isinstance(stored.get(name), str) or not stored[name]:
                raise _stored_error(f"{name} is {shorten(stored.get(name))}", "a string", stored)
        kind = find_kind(stored["kind"])
        own = (*kind.spec_fields, *kind.optional_fields) if kind else ()
        known = tuple(dict.fromkeys((*_STANDARD, *own)))
        for name in stored:
            if name not in known:
                hint = nearest(str(name), known)
                raise _stored_error(f"unknown field {shorten(name)}{hint}", listing(known))
        labels = _stored_labels(stored)
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
            labels=labels,
            scheme=None if scheme is None else Scheme(scheme),
            decoder=stored.get("decoder"),
            threshold=None if threshold is None else float(threshold),
            details={name: stored[name] for name in stored if name not in _STANDARD},
        )

    def _error(self, found: str, *, expected: str) -> ModelError:
        return ModelError(found, expected=expected, where=f"task {shorten(self.name)}")


def decode(
    spec: TaskSpec, logits: Floats, lengths: Lengths | None = None, learned: Any = None
) -> Any:
    """Decode a task's logits by its kind.

    Args:
        spec: the task.
        logits: [B, L], or for tagging [B, W, L].
        lengths: tagging only: the number of words of each sentence [B].
        learned: the parameters that decoding needs (see `Kind.learned`): a CRF's transitions.

    Returns:
        classification: one `Scored` of shape [B]; multilabel: for each sentence the labels it
        has; tagging: for each sentence the tags of its words; other kinds: see their `decode`.

    Raises:
        ModelError: the kind is not known or has nothing to decode, or the parameters are missing.
    """
    return kind_of(spec.kind).decode(spec, logits, lengths, learned)


def _stored_labels(stored: Mapping[str, Any]) -> tuple[str, ...]:
    labels = stored.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _stored_error(f"labels are {shorten(labels)}", "a list of strings", stored)
    # Earlier versions stored names as they were in the data.
    names = tuple(map(usual_form, labels))
    return names if len(set(names)) == len(set(labels)) else tuple(labels)


def _stored_error(
    found: str, expected: str, stored: Mapping[str, object] | None = None
) -> ModelError:
    where = "tasks of the model" if stored is None else f"task {shorten(stored.get('name'))}"
    return ModelError(
        found, expected=expected, where=where, fix="The model's files are damaged or were edited."
    )
