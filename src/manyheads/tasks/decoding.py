"""From logits to labels: the arithmetic of decoding.

Axes: B sentences, W words (right-padded), L labels. Logits are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.labels import Scheme
from manyheads.tasks.tag_sequences import (
    Floats,
    Ints,
    TagRules,
    Transitions,
    best_paths,
    forward_backward,
    tag_rules,
)


class Scored(NamedTuple):
    """Label indices and the probability of each: int64 and float32 of one shape."""

    ids: Ints
    scores: Floats


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
    return [
        Scored(np.flatnonzero(row >= threshold), row[row >= threshold].astype(np.float32))
        for row in sigmoid(logits)
    ]


def sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the probability of each label independently, in the shape of the logits."""
    # Written with exp of a non-positive number only: no overflow, whatever the logits.
    small = np.exp(-np.abs(logits))
    shares: NDArray[np.floating[Any]] = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return shares


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of labels that exclude each other: [..., L]."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return scores


def decode_tags(
    emissions: Floats,
    lengths: Sequence[int] | NDArray[np.integer[Any]],
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions | None = None,
    stages: Sequence[int] = (),
) -> list[Scored]:
    """Find each sentence's best sequence of tags among those that the scheme allows.

    Args:
        emissions: [B, W, L], the tagging head's logits.
        lengths: [B], the number of words of each sentence; zero is allowed.
        labels: tag names, in the order of L.
        transitions: a CRF's; without them the words are independent, apart from the scheme.
        stages: see `TagSet.stages`.

    Returns:
        for each sentence the tags of its words, and a factor for each word. The product of an
        entity's factors is the probability that exactly this span has this type; words outside
        entities have 1. Where tags are plain classes, it is the probability of the word's tag.
    """
    counts = np.asarray(lengths, dtype=np.int64)
    _check_tag_shapes(emissions, counts, labels, transitions)
    ids = best_paths(emissions, counts, labels, scheme, transitions, stages)
    if scheme is Scheme.PLAIN:
        scores = _plain_scores(emissions, counts, labels, ids, transitions)
    else:
        scores = _entity_factors(emissions, counts, labels, ids, transitions)
    return [Scored(row[:n], score[:n]) for row, score, n in zip(ids, scores, counts, strict=True)]


def entity_score(scores: Sequence[float]) -> float:
    """Return the probability of an entity from the factors of its words."""
    return prod(scores)


def _plain_scores(
    emissions: Floats, lengths: Ints, labels: tuple[str, ...], ids: Ints,
    transitions: Transitions | None,
) -> Floats:  # fmt: skip
    """Return the probability of each word's tag, [B, W]."""
    if transitions is None:
        return _softmax_of(emissions, ids)
    chain = forward_backward(emissions, lengths, labels, Scheme.PLAIN, transitions)
    return _of_tags(chain.marginals, ids).astype(np.float32)


def _entity_factors(
    emissions: Floats, lengths: Ints, labels: tuple[str, ...], ids: Ints,
    transitions: Transitions | None,
) -> Floats:  # fmt: skip
    """Factor the probability of each entity over its words, [B, W] float32.

    The factor of the first word is the probability that the entity begins there, those of the
    others that it continues, and that of the last one also that it ends there. With a CRF these are
    exact, given the whole sentence; without one, the words are independent.
    """
    factors = np.ones(ids.shape, np.float32)
    rules = tag_rules(labels, Scheme.BIO)
    rows = np.flatnonzero((rules.entity[ids] & _inside(lengths, ids.shape[1])).any(axis=1))
    if not len(rows):
        return factors
    tags, counts = ids[rows], lengths[rows]
    width = int(counts.max())
    tags, logits = tags[:, :width], emissions[rows, :width]
    onward = rules.onward[tags[:, :-1]]
    going = onward >= 0
    onward = np.where(going, onward, 0)
    if transitions is None:
        probabilities = softmax(logits).astype(np.float64)
        here = _of_tags(probabilities, tags)
        on = _of_tags(probabilities[:, 1:], onward)
        goes_on = here[:, 1:]
    else:
        chain = forward_backward(logits, counts, labels, Scheme.BIO, transitions)
        here = _of_tags(chain.marginals, tags)
        on = chain.following(tags[:, :-1], onward)
        goes_on = chain.following(tags[:, :-1], tags[:, 1:])
    factors[rows, :width] = _factors(rules, tags, counts, here, goes_on, np.where(going, on, 0.0))
    return factors


def _factors(
    rules: TagRules,
    tags: Ints,
    lengths: Ints,
    here: NDArray[np.float64],
    goes_on: NDArray[np.float64],
    on: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Combine probabilities into the factors of `_entity_factors`.

    Args:
        rules: the tags'.
        tags: [B, W].
        lengths: [B].
        here: [B, W] the probability of each word's tag.
        goes_on: [B, W - 1] the probability of the next word's tag, after a word's.
        on: [B, W - 1] the probability that a word's entity continues in the next word.
    """
    inside = _inside(lengths, tags.shape[1])
    factors = np.where(rules.entity[tags] & inside, here, 1.0)
    continues = (tags[:, 1:] == rules.onward[tags[:, :-1]]) & inside[:, 1:]
    factors[:, 1:][continues] = goes_on[continues]
    ends = ~continues & inside[:, 1:]
    factors[:, :-1][ends] *= 1.0 - np.minimum(on[ends], 1.0)
    return factors


def _inside(lengths: Ints, words: int) -> NDArray[np.bool_]:
    """Return [B, W], whether a position is a word of the sentence, not padding."""
    return np.arange(words) < lengths[:, None]


def _of_tags(values: NDArray[np.float64], tags: Ints) -> NDArray[np.float64]:
    """Select the value of each word's tag: [B, W, L] and [B, W] -> [B, W]."""
    chosen: NDArray[np.float64] = np.take_along_axis(values, tags[..., None], axis=-1)[..., 0]
    return chosen


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
