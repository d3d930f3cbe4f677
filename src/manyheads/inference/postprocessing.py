"""From decoded labels to what a prediction says: classes, entities and the tags of tokens.

Axes: W words of a text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manyheads.tasks import (
    CLASSIFICATION,
    MULTILABEL,
    OUTSIDE,
    ClassResult,
    Entity,
    MultilabelResult,
    Result,
    Scheme,
    Scored,
    TaggingResult,
    TaskSpec,
    TokenTag,
    WordSpan,
    entity_score,
    spans_of,
    tags_of,
)
from manyheads.text import Encoding, Window


@dataclass(frozen=True, slots=True)
class Item:
    """A text on its way through the model."""

    text: str
    tokens: list[WordSpan] | None
    """The characters of the user's tokens, if the text was given as such."""
    encoding: Encoding
    parts: list[Window]
    """The text's windows; none if it has no words."""


def class_results(spec: TaskSpec, scored: Scored) -> Iterator[ClassResult]:
    """Name the class of each text."""
    for i, score in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True):
        yield ClassResult(spec.labels[i], i, score)


def tagging_result(spec: TaskSpec, item: Item, scored: Scored) -> TaggingResult:
    """Turn the tags of a text's words into entities and into the tags of its tokens."""
    text, labels, scheme = item.text, spec.labels, spec.scheme or Scheme.BIO
    words: list[WordSpan] = item.encoding.word_spans.tolist()
    ids = scored.ids.tolist()
    tags = [labels[i] for i in ids]
    plain = scheme is Scheme.PLAIN
    spans = spans_of(tags, words, scheme) if plain or any(t != OUTSIDE for t in tags) else ()
    if item.tokens is None:
        tokens = [
            TokenTag(text[start:end], tag, i, start, end)
            for (start, end), tag, i in zip(words, tags, ids, strict=True)
        ]
    else:
        tokens = _token_tags(spec, item, tags_of(spans, item.tokens, scheme))
    if plain:
        return TaggingResult((), tuple(tokens))
    starts = [start for start, _ in words]
    scores: list[float] = scored.scores.tolist()
    entities = []
    for span in spans:
        first, end = bisect_left(starts, span.start), bisect_left(starts, span.end)
        score = entity_score(scores[first:end])
        entities.append(
            Entity(text[span.start : span.end], span.label, span.start, span.end, score)
        )
    return TaggingResult(tuple(entities), tuple(tokens))


def _token_tags(spec: TaskSpec, item: Item, tags: Sequence[str]) -> list[TokenTag]:
    """Pair the user's tokens with their tags."""
    index = {label: i for i, label in enumerate(spec.labels)}
    return [
        TokenTag(item.text[start:end], tag, index.get(tag, -1), start, end)
        for (start, end), tag in zip(item.tokens or (), tags, strict=True)
    ]


def no_result(spec: TaskSpec, item: Item) -> Result:
    """Make the result of a text without words."""
    if spec.kind == CLASSIFICATION:
        return ClassResult(None, None, None)
    if spec.kind == MULTILABEL:
        return MultilabelResult(())
    return TaggingResult((), tuple(_token_tags(spec, item, [OUTSIDE] * len(item.tokens or ()))))
