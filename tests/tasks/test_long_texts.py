"""The work for a text grows with its length, not with the square of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.tasks import (
    Entity,
    Scheme,
    Span,
    TaggingResult,
    TagSet,
    TaskSpec,
    TokenTag,
    WordSpan,
    kind_of,
)
from manyheads.tasks.kinds import UNKNOWN
from manyheads.tasks.labels import PartlyLabelled, Stretches
from manyheads.tasks.soft_targets import read_entities
from manyheads.tasks.surfaces import Surfaces
from manyheads.tasks.suspicion import MISSING, SUPERFLUOUS, Suspicion
from manyheads.tasks.tag_labels import word_tags
from manyheads.training.suspects.ranking import _compatible

TAGS = TagSet.of_types(["X"])
SPEC = TaskSpec("ner", "tagging", TAGS.names, Scheme.BIO, "linear")
KIND = kind_of("tagging")
WORDS = 400


@dataclass(frozen=True)
class Long:
    """A text in which every fourth word is an entity, and the one after it has no label."""

    words: Sequence[WordSpan]
    tokens: None = None

    @property
    def text(self) -> str:
        return "a " * len(self.words)

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(Span(start, end, "X") for start, end in self.words[::4])

    @property
    def label(self) -> PartlyLabelled:
        return PartlyLabelled(self.spans, self.words[1::4])

    @property
    def result(self) -> TaggingResult:
        """A prediction that is right, except that it goes on in some of the unlabelled words."""
        found = [Entity("a", "X", s, e + 2 * (s % 16 == 0), 0.9) for s, e in self.words[::4]]
        tokens = [TokenTag("a", "O", 0, *place) for place in self.words]
        return TaggingResult(tuple(found), tuple(tokens))


def long_text(words: int) -> Long:
    return Long([(2 * i, 2 * i + 1) for i in range(words)])


def soft(text: Long) -> Any:
    entities = [{"start": s.start, "end": s.end, "label": "X", "score": 0.9} for s in text.spans]
    return read_entities(entities, TAGS, text.text, np.array(text.words), "x:1")


def suspicious(text: Long) -> Any:
    logs = np.log(np.full((len(text.words), len(TAGS)), 1 / len(TAGS), np.float32))
    elsewhere = Surfaces(["X"], [text.spans], [text]).elsewhere(0)
    return KIND.suspicions(SPEC, text.label, text, logs, elsewhere)


def spoiled(text: Long) -> Any:
    return KIND.spoiled(SPEC, text.spans, text, SUPERFLUOUS, np.random.default_rng(0))


def compatible(text: Long) -> Any:
    places = [{"start": start, "end": end, "label": "X"} for start, end in text.words]
    return _compatible([Suspicion(MISSING, 0.0, None, place) for place in places])


STEPS: dict[str, Callable[[Long], Any]] = {
    "label": lambda text: text.label,
    "word tags": lambda text: word_tags(text.label, np.array(text.words), TAGS),
    "soft labels": soft,
    "surfaces": lambda text: Surfaces(["X"], [text.spans], [text]),
    "suspicions": suspicious,
    "ranking": compatible,
    "spoiled": spoiled,
    "outcome": lambda text: KIND.outcome(SPEC, text.label, None, text.result),
    "evidence": lambda text: KIND.evidence(
        SPEC, text.label, None, text.result, np.empty((0, len(TAGS)), np.float32)
    ),
    "field value": lambda text: KIND.field_value(text.label, text.words),
}


def work(call: Callable[[], Any]) -> int:
    """Count the instructions of Python that a call runs."""
    count, before = 0, sys.gettrace()

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("step", STEPS)
def test_a_text_of_twice_the_length_is_twice_the_work(step: str) -> None:
    one, two = (work(lambda n=n: STEPS[step](long_text(n))) for n in (WORDS, 2 * WORDS))
    assert two < 2.5 * one


def test_all_parts_of_a_long_text_are_found() -> None:
    text = long_text(WORDS)
    tags = word_tags(text.label, np.array(text.words), TAGS)
    assert tags == [1, UNKNOWN, 0, 0] * (WORDS // 4)
    np.testing.assert_allclose(soft(text)[:4], [[0.1, 0.9, 0], *[[1, 0, 0]] * 3], atol=1e-6)
    gold, predicted = KIND.outcome(SPEC, text.label, None, text.result)
    right = {span for span in text.spans if span.start % 16}
    assert gold.entities == predicted.entities == right
    found = suspicious(text)
    gaps = Stretches(text.label.unlabelled)
    assert not any(gaps.touch(*region) for one in found for region in one.regions)
    assert sum(one.error == MISSING for one in found) >= WORDS // 4


PLACES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 6)).map(lambda p: (p[0], sum(p))))


@given(PLACES, st.integers(0, 25), st.integers(0, 6))
def test_stretches_touch_what_shares_a_character(
    places: list[WordSpan], start: int, length: int
) -> None:
    end = start + length
    expected = any(start < last and first < end for first, last in places)
    assert Stretches(places).touch(start, end) == expected
