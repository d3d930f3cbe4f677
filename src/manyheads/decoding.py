"""From logits to labels: the only decoding there is, whoever computed the logits.

Training, evaluation, prediction and the server share these functions, with or without a
deep-learning framework. Every sentence is decoded as if it were alone: neither its padding nor
its batch mates change the result.

Axes: B sentences, W words (right-padded), L labels. Logits are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, ModelError, listing, nearest, shorten
from manyheads.labels import LabelSet, Scheme, TagSet

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Decoder = Literal["linear", "crf"]

CLASSIFICATION, MULTILABEL, TAGGING = "classification", "multilabel", "tagging"

_FIELDS: Mapping[str, tuple[str, ...]] = {
    CLASSIFICATION: (),
    MULTILABEL: ("threshold",),
    TAGGING: ("scheme", "decoder"),
}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What it takes to read a task's logits: stored with every model, torch or not.

    Args:
        name: the task's name, unique in its model.
        kind: "classification", "multilabel", "tagging" or a kind of a head registered elsewhere.
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
        wanted = _FIELDS.get(self.kind, ())
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
        if self.kind in _FIELDS and not self.labels:
            raise self._error("no labels", expected="at least one")
        try:
            self.label_set()
        except DataError as error:
            raise self._error(error.found, expected=error.expected) from None

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


@dataclass(frozen=True, slots=True)
class Transitions:
    """What a CRF learned about sequences of tags: scores added to those of the words.

    Shapes: start [L], end [L], pairwise [L, L] (from, to); float32. Entries that the scheme
    forbids mean nothing and are never read.
    """

    start: Floats
    end: Floats
    pairwise: Floats

    @classmethod
    def zeros(cls, num_labels: int) -> Transitions:
        """Return transitions that prefer nothing."""
        zeros = np.zeros((num_labels + 2, num_labels), np.float32)
        return cls(zeros[0], zeros[1], zeros[2:])


class Scored(NamedTuple):
    """Label indices and the probability of each: int64 and float32 of one shape."""

    ids: Ints
    scores: Floats


Decoded = Scored | list[Scored]


def decode(
    spec: TaskSpec,
    logits: Floats,
    lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    transitions: Transitions | None = None,
) -> Decoded:
    """Decode a task's logits as its kind asks.

    Args:
        logits: [B, L], or for tagging [B, W, L].
        lengths: tagging only: the number of words of each sentence [B].
        transitions: tagging with a CRF only.

    Returns:
        classification: one `Scored` of shape [B]; multilabel: for each sentence the labels it
        has; tagging: for each sentence the tags of its words.

    Raises:
        ModelError: the kind is not one that can be decoded here, or the CRF's transitions are
            missing.
    """
    if spec.kind == CLASSIFICATION:
        return decode_classes(logits)
    if spec.kind == MULTILABEL:
        return decode_multilabel(logits, cast(float, spec.threshold))
    if spec.kind != TAGGING:
        raise ModelError(
            f"task {shorten(spec.name)} is of kind {shorten(spec.kind)}",
            expected=f"one of: {listing(_FIELDS)}",
            fix="The model needs another version of manyheads.",
        )
    if (spec.decoder == "crf") != (transitions is not None):
        state = "missing" if transitions is None else "there, and its decoder is linear"
        raise ModelError(
            f"the transitions of task {shorten(spec.name)} are {state}",
            expected="transitions exactly when the decoder is crf",
            fix="The model's files are damaged or were edited.",
        )
    if lengths is None:
        raise ValueError("tagging logits cannot be decoded without the sentences' lengths")
    return decode_tags(logits, lengths, spec.labels, cast(Scheme, spec.scheme), transitions)


def decode_classes(logits: Floats) -> Scored:
    """Choose each sentence's most probable class.

    Args:
        logits: [B, L].

    Returns:
        ids and softmax probabilities, both [B].
    """
    ids = logits.argmax(axis=-1) if len(logits) else np.zeros(0, np.int64)
    return Scored(ids, _softmax_of(logits, ids))


def decode_multilabel(logits: Floats, threshold: float = 0.5) -> list[Scored]:
    """Choose for each sentence every label whose probability reaches the threshold.

    Args:
        logits: [B, L].

    Returns:
        for each sentence the labels it has, in their order, with sigmoid probabilities.
    """
    # Written with exp of a non-positive number only: no overflow, whatever the logits.
    small = np.exp(-np.abs(logits))
    scores = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return [
        Scored(np.flatnonzero(row >= threshold), row[row >= threshold].astype(np.float32))
        for row in scores
    ]


def decode_tags(
    emissions: Floats,
    lengths: Sequence[int] | NDArray[np.integer[Any]],
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions | None = None,
) -> list[Scored]:
    """Find each sentence's best sequence of tags among those that the scheme allows.

    Args:
        emissions: [B, W, L], the tagging head's logits.
        lengths: [B], the number of words of each sentence; zero is allowed.
        labels: tag names, in the order of L.
        transitions: a CRF's; without them the words are independent but for the scheme.

    Returns:
        for each sentence the tags of its words and their probabilities: with a CRF the
        marginal probability of the tag given the whole sentence, else the word's softmax.
    """
    counts = np.asarray(lengths, dtype=np.int64)
    _check_tag_shapes(emissions, counts, labels, transitions)
    ids = best_paths(emissions, counts, labels, scheme, transitions)
    if transitions is None:
        scores = _softmax_of(emissions, ids)
    else:
        probabilities = marginals(emissions, counts, labels, scheme, transitions)
        chosen = np.take_along_axis(probabilities, ids[..., None], axis=-1)[..., 0]
        scores = chosen.astype(np.float32)
    return [Scored(row[:n], score[:n]) for row, score, n in zip(ids, scores, counts, strict=True)]


def entity_score(scores: Floats) -> float:
    """Return the score of an entity from those of its words: the least of them.

    An entity is right when all its words are, and the probability of that is at most the
    least of theirs; where tags depend strongly on each other, as in a CRF, it is close to it. A
    mean would hide one doubtful word, usually the one at the entity's border.
    """
    return float(np.min(scores))


@dataclass(frozen=True, slots=True, eq=False)
class TagRules:
    """Which sequences of tags a scheme allows. Arrays are read-only.

    Under BIO a tag `I-x` follows only `B-x` and `I-x` and never begins a sentence; all else is
    free, as everything is with plain classes.
    """

    start: NDArray[np.bool_]
    """[L]: whether a tag may begin a sentence."""
    pairwise: NDArray[np.bool_]
    """[L, L] (from, to): whether a tag may follow another."""
    free: Ints
    """[F]: the tags that any tag may precede."""
    inside: Ints
    """[N]: the others, F + N = L."""
    before: Ints
    """[N, 2]: the two tags that may precede each of `inside`, `B-x` and `I-x`."""


@lru_cache(maxsize=64)
def tag_rules(labels: tuple[str, ...], scheme: Scheme) -> TagRules:
    """Derive from the tags' names which sequences are allowed, in whatever order they stand."""
    inside = [i for i, tag in enumerate(labels) if scheme is Scheme.BIO and tag.startswith("I-")]
    before = [[labels.index("B" + labels[i][1:]), i] for i in inside]
    start = np.ones(len(labels), np.bool_)
    start[inside] = False
    pairwise = np.ones((len(labels), len(labels)), np.bool_)
    for to, predecessors in zip(inside, before, strict=True):
        pairwise[:, to] = False
        pairwise[predecessors, to] = True
    rules = TagRules(
        start=start,
        pairwise=pairwise,
        free=np.flatnonzero(start),
        inside=np.array(inside, np.int64),
        before=np.array(before, np.int64).reshape(-1, 2),
    )
    for array in (rules.start, rules.pairwise, rules.free, rules.inside, rules.before):
        array.flags.writeable = False
    return rules


def best_paths(
    emissions: Floats,
    lengths: Ints,
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions | None = None,
) -> Ints:
    """Find the best allowed tag sequences by the Viterbi algorithm (Viterbi, 1967).

    Args and shapes are those of `decode_tags`.

    Returns:
        tags [B, W]; beyond a sentence's length they are 0.
    """
    rules = tag_rules(labels, scheme)
    batch, words, _ = emissions.shape
    paths = np.zeros((batch, words), np.int64)
    if not paths.size:
        return paths
    if transitions is not None:
        return _viterbi(emissions, lengths, rules, transitions)
    # Each word's best tag by itself makes the best sequence wherever that is an allowed one:
    # nearly always, once a model is trained.
    inside = np.arange(words) < lengths[:, None]
    paths = np.where(inside, emissions.argmax(axis=-1), 0)
    wrong = inside[:, 0] & ~rules.start[paths[:, 0]]
    wrong |= (inside[:, 1:] & ~rules.pairwise[paths[:, :-1], paths[:, 1:]]).any(axis=1)
    if wrong.any():
        neutral = Transitions.zeros(len(labels))
        paths[wrong] = _viterbi(emissions[wrong], lengths[wrong], rules, neutral)
    return paths


def marginals(
    emissions: Floats,
    lengths: Ints,
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions,
) -> NDArray[np.float64]:
    """Compute every word's tag probabilities given its whole sentence, under a CRF.

    The forward-backward algorithm (Rabiner, 1989, with its scaling), in float64: one matrix
    product a word and direction. A tag more than 300 nats below its word's best is taken for
    300 nats below, so that no sentence's probability can vanish.

    Args and shapes are those of `decode_tags`.

    Returns:
        [B, W, L] float64; rows sum to 1, those beyond a sentence's length are zero.
    """
    rules = tag_rules(labels, scheme)
    batch, words, size = emissions.shape
    result = np.zeros((batch, words, size))
    if not words:
        return result
    order, active = _by_length(lengths, words)
    local = emissions[order].astype(np.float64)
    local -= local.max(axis=-1, keepdims=True)
    np.exp(np.maximum(local, -300.0, out=local), out=local)
    start = np.where(rules.start, np.exp(transitions.start.astype(np.float64)), 0.0)
    end = np.exp(transitions.end.astype(np.float64))
    pairwise = np.where(rules.pairwise, np.exp(transitions.pairwise.astype(np.float64)), 0.0)

    forward = np.zeros((words, batch, size))
    for t, count in enumerate(active):
        arriving = start if t == 0 else forward[t - 1, :count] @ pairwise
        alpha = np.multiply(arriving, local[:count, t], out=forward[t, :count])
        alpha /= alpha.sum(axis=-1, keepdims=True)

    beta = np.zeros((0, size))
    for t in range(len(active) - 1, -1, -1):
        leaving = np.empty((active[t], size))
        leaving[: len(beta)] = beta @ pairwise.T
        leaving[len(beta) :] = end
        gamma = forward[t, : active[t]] * leaving
        result[order[: active[t]], t] = gamma / gamma.sum(axis=-1, keepdims=True)
        beta = leaving * local[: active[t], t]
        beta /= beta.sum(axis=-1, keepdims=True)
    return result


def _viterbi(emissions: Floats, lengths: Ints, rules: TagRules, transitions: Transitions) -> Ints:
    """Find the best allowed paths [B, W] under some transitions."""
    batch, words, size = emissions.shape
    order, active = _by_length(lengths, words)
    # Free tags first, so that both groups are slices.
    tags = np.concatenate([rules.free, rules.inside])
    place = np.argsort(tags)
    split = len(rules.free)
    scores = emissions[order][:, :, tags]
    pairwise = transitions.pairwise[np.ix_(tags, tags)]
    free = np.ascontiguousarray(pairwise[:, None, :split])
    before = place[rules.before.T]
    inside = pairwise[before, np.arange(split, size)]

    # scores[:, t] becomes the score of the best path to each tag of word t.
    scores[:, 0] += transitions.start[tags]
    scores[:, 0, split:] = -np.inf
    for t, count in enumerate(active[1:], start=1):
        last, here = scores[:count, t - 1], scores[:count, t]
        # Scores relative to the best keep float32 exact however long the sentence is.
        last -= last.max(axis=-1, keepdims=True)
        # [from, B, to]: reducing the first axis is what numpy vectorises best.
        here[:, :split] += (last.T[:, :, None] + free).max(axis=0)
        if split < size:
            arriving = last[:, before] + inside
            here[:, split:] += np.maximum(arriving[:, 0], arriving[:, 1])

    # The predecessors of the best path alone are looked up on the way back: far fewer than one
    # for each word and tag.
    into = np.where(rules.pairwise, transitions.pairwise, np.float32(-np.inf))
    into = np.ascontiguousarray(into[np.ix_(tags, tags)].T)
    end = transitions.end[tags]
    paths = np.zeros((batch, words), np.int64)
    following = np.zeros(0, np.int64)
    for t in range(len(active) - 1, -1, -1):
        best = scores[: active[t], t]
        best[: len(following)] += into[following]
        best[len(following) :] += end
        following = best.argmax(axis=-1)
        paths[order[: active[t]], t] = tags[following]
    return paths


def _by_length(lengths: Ints, words: int) -> tuple[Ints, list[int]]:
    """Sort sentences, longest first, and count those that reach each word.

    With them in this order, each step of a recursion works on the first so many sentences and
    never on padding.
    """
    order = np.argsort(-lengths, kind="stable")
    active = (lengths[:, None] > np.arange(words)).sum(axis=0)
    return order, [int(count) for count in active if count]


def _softmax_of(logits: Floats, ids: Ints) -> Floats:
    """Return the softmax probability of the chosen labels: [..., L] and [...] -> [...]."""
    if not logits.size:
        return np.zeros(ids.shape, np.float32)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, ids[..., None], axis=-1)[..., 0]
    scores: Floats = np.exp(chosen) / np.exp(shifted).sum(axis=-1)
    return scores


def _check_tag_shapes(
    emissions: Floats, lengths: Ints, labels: Sequence[str], transitions: Transitions | None
) -> None:
    if emissions.ndim != 3 or emissions.shape[2] != len(labels):
        raise ValueError(f"emissions have shape {emissions.shape} for {len(labels)} labels")
    if lengths.shape != emissions.shape[:1]:
        raise ValueError(f"{lengths.shape} lengths for {emissions.shape[0]} sentences")
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() <= emissions.shape[1]:
        raise ValueError(f"lengths {lengths} do not fit {emissions.shape[1]} words")
    if transitions is not None and transitions.pairwise.shape != (len(labels), len(labels)):
        raise ValueError(
            f"transitions of shape {transitions.pairwise.shape} for {len(labels)} labels"
        )
