"""Sequences of tags: which are allowed, which is the best, and how probable each tag is.

Axes: B sentences, W words (right-padded), L labels, of them F free and N inside (`I-x`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.labels import OUTSIDE, Scheme

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Transitions:
    """A CRF's learned scores of sequences of tags, added to those of the words.

    Shapes: start [L], end [L], pairwise [L, L] (from, to); float32. Entries that the scheme
    forbids are never read.
    """

    start: Floats
    end: Floats
    pairwise: Floats

    @classmethod
    def zeros(cls, num_labels: int) -> Transitions:
        """Return transitions without any preference."""
        zeros = np.zeros((num_labels + 2, num_labels), np.float32)
        return cls(zeros[0], zeros[1], zeros[2:])

    def first(self, size: int) -> Transitions:
        """Return the transitions among the first `size` tags."""
        return Transitions(self.start[:size], self.end[:size], self.pairwise[:size, :size])


@dataclass(frozen=True, slots=True, eq=False)
class TagRules:
    """The tag sequences that a scheme allows. Arrays are read-only.

    Under BIO a tag `I-x` follows only `B-x` and `I-x` and never begins a sentence; everything else
    is allowed, as with plain classes.
    """

    start: NDArray[np.bool_]
    """[L]: whether a tag may begin a sentence."""
    pairwise: NDArray[np.bool_]
    """[L, L] (from, to): whether a tag may follow another."""
    free: Ints
    """[F]: the tags that may follow any tag."""
    inside: Ints
    """[N]: the others, F + N = L."""
    before: Ints
    """[N, 2]: the two tags that may precede each of `inside`, `B-x` and `I-x`."""
    onward: Ints
    """[L]: the tag that continues an entity, `I-x` after `B-x` and `I-x`; -1 for other tags."""
    entity: NDArray[np.bool_]
    """[L]: whether a tag belongs to an entity, as `B-x` and `I-x` do under BIO."""


@lru_cache(maxsize=64)
def tag_rules(labels: tuple[str, ...], scheme: Scheme) -> TagRules:
    """Derive the allowed sequences from the names of the tags, in any order."""
    inside = [i for i, tag in enumerate(labels) if scheme is Scheme.BIO and tag.startswith("I-")]
    before = [[labels.index("B" + labels[i][1:]), i] for i in inside]
    start = np.ones(len(labels), np.bool_)
    start[inside] = False
    pairwise = np.ones((len(labels), len(labels)), np.bool_)
    for to, predecessors in zip(inside, before, strict=True):
        pairwise[:, to] = False
        pairwise[predecessors, to] = True
    onward = np.full(len(labels), -1, np.int64)
    for to, predecessors in zip(inside, before, strict=True):
        onward[predecessors] = to
    entity = [scheme is Scheme.BIO and tag[:2] in ("B-", "I-") for tag in labels]
    rules = TagRules(
        start=start,
        pairwise=pairwise,
        free=np.flatnonzero(start),
        inside=np.array(inside, np.int64),
        before=np.array(before, np.int64).reshape(-1, 2),
        onward=onward,
        entity=np.array(entity, np.bool_),
    )
    for array in (getattr(rules, name) for name in TagRules.__slots__):
        array.flags.writeable = False
    return rules


def best_paths(
    emissions: Floats,
    lengths: Ints,
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions | None = None,
    stages: Sequence[int] = (),
) -> Ints:
    """Find the best allowed tag sequences by the Viterbi algorithm (Viterbi, 1967).

    With stages, the tags of the best sequence that a stage added replace those of the stage before,
    and the entities that they overlap; everything else stays as it was.

    Args and shapes are those of `decode_tags`.

    Returns:
        tags [B, W]; beyond a sentence's length they are 0.
    """
    if stages:
        *earlier, size = stages
        own = None if transitions is None else transitions.first(size)
        before = best_paths(emissions[..., :size], lengths, labels[:size], scheme, own, earlier)
        paths = best_paths(emissions, lengths, labels, scheme, transitions)
        return _merged(before, paths, size, labels, scheme)
    rules = tag_rules(labels, scheme)
    batch, words, _ = emissions.shape
    paths = np.zeros((batch, words), np.int64)
    if not paths.size:
        return paths
    if transitions is not None:
        return _viterbi(emissions, lengths, rules, transitions)
    # The best tag of each word makes the best sequence wherever that is allowed: nearly always,
    # once a model is trained.
    inside = np.arange(words) < lengths[:, None]
    paths = np.where(inside, emissions.argmax(axis=-1), 0)
    wrong = inside[:, 0] & ~rules.start[paths[:, 0]]
    wrong |= (inside[:, 1:] & ~rules.pairwise[paths[:, :-1], paths[:, 1:]]).any(axis=1)
    if wrong.any():
        neutral = Transitions.zeros(len(labels))
        paths[wrong] = _viterbi(emissions[wrong], lengths[wrong], rules, neutral)
    return paths


def _merged(before: Ints, paths: Ints, size: int, labels: tuple[str, ...], scheme: Scheme) -> Ints:
    """Put the tags from `size` on into earlier sequences, in place of the entities they overlap.

    Args:
        before: [B, W] sequences of the first `size` tags.
        paths: [B, W] sequences of all tags.
        size: the number of the earlier tags.
        labels: tag names.
        scheme: how they make entities.
    """
    new = paths >= size
    if scheme is Scheme.BIO:
        rules = tag_rules(labels, scheme)
        entity = rules.entity[before]
        begins = entity & ~np.isin(before, rules.inside)
        # Each entity's words have one number, which no other sentence has.
        numbers = np.cumsum(begins).reshape(before.shape)
        overlapped = entity & np.isin(numbers, numbers[entity & new])
        before = np.where(overlapped, labels.index(OUTSIDE), before)
    return np.where(new, paths, before)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A CRF's distribution over tag sequences, from the forward-backward algorithm.

    Given its sentence, such a sequence is a Markov chain. All arrays are float64.
    """

    marginals: NDArray[np.float64]
    """[B, W, L]: every word's tag probabilities; rows beyond a sentence's length are zero."""
    ahead: NDArray[np.float64]
    """[B, W, L]: the likelihood of the words from here on, up to a factor for each word."""
    leaving: NDArray[np.float64]
    """[B, W, L]: the likelihood of the words after this one by its tag, up to the factor of
    `ahead` of the next word."""
    pairwise: NDArray[np.float64]
    """[L, L] (from, to): the exponentials of the allowed transitions, zero for the others."""

    def following(self, tags: Ints, next_tags: Ints) -> NDArray[np.float64]:
        """Return the probability of the next word's tag given a word's tag, in their shape.

        Args:
            tags: [B, W - 1] of all words but the last.
            next_tags: [B, W - 1] of all words but the first.
        """
        row, word = np.ogrid[: tags.shape[0], : tags.shape[1]]
        towards = self.pairwise[tags, next_tags] * self.ahead[row, word + 1, next_tags]
        every = self.leaving[row, word, tags]
        share: NDArray[np.float64] = np.zeros(tags.shape)
        np.divide(towards, every, out=share, where=every > 0)
        return share


def marginals(
    emissions: Floats,
    lengths: Ints,
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions,
) -> NDArray[np.float64]:
    """Compute every word's tag probabilities given its whole sentence, under a CRF.

    Args and shapes are those of `decode_tags`.

    Returns:
        [B, W, L] float64; rows sum to 1, those beyond a sentence's length are zero.
    """
    return forward_backward(emissions, lengths, labels, scheme, transitions).marginals


def forward_backward(
    emissions: Floats,
    lengths: Ints,
    labels: tuple[str, ...],
    scheme: Scheme,
    transitions: Transitions,
) -> Chain:
    """Compute a CRF's distribution over the tag sequences of each sentence.

    The forward-backward algorithm (Rabiner, 1989, with its scaling), in float64: one matrix
    product a word and direction. Scores more than 300 nats below a word's best count as
    300 nats below, so that no sentence's probability can vanish.

    Args and shapes are those of `decode_tags`.
    """
    rules = tag_rules(labels, scheme)
    batch, words, size = emissions.shape
    result, ahead, left = (np.zeros((batch, words, size)) for _ in range(3))
    start = np.where(rules.start, np.exp(transitions.start.astype(np.float64)), 0.0)
    end = np.exp(transitions.end.astype(np.float64))
    pairwise = np.where(rules.pairwise, np.exp(transitions.pairwise.astype(np.float64)), 0.0)
    if not words:
        return Chain(result, ahead, left, pairwise)
    order, active = _by_length(lengths, words)
    local = emissions[order].astype(np.float64)
    local -= local.max(axis=-1, keepdims=True)
    np.exp(np.maximum(local, -300.0, out=local), out=local)

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
        rows = order[: active[t]]
        result[rows, t] = gamma / gamma.sum(axis=-1, keepdims=True)
        beta = leaving * local[: active[t], t]
        beta /= beta.sum(axis=-1, keepdims=True)
        left[rows, t], ahead[rows, t] = leaving, beta
    return Chain(result, ahead, left, pairwise)


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
    spread = free.max() - free.min()
    before = place[rules.before.T]
    inside = pairwise[before, np.arange(split, size)]

    # scores[:, t] becomes the score of the best path to each tag of word t.
    scores[:, 0] += transitions.start[tags]
    scores[:, 0, split:] = -np.inf
    for t, count in enumerate(active[1:], start=1):
        last, here = scores[:count, t - 1], scores[:count, t]
        # Scores relative to the best keep float32 exact however long the sentence is.
        last -= last.max(axis=-1, keepdims=True)
        # A tag that lies further below the best than any two transitions differ precedes no best
        # path. (Not written as >=, so that NaN keeps all tags.)
        near = np.flatnonzero(~(last < -spread).all(axis=0))
        # [from, B, to]: reducing the first axis is what numpy vectorises best.
        here[:, :split] += (last.T[near, :, None] + free[near]).max(axis=0)
        if split < size:
            arriving = last[:, before] + inside
            here[:, split:] += np.maximum(arriving[:, 0], arriving[:, 1])

    # Only the predecessors on the best path are looked up, on the way back: far fewer than one
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
    """Sort sentences, longest first, and count those that have each word.

    With them in this order, each step of a recursion works on the first so many sentences and
    never on padding.
    """
    order = np.argsort(-lengths, kind="stable")
    active = (lengths[:, None] > np.arange(words)).sum(axis=0)
    return order, [int(count) for count in active if count]
