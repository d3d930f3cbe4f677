"""Predictions: values for Python, JSON for programs, lines for people."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import RequestError, listing, nearest, shorten
from manyheads.tasks.html import Marked, marked, table

_SCORE_DIGITS = 6
_ON_REQUEST = frozenset(("logit", "candidates", "undecided"))
EXTRAS = ("in_scope", "embedding", "embedding2", "empty", "windows")
"""The fields of a prediction as JSON besides its texts and tasks (see `Prediction.to_json`)."""

_TITLES = {"classification": "Classification", "ner": "NER Tags"}


class Result(ABC):
    """The result of a task for a text."""

    __slots__ = ()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""

    def __str__(self) -> str:
        return self.words()

    def to_dict(self) -> dict[str, Any]:
        """Return all values in full precision, as plain Python values."""
        return _present(asdict(self)) if is_dataclass(self) else self.to_json()

    def cells(self) -> dict[str, Any]:
        """Return the values of the result's table columns, by the suffix of the column's name."""
        return {"": self.to_json()}

    def requested_cells(self) -> dict[str, Any]:
        """Return the values of the columns that a table has on request, by suffix too.

        `_candidates` come with `top_k`; the others, the head's own output, with `logits`.
        """
        return {}

    @abstractmethod
    def ids(self) -> str:
        """Write the result as label indices, for people."""

    @abstractmethod
    def words(self) -> str:
        """Write the result in words, for people."""

    @abstractmethod
    def decision(self) -> object:
        """Return a value that is equal for equal answers; None if nothing was decided."""

    @abstractmethod
    def scores(self) -> Iterable[float]:
        """Return the probabilities of the answer."""


@dataclass(frozen=True, slots=True)
class ClassResult(Result):
    """One label of a text, and its probability. All None for a text without words.

    Where the score does not reach its threshold, label and id are None, the score is that of the
    most probable label, and the candidates are listed.
    """

    label: str | None
    id: int | None
    score: float | None
    logit: float | None = None
    """The head's raw output, if it was requested."""
    candidates: tuple[ClassResult, ...] = ()
    """The most probable labels, if they were requested or none is decided."""

    @property
    def undecided(self) -> bool:
        """Whether the score does not reach its threshold."""
        return self.label is None and bool(self.candidates)

    def to_json(self) -> dict[str, Any]:
        """Return the label as a JSON object."""
        found: dict[str, Any] = {
            "label": self.label,
            "id": self.id,
            "score": rounded(self.score),
        }
        if self.logit is not None:
            found["logit"] = rounded(self.logit)
        if self.candidates:
            found["candidates"] = [one.to_json() for one in self.candidates]
        return found

    def cells(self) -> dict[str, Any]:
        """Return the label and its probability."""
        return {"": self.label, "_score": self.score}

    def requested_cells(self) -> dict[str, Any]:
        """Return the most probable labels and the head's raw output."""
        return {"_candidates": _dicts(self.candidates), "_logit": self.logit}

    def ids(self) -> str:
        """Write the index of the label."""
        return str(self.id)

    def words(self) -> str:
        """Write the label with its probability, or the candidates."""
        if self.undecided:
            return f"undecided between {', '.join(one.words() for one in self.candidates)}"
        shown = printable(str(self.label))
        return shown if self.score is None else f"{shown} {percent(self.score)}"

    def decision(self) -> object:
        """Return the index of the label."""
        return self.id

    def scores(self) -> Iterable[float]:
        """Return the label's probability; none for a text without words."""
        return () if self.score is None else (self.score,)


@dataclass(frozen=True, slots=True)
class MultilabelResult(Result):
    """All labels that apply to a text, in the order of the task's labels."""

    labels: tuple[ClassResult, ...]
    candidates: tuple[ClassResult, ...] = ()
    """The most probable labels, if they were requested, and those below their thresholds."""

    def to_json(self) -> dict[str, Any]:
        """Return the labels as a JSON object."""
        found = {"labels": [label.to_json() for label in self.labels]}
        if self.candidates:
            found["candidates"] = [one.to_json() for one in self.candidates]
        return found

    def cells(self) -> dict[str, Any]:
        """Return the labels and their probabilities."""
        return {
            "": [label.label for label in self.labels],
            "_scores": [label.score for label in self.labels],
        }

    def requested_cells(self) -> dict[str, Any]:
        """Return the most probable labels, and the head's raw outputs of those that apply."""
        return {
            "_candidates": _dicts(self.candidates),
            "_logits": [label.logit for label in self.labels],
        }

    def ids(self) -> str:
        """Write the indices of the labels."""
        return str([label.id for label in self.labels])

    def words(self) -> str:
        """Write the labels."""
        return ", ".join(label.words() for label in self.labels) or "none"

    def decision(self) -> object:
        """Return the indices of the labels."""
        return tuple(label.id for label in self.labels)

    def scores(self) -> Iterable[float]:
        """Return the labels' probabilities."""
        return [label.score or 0.0 for label in self.labels]


@dataclass(frozen=True, slots=True)
class Entity:
    """A labelled stretch of a text: `text` is the whole text's characters `start` to `end`."""

    text: str
    label: str
    start: int
    end: int
    score: float
    logit: float | None = None
    """The log-odds of its probability before calibration, if they were requested."""

    def to_json(self, *, undecided: bool = False) -> dict[str, Any]:
        """Return the entity as a JSON object; if it is undecided, its label as a candidate."""
        score = rounded(self.score)
        found: dict[str, Any] = {
            "text": self.text,
            "label": None if undecided else self.label,
            "start": self.start,
            "end": self.end,
            "score": score,
        }
        if self.logit is not None:
            found["logit"] = rounded(self.logit)
        if undecided:
            found["candidates"] = [{"label": self.label, "score": score}]
        return found


class TokenTag(NamedTuple):
    """A token and its tag; `id` is the tag's index, -1 if the task has no tag `O`.

    Its text is the whole text's characters `start` to `end`.
    """

    text: str
    tag: str
    id: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TaggingResult(Result):
    """The entities of a text and the tags of its tokens.

    The tokens are those that the user gave, or else the words that were found in the text. A task
    whose tags are plain classes, one for every token, has no entities.
    """

    entities: tuple[Entity, ...]
    tokens: tuple[TokenTag, ...]
    undecided: tuple[Entity, ...] = ()
    """Entities whose scores do not reach their thresholds. Tokens have their tags all the same."""

    def to_json(self) -> dict[str, Any]:
        """Return entities, undecided ones too, and tokens as a JSON object."""
        return {
            "entities": [entity.to_json(undecided=is_open) for entity, is_open in self._every()],
            "tokens": [token._asdict() for token in self.tokens],
        }

    def _every(self) -> list[tuple[Entity, bool]]:
        """Return all entities in the order of the text, and whether each is undecided."""
        every = [(e, False) for e in self.entities] + [(e, True) for e in self.undecided]
        return sorted(every, key=lambda pair: pair[0].start)

    def to_dict(self) -> dict[str, Any]:
        """Return entities and tokens with all values in full precision."""
        return {
            "entities": _dicts(self.entities),
            "tokens": [token._asdict() for token in self.tokens],
            **_present({"undecided": _dicts(self.undecided)}),
        }

    def cells(self) -> dict[str, Any]:
        """Return the entities."""
        return {"": _dicts(self.entities)}

    def ids(self) -> str:
        """Write each token with the index of its tag."""
        pairs = (f"({json.dumps(t.text, ensure_ascii=False)}, {t.id})" for t in self.tokens)
        return f"[{', '.join(pairs)}]"

    def words(self) -> str:
        """Write the entities with their types and probabilities."""
        return (
            ", ".join(
                f"{printable(entity.text)} ({'perhaps ' * is_open}{printable(entity.label)} "
                f"{percent(entity.score)})"
                for entity, is_open in self._every()
            )
            or "none"
        )

    def decision(self) -> object:
        """Return the indices of the tags."""
        return tuple(token.id for token in self.tokens)

    def scores(self) -> Iterable[float]:
        """Return the entities' scores."""
        return [entity.score for entity in self.entities]


@dataclass(frozen=True, slots=True)
class ValueResult(Result):
    """A number for a text; None for a text without words."""

    value: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the number as a JSON object."""
        return {"value": rounded(self.value)}

    def cells(self) -> dict[str, Any]:
        """Return the number."""
        return {"": self.value}

    def ids(self) -> str:
        """Write the number."""
        return self.words()

    def words(self) -> str:
        """Write the number."""
        return "None" if self.value is None else f"{self.value:.6g}"

    def decision(self) -> object:
        """Return None: a number is neither right nor wrong."""
        return None

    def scores(self) -> Iterable[float]:
        """Return no probabilities."""
        return ()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Prediction:
    """A model's answers for one text, or for a pair of texts."""

    text: str
    """The text as the user gave it; a list of tokens is joined by spaces."""
    results: Mapping[str, Result]
    """By the task's name, in the order of the model's tasks."""
    embedding: NDArray[np.float32] | None = None
    """[H], if it was requested and the text has words."""
    windows: int = 1
    """The number of parts in which the text was read: more than one if it is longer than the
    encoder accepts, none if it has no words."""
    text2: str | None = None
    """The second text, of a pair."""
    embedding2: NDArray[np.float32] | None = None
    """[H] the second text's."""
    in_scope: float | None = None
    """The probability that the text belongs to one of the known classes; None if the model has no
    scope."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The other fields of the record that the text was read from, if they are kept."""

    def __getitem__(self, task: str) -> Any:
        """Return a task's result.

        Raises:
            RequestError: there is none of that name.
        """
        if task not in self.results:
            raise RequestError(
                f"the prediction has no task {shorten(task)}{nearest(str(task), self.results)}",
                expected=f"one of: {listing(self.results)}" if self.results else "",
            )
        return self.results[task]

    def __eq__(self, other: object) -> bool:
        """Return whether another prediction has the same texts, answers and embeddings."""
        if not isinstance(other, Prediction):
            return NotImplemented
        return all(
            _is_equal(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, task: object) -> bool:
        return task in self.results

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __repr__(self) -> str:
        parts = [f"{name}: {result}" for name, result in self.results.items()]
        if self.embedding is not None:
            parts.append(f"embedding: {len(self.embedding)} numbers")
        pair = "" if self.text2 is None else f" and {shorten(self.text2)}"
        return f"Prediction({shorten(self.text)}{pair}; {'; '.join(parts) or 'no results'})"

    def _repr_html_(self) -> str:
        """Show it in a notebook: entities marked in the text, other answers in words."""
        text = self.text if self.text2 is None else f"{self.text}\n{self.text2}"
        return table(text, ["task", "answer"], [[name, self.html(name)] for name in self.results])

    def html(self, task: str) -> str:
        """Return a task's answer for a cell of a notebook's table."""
        result = self.results[task]
        if isinstance(result, TaggingResult) and result.entities:
            return marked(self.text, (Marked(e.start, e.end, e.label) for e in result.entities))
        return result.words()

    @property
    def empty(self) -> bool:
        """Whether the text has no words, so that there was nothing to predict from."""
        return self.windows == 0

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as a dict: `to_json` in full precision, embeddings as arrays."""
        return self._values({name: result.to_dict() for name, result in self.results.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as one JSON object.

        `embedding` is present if it was requested, `empty` and `windows` if they differ from their
        defaults.
        """
        record = self._values({name: result.to_json() for name, result in self.results.items()})
        if self.in_scope is not None:
            record["in_scope"] = rounded(self.in_scope)
        if self.embedding is not None:
            record["embedding"] = self.embedding.tolist()
        if self.embedding2 is not None:
            record["embedding2"] = self.embedding2.tolist()
        return record

    def _values(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return the texts, the results and the extras that are there."""
        texts = {"text": self.text, "text2": self.text2}
        others = {
            "in_scope": self.in_scope,
            "embedding": self.embedding,
            "embedding2": self.embedding2,
            "empty": self.empty or None,
            "windows": self.windows if self.windows > 1 else None,
        }
        record = {name: text for name, text in texts.items() if text is not None} | dict(results)
        return record | {name: value for name, value in others.items() if value is not None}


def two_lines(prediction: Prediction) -> str:
    """Show a prediction to people: in words with probabilities, then label indices by task.

    In words: classification: statement 98 %; ner: John (PER 97 %), Paris (LOC over 99 %)
    Classification: 1
    NER Tags: [("John", 1), ("lives", 0), ("in", 0), ("Paris", 3)]
    """
    lines = [
        f"{_TITLES.get(name, name.replace('_', ' ').capitalize())}: {result.ids()}"
        for name, result in prediction.results.items()
    ]
    if prediction.empty:
        return "\n".join(["In words: the text has no words", *lines])
    words = [f"{name}: {result.words()}" for name, result in prediction.results.items()]
    if not words:
        words.append("the model has an embedding for it, and no labels")
    if prediction.in_scope is not None:
        unlike = "perhaps none of these, " if prediction.in_scope < 0.5 else ""
        words.append(f"{unlike}in scope {percent(prediction.in_scope)}")
    if prediction.windows > 1:
        words.append(f"a long text, read in {prediction.windows} windows")
    return "\n".join([f"In words: {'; '.join(words)}", *lines])


def _is_equal(one: object, other: object) -> bool:
    """Return whether two values of a prediction are equal; embeddings are number by number."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)  # type: ignore[arg-type]
    return one == other


def _dicts(items: Iterable[ClassResult | Entity]) -> list[dict[str, Any]]:
    """Return labels or entities in full precision, as plain Python values."""
    return [_present(asdict(item)) for item in items]


def _present(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out optional values that were not requested, at every depth."""
    found = {}
    for name, value in values.items():
        if name in _ON_REQUEST and not value and value != 0.0:
            continue
        inner = isinstance(value, list | tuple) and value and isinstance(value[0], dict)
        found[name] = [_present(one) for one in value] if inner else value
    return found


def printable(text: str) -> str:
    """Return a text on one line, without terminal control sequences."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def percent(share: float) -> str:
    """Write a probability for people, never as 0 % or 100 %."""
    if share < 0.005:
        return "under 1 %"
    return "over 99 %" if share >= 0.995 else f"{100 * share:.0f} %"


def percent_of(share: float) -> str:
    """Write a measured share for people, as 0 % or 100 % only if it is exactly that."""
    return f"{100 * share:.0f} %" if share in (0, 1) else percent(share)


def rounded(score: float | None) -> float | None:
    """Round a score for JSON."""
    return None if score is None else round(score, _SCORE_DIGITS)
