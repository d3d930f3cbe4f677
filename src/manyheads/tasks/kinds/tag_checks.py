"""Checks of tagging's labels: entities that are likely wrong, and their corrections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manyheads.tasks.kinds.hooks import LabelChecks
from manyheads.tasks.kinds.values import Label, ReadText
from manyheads.tasks.label_values import words_lack_labels
from manyheads.tasks.labels import (
    OUTSIDE,
    PartlyLabelled,
    Scheme,
    Stretches,
    TagSet,
    WordSpan,
    borders_of,
    spans_of,
    tags_of,
    types_of,
    unlabelled_words,
)
from manyheads.tasks.span_suspicion import SPAN_ERRORS, span_suspicions, spoiled_spans
from manyheads.tasks.surfaces import Surfaces
from manyheads.tasks.suspicion import Is, Suspicion, no_part, span_of_json
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


class TagChecks(LabelChecks):
    """Checks of entities; classes of words are not checked."""

    checks_labels = True
    spoils = SPAN_ERRORS

    def elsewhere(
        self, spec: TaskSpec, labels: Sequence[Label], texts: Sequence[ReadText]
    ) -> Callable[[int], Any]:
        """Count how the same words are labelled in other records."""
        if spec.scheme is Scheme.PLAIN:
            return lambda record: None
        return Surfaces(types_of(spec.labels), labels, texts).elsewhere

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats, elsewhere: Any
    ) -> list[Suspicion]:
        """Compare each entity with others in its place, and look for missing ones.

        Classes of words are not compared.
        """
        if spec.scheme is Scheme.PLAIN:
            return []
        return span_suspicions(
            TagSet(spec.labels), label, text, _units_of(text), logs, elsewhere,
            unlabelled_words(label),
        )  # fmt: skip

    def spoiled(
        self,
        spec: TaskSpec,
        label: Label,
        text: ReadText,
        error: str,
        generator: np.random.Generator,
    ) -> tuple[Label, Is] | None:
        """Corrupt one entity, or add or remove one."""
        if spec.scheme is Scheme.PLAIN:
            return None
        types, gaps = types_of(spec.labels), unlabelled_words(label)
        found = spoiled_spans(types, label, _units_of(text), error, generator)
        if found is None or not gaps:
            return found
        spans, is_at = found
        unlabelled = Stretches(gaps)
        if any(unlabelled.touch(*place) for place in borders_of(spans)):
            return None
        return PartlyLabelled(spans, gaps), is_at

    def corrected(self, label: Label, given: Any, proposed: Any) -> Label:
        """Return the entities with one added, removed or replaced."""
        old, new = span_of_json(given), span_of_json(proposed)
        kept = [span for span in label if span != old]
        covered = new is not None and any(s.overlaps(new.start, new.end) for s in kept)
        if (old and old not in label) or covered:
            raise no_part(label, given, proposed)
        spans, gaps = sorted([*kept, *([new] if new else [])]), unlabelled_words(label)
        return PartlyLabelled(spans, gaps) if gaps else tuple(spans)

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return the tags of the record's tokens, or the entities by characters.

        Words without a label get None. Entities that are not whole tokens are returned by their
        characters.

        Raises:
            DataError: there are both such words and such entities.
        """
        spans, unlabelled = tuple(sorted(label)), unlabelled_words(label)
        tags = [] if tokens is None else tags_of(spans, tokens)
        if tokens is not None and spans_of(tags, tokens) == spans:
            gaps = Stretches(unlabelled)
            return [
                None if tag == OUTSIDE and gaps.touch(*place) else tag
                for tag, place in zip(tags, tokens, strict=True)
            ]
        if tokens is not None and unlabelled:
            raise words_lack_labels()
        return [{"start": s.start, "end": s.end, "label": s.label} for s in spans]


def _units_of(text: ReadText) -> Sequence[WordSpan]:
    """Return the units of entities: the user's tokens, or the words."""
    return text.words if text.tokens is None else text.tokens
