"""From logits to labels: the arithmetic that kinds of tasks decode by.

Axes: B sentences, W words (right-padded), L labels. Logits are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.labels import Scheme
from manyheads.tasks.tag_sequences import Floats, Ints, Transitions, best_paths, marginals


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


def sigmoid(logits: Floats) -> NDArray[np.floating[Any]]:
    """Return the probability of each label by itself, in the shape of the logits."""
    # Written with exp of a non-positive number only: no overflow, whatever the logits.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


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


def entity_score(scores: Sequence[float]) -> float:
    """Return the score of an entity from those of its words: the least of them.

    An entity is right when all its words are, and the probability of that is at most the
    least of theirs; where tags depend strongly on each other, as in a CRF, it is close to it. A
    mean would hide one doubtful word, usually the one at the entity's border.
    """
    return min(scores)


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
