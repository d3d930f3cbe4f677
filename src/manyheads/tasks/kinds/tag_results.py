"""Results of tagging: the tags of words as entities, and as tags of the user's tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from manyheads.tasks.decoding import Scored, entity_score
from manyheads.tasks.kinds.values import Label, ReadText
from manyheads.tasks.labels import (
    OUTSIDE,
    Scheme,
    Span,
    Stretches,
    WordSpan,
    spans_of,
    tags_of,
    unlabelled_words,
)
from manyheads.tasks.results import Entity, TaggingResult, TokenTag
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


def judgeable(entities: Iterable[Entity], label: Label) -> list[Entity]:
    """Return the entities that share no character with a word without a label."""
    gaps = Stretches(unlabelled_words(label))
    return [e for e in entities if not gaps.touch(e.start, e.end)]
