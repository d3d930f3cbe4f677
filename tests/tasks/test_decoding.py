"""Decoding equals brute force, follows the scheme, and is independent of other sentences."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import ModelError
from manyheads.tasks import (
    Scheme,
    Span,
    TagSet,
    TaskSpec,
    Transitions,
    best_paths,
    decode,
    decode_classes,
    decode_multilabel,
    decode_tags,
    entity_score,
    marginals,
    spans_of,
    tag_rules,
)
from tag_sets import TAG_SETS, seeds, tag_sets


def random_transitions(rng: np.random.Generator, size: int) -> Transitions:
    return Transitions(
        *(rng.normal(0, 2, shape).astype(np.float32) for shape in ((size,), (size,), (size, size)))
    )


def random_batch(
    rng: np.random.Generator, size: int, batch: int = 4, words: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    lengths = rng.integers(0, words + 1, batch)
    return rng.normal(0, 3, (batch, words, size)).astype(np.float32), lengths


def may_follow(tags: TagSet, before: str | None, tag: str) -> bool:
    """The BIO rule, written independently of the package."""
    if tags.scheme is Scheme.PLAIN or not tag.startswith("I-"):
        return True
    return before in (f"B-{tag[2:]}", tag)


def all_paths(
    emissions: np.ndarray, tags: TagSet, transitions: Transitions | None
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Every allowed path over one sentence's words [W, L], and its score."""
    words, size = emissions.shape
    paths = []
    for path in itertools.product(range(size), repeat=words):
        names = [None, *(tags.names[i] for i in path)]
        if all(may_follow(tags, a, b or "") for a, b in itertools.pairwise(names)):
            paths.append(path)
    scores = np.zeros(len(paths))
    for i, path in enumerate(paths):
        scores[i] = sum(float(emissions[t, tag]) for t, tag in enumerate(path))
        if transitions is not None and path:
            scores[i] += transitions.start[path[0]] + transitions.end[path[-1]]
            scores[i] += sum(float(transitions.pairwise[a, b]) for a, b in itertools.pairwise(path))
    return paths, scores


@given(tags=tag_sets, seed=seeds, crf=st.booleans())
@settings(max_examples=40)
def test_best_path_is_the_best_of_all_allowed_paths(tags: TagSet, seed: int, crf: bool) -> None:
    rng = np.random.default_rng(seed)
    emissions, lengths = random_batch(rng, len(tags))
    transitions = random_transitions(rng, len(tags)) if crf else None
    found = best_paths(emissions, lengths, tags.names, tags.scheme, transitions)
    for words, length, path in zip(emissions, lengths, found, strict=True):
        paths, scores = all_paths(words[:length], tags, transitions)
        assert scores[paths.index(tuple(path[:length]))] == pytest.approx(scores.max(), abs=1e-4)
        assert not path[length:].any()


@given(tags=tag_sets, seed=seeds)
@settings(max_examples=40)
def test_marginals_are_the_shares_of_all_allowed_paths(tags: TagSet, seed: int) -> None:
    rng = np.random.default_rng(seed)
    emissions, lengths = random_batch(rng, len(tags))
    transitions = random_transitions(rng, len(tags))
    found = marginals(emissions, lengths, tags.names, tags.scheme, transitions)
    for words, length, probabilities in zip(emissions, lengths, found, strict=True):
        paths, scores = all_paths(words[:length], tags, transitions)
        shares = np.exp(scores - scores.max())
        expected = np.zeros((len(words), len(tags)))
        for path, share in zip(paths, shares / shares.sum(), strict=True):
            for t, tag in enumerate(path):
                expected[t, tag] += share
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@given(tags=tag_sets, seed=seeds, crf=st.booleans(), scale=st.sampled_from([0.0, 1.0, 1000.0]))
@settings(max_examples=60)
def test_every_decoded_sequence_is_allowed_and_scored(
    tags: TagSet, seed: int, crf: bool, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    emissions, lengths = random_batch(rng, len(tags), batch=6, words=9)
    transitions = random_transitions(rng, len(tags)) if crf else None
    decoded = decode_tags(emissions * scale, lengths, tags.names, tags.scheme, transitions)
    for (ids, scores), length in zip(decoded, lengths, strict=True):
        assert ids.shape == scores.shape == (length,)
        assert scores.dtype == np.float32
        assert ((scores >= 0) & (scores <= 1 + 1e-6)).all()
        names = [None, *(tags.names[i] for i in ids)]
        assert all(may_follow(tags, a, b or "") for a, b in itertools.pairwise(names))


@given(tags=tag_sets, seed=seeds, crf=st.booleans())
@settings(max_examples=30)
def test_neither_padding_nor_other_sentences_change_a_sentence(
    tags: TagSet, seed: int, crf: bool
) -> None:
    rng = np.random.default_rng(seed)
    emissions, lengths = random_batch(rng, len(tags), batch=5, words=6)
    transitions = random_transitions(rng, len(tags)) if crf else None
    together = decode_tags(emissions, lengths, tags.names, tags.scheme, transitions)
    for i, length in enumerate(lengths):
        alone = emissions[i : i + 1, :length]
        (ids, scores), *_ = decode_tags(alone, [length], tags.names, tags.scheme, transitions)
        np.testing.assert_array_equal(together[i].ids, ids)
        np.testing.assert_allclose(together[i].scores, scores, atol=1e-6)
    padded = np.full((5, 9, len(tags)), np.nan, np.float32)
    for i, length in enumerate(lengths):
        padded[i, :length] = emissions[i, :length]
    for before, after in zip(
        together,
        decode_tags(padded, lengths, tags.names, tags.scheme, transitions),
        strict=True,
    ):
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.scores, after.scores)


def test_a_linear_head_scores_a_plain_tag_by_its_words_softmax() -> None:
    emissions = np.log(np.array([[[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]]], np.float32))
    (decoded,) = decode_tags(emissions, [2], ("O", "noun", "verb"), Scheme.PLAIN)
    assert decoded.ids.tolist() == [1, 2]
    np.testing.assert_allclose(decoded.scores, [0.5, 0.7], rtol=1e-5)


def test_an_inside_tag_that_follows_nothing_is_replaced_by_the_best_allowed_one() -> None:
    emissions = np.array([[[1.0, 0.5, 3.0], [0.0, 0.0, 5.0]]], np.float32)
    (decoded,) = decode_tags(emissions, [2], ("O", "B-x", "I-x"), Scheme.BIO)
    assert decoded.ids.tolist() == [1, 2]


def test_a_long_sentence_is_decoded_as_precisely_as_a_short_one() -> None:
    rng = np.random.default_rng(0)
    emissions = rng.normal(0, 1, (1, 3000, 5)).astype(np.float32)
    # A constant for all tags of a word changes no decision, but accumulates over the words.
    raised, lengths = emissions + np.float32(64.0), np.array([3000])
    transitions = random_transitions(rng, 5)
    tags = TAG_SETS[0]
    np.testing.assert_array_equal(
        best_paths(raised, lengths, tags.names, tags.scheme, transitions),
        best_paths(raised - np.float32(64.0), lengths, tags.names, tags.scheme, transitions),
    )


def test_plain_classes_that_look_like_tags_are_free() -> None:
    assert tag_rules(("O", "I-x"), Scheme.PLAIN).pairwise.all()
    assert not tag_rules(("O", "B-x", "I-x"), Scheme.BIO).pairwise[0, 2]


def test_marginals_stay_finite_where_logits_strongly_favour_forbidden_tags() -> None:
    emissions = np.full((1, 3, 3), -1e4, np.float32)
    emissions[..., 2] = 1e4
    (decoded,) = decode_tags(emissions, [3], ("O", "B-x", "I-x"), Scheme.BIO, Transitions.zeros(3))
    assert decoded.ids.tolist() == [1, 2, 2]
    assert np.isfinite(decoded.scores).all()


def test_a_batch_of_no_sentences_and_sentences_of_no_words_are_decoded() -> None:
    labels = ("O", "B-x", "I-x")
    for transitions in (None, Transitions.zeros(3)):
        empty = np.zeros((0, 4, 3), np.float32)
        assert decode_tags(empty, [], labels, Scheme.BIO, transitions) == []
        for words in (0, 2):
            blank = np.zeros((2, words, 3), np.float32)
            decoded = decode_tags(blank, [0, 0], labels, Scheme.BIO, transitions)
            assert [len(ids) for ids, _ in decoded] == [0, 0]
    assert decode_classes(np.zeros((0, 3), np.float32)).ids.shape == (0,)


def test_the_most_probable_classes_are_chosen() -> None:
    logits = np.array([[0.0, 1000.0], [np.log(3.0), 0.0]], np.float32)
    ids, scores = decode_classes(logits)
    assert ids.tolist() == [1, 0]
    np.testing.assert_allclose(scores, [1.0, 0.75], rtol=1e-6)


def test_labels_that_reach_the_threshold_are_chosen() -> None:
    logits = np.array([[0.0, -1000.0, 1000.0], [-1.0, -2.0, -3.0]], np.float32)
    first, second = decode_multilabel(logits, 0.5)
    assert first.ids.tolist() == [0, 2]
    np.testing.assert_allclose(first.scores, [0.5, 1.0])
    assert second.ids.tolist() == []
    assert decode_multilabel(logits, 0.25)[1].ids.tolist() == [0]


@given(tags=st.sampled_from(TAG_SETS[:2]), seed=seeds)
@settings(max_examples=40)
def test_with_a_crf_an_entitys_score_is_the_share_of_the_paths_that_have_exactly_this_entity(
    tags: TagSet, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    emissions, lengths = random_batch(rng, len(tags))
    transitions = random_transitions(rng, len(tags))
    decoded = decode_tags(emissions, lengths, tags.names, tags.scheme, transitions)
    for words, length, (ids, factors) in zip(emissions, lengths, decoded, strict=True):
        paths, scores = all_paths(words[:length], tags, transitions)
        shares = np.exp(scores - scores.max()) if paths else scores
        places = [(i, i + 1) for i in range(length)]
        for span in spans_of([tags.names[i] for i in ids], places, tags.scheme):
            has = [
                span in spans_of([tags.names[i] for i in path], places, tags.scheme)
                for path in paths
            ]
            expected = shares[has].sum() / shares.sum()
            assert entity_score(factors[span.start : span.end]) == pytest.approx(expected, abs=1e-5)


def test_a_linear_heads_entity_score_covers_its_start_continuation_and_end() -> None:
    words = [[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.9, 0.06, 0.04]]
    emissions = np.log(np.array([words], np.float32))
    (decoded,) = decode_tags(emissions, [3], ("O", "B-x", "I-x"), Scheme.BIO)
    assert decoded.ids.tolist() == [1, 2, 0]
    np.testing.assert_allclose(decoded.scores, [0.5, 0.7 * 0.96, 1.0], rtol=1e-5)
    assert entity_score(decoded.scores[:2]) == pytest.approx(0.5 * 0.7 * 0.96)


@given(seed=seeds, crf=st.booleans(), twice=st.booleans())
@settings(max_examples=60)
def test_added_tags_replace_only_the_entities_that_they_overlap(
    seed: int, crf: bool, twice: bool
) -> None:
    rng = np.random.default_rng(seed)
    tags = TagSet.of_types(("x", "y", "new", "newer"))
    stages = (5, 7) if twice else (5,)
    emissions, lengths = random_batch(rng, len(tags), batch=8, words=9)
    transitions = random_transitions(rng, len(tags)) if crf else None
    all_tags = [
        best_paths(
            emissions[..., :size], lengths, tags.names[:size], tags.scheme,
            None if transitions is None else transitions.first(size),
        )
        for size in (*stages, len(tags))
    ]  # fmt: skip
    decoded = decode_tags(emissions, lengths, tags.names, tags.scheme, transitions, stages)
    for i, (ids, _) in enumerate(decoded):
        places = [(t, t + 1) for t in range(len(ids))]
        expected: set[Span] = set()
        for size, paths in zip((0, *stages), all_tags, strict=True):
            added = tags.types[size // 2 :]
            names = [tags.names[k] for k in paths[i, : len(ids)]]
            new = {span for span in spans_of(names, places) if span.label in added}
            kept = {s for s in expected if not any(s.overlaps(n.start, n.end) for n in new)}
            expected = kept | new
        assert set(spans_of([tags.names[k] for k in ids], places)) == expected


def test_added_classes_of_words_change_no_other_word() -> None:
    emissions = np.array([[[2.0, 1.0, 0.0], [1.0, 2.0, 3.0], [1.0, 2.0, 0.0]]], np.float32)
    pairwise = np.zeros((3, 3), np.float32)
    pairwise[2, 0] = 9.0
    transitions = Transitions(np.zeros(3, np.float32), np.zeros(3, np.float32), pairwise)
    labels = ("noun", "verb", "name")
    for stages, expected in (((), [0, 2, 0]), ((2,), [0, 2, 1])):
        (found,) = decode_tags(emissions, [3], labels, Scheme.PLAIN, transitions, stages)
        assert found.ids.tolist() == expected


SPECS = (
    TaskSpec("intent", "classification", ("a", "b")),
    TaskSpec("topics", "multilabel", ("a", "b"), threshold=0.3),
    TaskSpec("ner", "tagging", ("O", "B-x", "I-x"), scheme=Scheme.BIO, decoder="crf"),
    TaskSpec("pos", "tagging", ("noun", "verb"), scheme=Scheme.PLAIN, decoder="linear"),
    TaskSpec("near", "similarity", ()),
    TaskSpec(
        "grown", "tagging", ("O", "B-x", "I-x", "B-y", "I-y"), Scheme.BIO, "linear",
        details={"stages": [3]},
    ),
)  # fmt: skip


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_task_survives_being_stored(spec: TaskSpec) -> None:
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_stored_tasks_have_the_fields_of_their_kind_only() -> None:
    assert SPECS[0].to_json() == {
        "name": "intent",
        "kind": "classification",
        "labels": ["a", "b"],
    }
    assert set(SPECS[2].to_json()) == {"name", "kind", "labels", "scheme", "decoder"}


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, {"labls": []}, r"unknown field 'labls' \(did you mean \"labels\"\?\)"),
        (0, {"labels": None}, "labels are None; expected a list of strings"),
        (0, {"labels": ["a", 1]}, "labels are"),
        (0, {"labels": []}, "no labels; expected at least one"),
        (0, {"labels": ["a", "a"]}, "label 'a' is listed twice"),
        (0, {"threshold": 0.5}, "classification task has a threshold"),
        (0, {"name": ""}, "name is ''"),
        (0, {"kind": 3}, "kind is 3; expected a string"),
        (1, {"threshold": None}, "multilabel task has no threshold"),
        (1, {"threshold": "0.5"}, "threshold is '0.5'; expected a number"),
        (1, {"threshold": True}, "threshold is True; expected a number"),
        (1, {"threshold": 1.5}, "threshold 1.5; expected a number from 0 to 1"),
        (2, {"scheme": "iob"}, "scheme is 'iob'"),
        (2, {"scheme": ["bio"]}, "scheme is"),
        (2, {"decoder": "beam"}, "decoder 'beam'"),
        (2, {"labels": ["O", "B-x"]}, "not a BIO tag set"),
        (2, {"stages": 3}, "stages are 3; expected a list of numbers of tags"),
        (2, {"stages": [2]}, "tags O, B-x are not a BIO tag set"),
        (2, {"stages": [1, 1]}, "stages 1, 1 of 3 tags; expected rising numbers"),
    ],
)
def test_a_damaged_stored_task_is_refused(index: int, change: dict[str, Any], message: str) -> None:
    stored = {**SPECS[index].to_json(), **change}
    with pytest.raises(ModelError, match=message):
        TaskSpec.from_json(stored)


@pytest.mark.parametrize("field", ["name", "kind", "labels", "scheme", "decoder"])
def test_a_stored_task_without_a_field_is_refused(field: str) -> None:
    stored = SPECS[2].to_json()
    del stored[field]
    with pytest.raises(ModelError, match=field):
        TaskSpec.from_json(stored)


def test_a_stored_task_has_to_be_an_object() -> None:
    with pytest.raises(ModelError, match="expected an object"):
        TaskSpec.from_json(["ner"])


def test_decode_depends_on_the_kind() -> None:
    logits = np.array([[2.0, 1.0]], np.float32)
    classes = decode(SPECS[0], logits)
    assert not isinstance(classes, list)
    assert classes.ids.tolist() == [0]
    (topics,) = decode(SPECS[1], logits)
    assert topics.ids.tolist() == [0, 1]
    emissions = np.zeros((1, 2, 3), np.float32)
    (tags,) = decode(SPECS[2], emissions, [2], Transitions.zeros(3))
    assert tags.ids.shape == (2,)
    (words,) = decode(SPECS[3], emissions[..., :2], [1])
    assert words.ids.shape == (1,)


def test_decode_refuses_impossible_requests() -> None:
    emissions = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(ModelError, match="of kind 'similarity', which has no results"):
        decode(SPECS[4], emissions)
    with pytest.raises(ModelError, match="transitions of task 'ner' are missing"):
        decode(SPECS[2], emissions, [2])
    with pytest.raises(ModelError, match="transitions of task 'pos' are there"):
        decode(SPECS[3], emissions[..., :2], [2], Transitions.zeros(2))
    with pytest.raises(ValueError, match="without the sentences' lengths"):
        decode(SPECS[3], emissions[..., :2])
    with pytest.raises(ValueError, match="for 2 labels"):
        decode(SPECS[3], emissions, [2])
    with pytest.raises(ValueError, match="do not fit 2 words"):
        decode(SPECS[2], emissions, [3], Transitions.zeros(3))
