"""Results of tagging: the tags of words as entities, and as tags of the user's tokens.

Axes: E entities.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.calibration import Calibration, Curve, curve_shares, log_odds
from manyheads.tasks.decoding import Scored, entity_score, sigmoid
from manyheads.tasks.kinds.values import ReadText
from manyheads.tasks.labels import OUTSIDE, Scheme, Span, WordSpan, spans_of, tags_of, types_of
from manyheads.tasks.results import Entity, Result, TaggingResult, TokenTag
from manyheads.tasks.scoring import Scoring
from manyheads.text import Units, segment


def tagging_result(
    labels: Sequence[str], scheme: Scheme, units: Units, text: ReadText, scored: Scored
) -> TaggingResult:
    """Turn the decoded tags of a text into its result.

    Args:
        labels: the task's tags.
        scheme: how they make entities.
        units: the units that carry them.
        text: the text.
        scored: the tag and the factor of each word (see `decode_tags`).
    """
    ids, words = scored.ids.tolist(), text.words
    tags = [labels[i] for i in ids]
    plain = scheme is Scheme.PLAIN
    spans = spans_of(tags, words, scheme) if plain or any(t != OUTSIDE for t in tags) else ()
    if text.tokens is not None:
        tokens = token_tags(labels, text, tags_of(spans, text.tokens, scheme))
    else:
        tokens = [
            TokenTag(text.text[start:end], tag, i, start, end)
            for (start, end), tag, i in zip(words, tags, ids, strict=True)
        ]
        if units is Units.PIECES:
            tokens = _joined(text.text, tokens)
    entities = () if plain else _entities(text.text, words, spans, scored.scores.tolist())
    return TaggingResult(tuple(entities), tuple(tokens))


def token_tags(labels: Sequence[str], text: ReadText, tags: Sequence[str]) -> list[TokenTag]:
    """Pair the user's tokens with their tags."""
    index = {label: i for i, label in enumerate(labels)}
    return [
        TokenTag(text.text[start:end], tag, index.get(tag, -1), start, end)
        for (start, end), tag in zip(text.tokens or (), tags, strict=True)
    ]


def _entities(
    text: str, words: Sequence[WordSpan], spans: Iterable[Span], factors: Sequence[float]
) -> list[Entity]:
    """Score each span by the factors of its words."""
    starts = [start for start, _ in words]
    entities = []
    for span in spans:
        first, end = bisect_left(starts, span.start), bisect_left(starts, span.end)
        covered, score = text[span.start : span.end], entity_score(factors[first:end])
        entities.append(Entity(covered, span.label, span.start, span.end, score))
    return entities


def _joined(text: str, pieces: Sequence[TokenTag]) -> list[TokenTag]:
    """Join the pieces of a word again where no entity begins or ends between them."""
    tokens: list[TokenTag] = []
    starts: set[int] | None = None
    end = -1
    for piece in pieces:
        place = piece.start
        is_joined = place == end and _go_together(tokens[-1].tag, piece.tag)
        # No word begins between two letters or digits; other places need the text's words.
        if is_joined and not (text[place - 1 : place + 1].isascii() and text[place].isalnum()
                              and text[place - 1].isalnum()):  # fmt: skip
            starts = set(segment(text)[:, 0].tolist()) if starts is None else starts
            is_joined = place not in starts
        end = piece.end
        if is_joined:
            _, tag, index, start, _ = tokens[-1]
            tokens[-1] = TokenTag(text[start:end], tag, index, start, end)
        else:
            tokens.append(piece)
    return tokens


def _go_together(tag: str, following: str) -> bool:
    """Return whether the tags of two pieces are of one entity, or both outside of any."""
    if following == OUTSIDE:
        return tag == OUTSIDE
    return following.startswith("I-") and tag[2:] == following[2:]


def entity_shares(
    scores: NDArray[np.float64],
    names: Sequence[str],
    tags: tuple[str, ...],
    calibration: Calibration | None,
) -> NDArray[np.float64]:
    """Return the probabilities of entities.

    Args:
        scores: [E] their log-odds.
        names: [E] their types.
        tags: the task's.
        calibration: the task's, if it has one.
    """
    if not isinstance(calibration, Curve):
        return np.asarray(sigmoid(scores), np.float64)
    return curve_shares(calibration, scores, type_numbers(names, tags))


def type_numbers(names: Iterable[str], tags: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the place of each entity's type, [E], among the types of a task's tags."""
    places = _places(tags)
    return np.array([places[name] for name in names], np.int64)


@lru_cache(maxsize=64)
def _places(tags: tuple[str, ...]) -> Mapping[str, int]:
    """Return the place of each type. Kept: short texts are scored by the thousand."""
    return {name: place for place, name in enumerate(types_of(tags))}


def scored_entities(
    results: Sequence[Result], tags: tuple[str, ...], scoring: Scoring
) -> list[Result]:
    """Calibrate the entities of some texts; those below their thresholds become undecided.

    Args:
        results: those of `tagging_result`; others stay as they are.
        tags: the task's.
        scoring: the calibration, the thresholds, and whether log-odds are kept.
    """
    entities = [e for r in results if isinstance(r, TaggingResult) for e in r.entities]
    # All texts at once: an array for each would take longer than its few entities.
    odds = log_odds(np.array([entity.score for entity in entities], np.float64))
    shares = entity_shares(odds, [e.label for e in entities], tags, scoring.calibration)
    each = iter(shares.tolist()), iter(odds.tolist())
    return [
        _scored(result, scoring, *each)
        if isinstance(result, TaggingResult) and result.entities
        else result
        for result in results
    ]


def _scored(
    result: TaggingResult, scoring: Scoring, shares: Iterator[float], odds: Iterator[float]
) -> TaggingResult:
    """Score one text's entities, whose probabilities and log-odds come next."""
    limits, keeps_odds = scoring.thresholds, scoring.logits
    decided: list[Entity] = []
    undecided: list[Entity] = []
    for entity in result.entities:
        score, logit = next(shares), next(odds)
        reached = limits is None or score >= limits.of(entity.label)
        (decided if reached else undecided).append(
            Entity(
                entity.text, entity.label, entity.start, entity.end, score,
                logit if keeps_odds else None,
            )
        )  # fmt: skip
    return TaggingResult(tuple(decided), result.tokens, tuple(undecided))
