"""Results of tagging: the tags of words as entities, and as tags of the user's tokens.

Axes: E entities.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.calibration import Calibration, Curve, log_odds
from manyheads.tasks.decoding import Scored, entity_score, sigmoid
from manyheads.tasks.kinds.values import ReadText
from manyheads.tasks.labels import OUTSIDE, Scheme, Span, WordSpan, spans_of, tags_of
from manyheads.tasks.results import Entity, TaggingResult, TokenTag
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
    ids = scored.ids.tolist()
    tags = [labels[i] for i in ids]
    plain = scheme is Scheme.PLAIN
    spans = spans_of(tags, text.words, scheme) if plain or any(t != OUTSIDE for t in tags) else ()
    if text.tokens is not None:
        tokens = token_tags(labels, text, tags_of(spans, text.tokens, scheme))
    else:
        tokens = [
            _token(text, word, tag, i) for word, tag, i in zip(text.words, tags, ids, strict=True)
        ]
        if units is Units.PIECES:
            tokens = _joined(text.text, tokens)
    entities = () if plain else _entities(text, spans, scored.scores.tolist())
    return TaggingResult(tuple(entities), tuple(tokens))


def token_tags(labels: Sequence[str], text: ReadText, tags: Sequence[str]) -> list[TokenTag]:
    """Pair the user's tokens with their tags."""
    index = {label: i for i, label in enumerate(labels)}
    return [
        _token(text, token, tag, index.get(tag, -1))
        for token, tag in zip(text.tokens or (), tags, strict=True)
    ]


def _token(text: ReadText, place: WordSpan, tag: str, index: int) -> TokenTag:
    start, end = place
    return TokenTag(text.text[start:end], tag, index, start, end)


def _entities(text: ReadText, spans: Iterable[Span], factors: Sequence[float]) -> list[Entity]:
    """Score each span by the factors of its words."""
    starts = [start for start, _ in text.words]
    entities = []
    for span in spans:
        first, end = bisect_left(starts, span.start), bisect_left(starts, span.end)
        covered, score = text.text[span.start : span.end], entity_score(factors[first:end])
        entities.append(Entity(covered, span.label, span.start, span.end, score))
    return entities


def _joined(text: str, pieces: Sequence[TokenTag]) -> list[TokenTag]:
    """Join the pieces of a word again where no entity begins or ends between them."""
    starts = set(segment(text)[:, 0].tolist())
    tokens: list[TokenTag] = []
    for piece in pieces:
        before = tokens[-1] if tokens else None
        goes_on = piece.tag.startswith("I-") and before and before.tag[2:] == piece.tag[2:]
        if (
            before is None
            or piece.start in starts
            or piece.start != before.end
            or not (goes_on or piece.tag == before.tag == OUTSIDE)
        ):
            tokens.append(piece)
        else:
            whole = text[before.start : piece.end]
            tokens[-1] = before._replace(text=whole, end=piece.end)
    return tokens


def entity_shares(
    scores: NDArray[np.float64], calibration: Calibration | None
) -> NDArray[np.float64]:
    """Return the probabilities of entities, [E], from their log-odds, [E]."""
    if isinstance(calibration, Curve):
        return calibration.probabilities(scores)
    return np.asarray(sigmoid(scores), np.float64)


def scored_entities(result: TaggingResult, scoring: Scoring) -> TaggingResult:
    """Calibrate one text's entities; those that do not reach their thresholds become undecided."""
    if not result.entities:
        return result
    scores = log_odds(np.array([entity.score for entity in result.entities]))
    limits = scoring.thresholds
    decided: list[Entity] = []
    undecided: list[Entity] = []
    known = entity_shares(scores, scoring.calibration).tolist()
    for entity, score, logit in zip(result.entities, known, scores.tolist(), strict=True):
        new = replace(entity, score=score, logit=logit if scoring.logits else None)
        reached = limits is None or score >= limits.of(entity.label)
        (decided if reached else undecided).append(new)
    return TaggingResult(tuple(decided), result.tokens, tuple(undecided))
