"""Every gold label and every prediction is in exactly one decision, and every error has a kind."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.tasks import Decision, Scheme, Span, TaskSpec, entity_decisions, kind_of
from manyheads.tasks.metrics import NO_ANSWER, UNKNOWN, TaggedText, tagging_metrics
from outcomes import tagged_text


def spans(*places: tuple[int, int, str]) -> list[Span]:
    return [Span(*place) for place in places]


PARIS = (0, 5, "LOC")


@pytest.mark.parametrize(
    ("gold", "predicted", "errors"),
    [
        ([PARIS], [PARIS], [""]),
        ([PARIS], [], ["missed"]),
        ([], [PARIS], ["invented"]),
        ([PARIS], [(0, 5, "PER")], ["wrong type"]),
        ([PARIS], [(0, 4, "LOC")], ["wrong border"]),
        ([PARIS], [(1, 9, "PER")], ["wrong type and border"]),
        ([(0, 9, "LOC")], [(0, 4, "LOC"), (5, 9, "LOC")], ["split"]),
        ([(0, 4, "LOC"), (5, 9, "LOC")], [(0, 9, "LOC")], ["merged"]),
        ([(0, 4, "LOC"), (3, 9, "LOC")], [(0, 5, "LOC"), (6, 8, "LOC")], ["wrong border"] * 2),
        ([PARIS, (9, 12, "PER")], [(5, 9, "LOC")], ["missed", "invented", "missed"]),
    ],
)
def test_errors_of_entities_are_classified(
    gold: list[tuple[int, int, str]], predicted: list[tuple[int, int, str]], errors: list[str]
) -> None:
    decisions = entity_decisions(spans(*gold), spans(*predicted))
    assert [d.error for d in decisions if not d.follows] == errors


def test_each_part_of_an_entity_keeps_its_score() -> None:
    found = entity_decisions(
        spans((0, 9, "LOC")), spans((5, 9, "PER"), (0, 4, "LOC")), (0.25, 0.75)
    )
    assert found == (
        Decision("LOC", "LOC", "split", 0.25),
        Decision(None, "PER", "split", 0.75, follows=True),
    )


def test_scores_of_other_entities_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        entity_decisions([], spans(PARIS, (9, 12, "PER")), (0.25,))


@st.composite
def entities(draw: st.DrawFn) -> list[Span]:
    borders = draw(st.lists(st.integers(0, 20), unique=True, max_size=8).map(sorted))
    labels = draw(st.lists(st.sampled_from("AB"), min_size=4, max_size=4))
    pairs = zip(borders[::2], borders[1::2], strict=False)
    return [Span(start, end, labels[i]) for i, (start, end) in enumerate(pairs)]


@given(entities(), entities())
def test_decisions_count_what_the_metrics_count(gold: list[Span], predicted: list[Span]) -> None:
    decisions = entity_decisions(gold, predicted)
    assert Counter(d.gold for d in decisions if d.gold) == Counter(s.label for s in gold)
    assert Counter(d.predicted for d in decisions if d.predicted) == Counter(
        s.label for s in predicted
    )
    texts = [TaggedText((), frozenset(some)) for some in (gold, predicted)]
    reports = tagging_metrics([texts[0]], [texts[1]])["per_type"]
    hits = Counter(d.gold for d in decisions if not d.error)
    for label, report in reports.items():
        assert report["recall"] * report["support"] == pytest.approx(hits[label])


CLASSES = ("a", "b", "c")


def test_unknown_classes_and_missing_answers_are_errors_of_their_own() -> None:
    spec = TaskSpec("t", "classification", CLASSES)
    kind = kind_of("classification")
    assert kind.decisions(spec, 0, 0, (0.9,)) == (Decision("a", "a", "", 0.9),)
    assert kind.decisions(spec, UNKNOWN, 1, (0.9,)) == (
        Decision("<unknown>", "b", "wrong class", 0.9),
    )
    assert kind.decisions(spec, 2, NO_ANSWER, ()) == (Decision("c", None, "missed"),)


def test_sets_of_classes_are_compared_class_by_class() -> None:
    spec = TaskSpec("t", "multilabel", CLASSES, threshold=0.5)
    found = kind_of("multilabel").decisions(spec, frozenset({0, 2}), frozenset({0, 1}), (0.9, 0.6))
    assert found == (
        Decision("a", "a", "", 0.9),
        Decision(None, "b", "invented", 0.6),
        Decision("c", None, "missed"),
    )
    assert kind_of("multilabel").shown(spec, frozenset({2, 0})) == ["a", "c"]


def test_tags_that_are_plain_classes_are_compared_token_by_token() -> None:
    spec = TaskSpec("t", "tagging", ("O", "N", "V"), scheme=Scheme.PLAIN, decoder="linear")
    gold, predicted = (tagged_text(t, Scheme.PLAIN) for t in (["O", "N", "V"], "ONN"))
    assert kind_of("tagging").decisions(spec, gold, predicted, ()) == (
        Decision("N", "N"),
        Decision("V", "N", "wrong class"),
    )
    assert kind_of("tagging").shown(spec, gold) == "O N V"


def test_numbers_have_a_distance_and_no_decisions() -> None:
    spec = TaskSpec("t", "regression", (), details={"mean": 0.0, "deviation": 1.0})
    kind = kind_of("regression")
    assert kind.decisions(spec, 1.0, 3.0, ()) == ()
    assert kind.distance(spec, 1.0, 3.5) == 2.5
    assert (
        kind_of("classification").distance(TaskSpec("t", "classification", CLASSES), 0, 1) is None
    )
