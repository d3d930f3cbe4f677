"""Metrics equal those of the reference libraries and are defined at every edge case."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.tasks import Scheme, Span, TaskSpec, kind_of, metrics, spans_of
from manyheads.tasks.metrics import (
    NO_ANSWER,
    SentenceCounts,
    TaggedText,
    classification_counts,
    classification_metrics,
    entity_counts,
    frame_accuracy,
    multilabel_counts,
    multilabel_metrics,
    numbers,
    pearson,
    rank_distances,
    regression_metrics,
    similarity_metrics,
    spearman,
    tagging_metrics,
)
from outcomes import tagged_text

LABELS = ("book", "play", "rate", "search")

TAGS = ["O", *(f"{prefix}-{kind}" for kind in ("PER", "LOC", "a-b") for prefix in "BIES")]


def paired(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    return st.lists(st.tuples(items, items), max_size=40)


@st.composite
def tagged(draw: st.DrawFn, tags: Sequence[str] = TAGS) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted tags of the same few sentences, often alike."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=8))
    tag = st.sampled_from(tags)
    gold = [draw(st.lists(tag, min_size=n, max_size=n)) for n in lengths]
    predicted = [[g if draw(st.booleans()) else draw(tag) for g in sentence] for sentence in gold]
    return gold, predicted


def f1_of(counts: SentenceCounts) -> float:
    whole = counts.predicted.sum() + counts.gold.sum()
    return float(2 * counts.hits.sum() / whole) if whole else 0.0


# Classification


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_classification_metrics_equal_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    ours = classification_metrics(gold, predicted, LABELS)
    macro = reference.precision_recall_fscore_support(
        gold, predicted, average="macro", zero_division=0
    )
    micro = reference.f1_score(gold, predicted, average="micro", zero_division=0)
    assert numbers(ours) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(gold, predicted),
            "precision": macro[0],
            "recall": macro[1],
            "f1": macro[2],
            "f1_micro": micro,
        }
    )
    report = reference.classification_report(gold, predicted, output_dict=True, zero_division=0)
    names = {str(i): label for i, label in enumerate(LABELS)} | {"-1": "<unknown>"}
    assert set(ours["per_class"]) == {names[key] for key in report if key in names}
    for key in report.keys() & names.keys():
        row = {k.replace("f1-score", "f1"): v for k, v in report[key].items()}
        assert ours["per_class"][names[key]] == pytest.approx(row)


def test_a_small_classification_worked_by_hand() -> None:
    result = classification_metrics([0, 0, 1, 1], [0, 1, 1, 1], LABELS)
    assert result["accuracy"] == 0.75
    assert result["per_class"] == {
        "book": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "play": {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": 0.8, "support": 2},
    }
    assert result["f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert result["confusions"] == [{"gold": "book", "predicted": "play", "count": 1}]


def test_labels_that_never_occur_do_not_enter_the_macro_average() -> None:
    result = classification_metrics([0, 1], [0, 1], LABELS)
    assert result["f1"] == 1.0
    assert list(result["per_class"]) == ["book", "play"]


def test_a_gold_label_that_the_model_does_not_know_is_an_error_everywhere() -> None:
    result = classification_metrics([0, -1], [0, 0], LABELS)
    assert result["accuracy"] == result["f1_micro"] == 0.5
    assert result["per_class"]["book"]["precision"] == 0.5
    assert result["per_class"]["<unknown>"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 1,
    }
    assert result["recall"] == 0.5
    assert result["confusions"] == [{"gold": "<unknown>", "predicted": "book", "count": 1}]


def test_a_sentence_without_a_prediction_costs_recall_and_no_precision() -> None:
    result = classification_metrics([0, 0, -1], [0, NO_ANSWER, NO_ANSWER], LABELS)
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert result["f1_micro"] == pytest.approx(2 / (1 + 3))
    assert result["per_class"]["book"] == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }
    assert {"gold": "book", "predicted": "<no answer>", "count": 1} in result["confusions"]
    counts = classification_counts([0, 0, -1], [0, NO_ANSWER, NO_ANSWER])
    assert counts.correct.tolist() == [True, False, False]
    assert f1_of(counts) == pytest.approx(result["f1_micro"])


def test_a_label_called_unknown_keeps_its_own_row() -> None:
    result = classification_metrics([0, -1], [0, 0], ["<unknown>"])
    assert set(result["per_class"]) == {"<unknown>", "<<unknown>>"}


def test_the_most_frequent_confusions_come_first_and_only_ten_of_them() -> None:
    labels = [str(i) for i in range(20)]
    gold = [5, 5, 5, 7, 7, *range(8, 20)]
    predicted = [6, 6, 6, 0, 0, *[0] * 12]
    confusions = classification_metrics(gold, predicted, labels)["confusions"]
    assert len(confusions) == 10
    assert confusions[:2] == [
        {"gold": "5", "predicted": "6", "count": 3},
        {"gold": "7", "predicted": "0", "count": 2},
    ]


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([0, 1], [0], "1 predictions for 2 gold labels"),
        ([4], [0], "gold index 4 is not one of 4 labels"),
        ([-2], [0], "gold index -2 is not one of 4 labels"),
        ([0], [4], "predicted index 4 is not one of 4 labels"),
        ([0], [-1], "predicted index -1 is not one of 4 labels"),
        ([0], [-3], "predicted index -3 is not one of 4 labels"),
    ],
)
def test_impossible_classes_are_refused(
    gold: list[int], predicted: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(gold, predicted, LABELS)


# Multilabel


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.frozensets(st.integers(-1, 3)), st.frozensets(st.integers(0, 3))),
        min_size=1,
        max_size=30,
    )
)
def test_multilabel_metrics_equal_scikit_learns(
    pairs: list[tuple[frozenset[int], frozenset[int]]],
) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    ours = multilabel_metrics(gold, predicted, LABELS)
    columns = [0, 1, 2, 3, -1]
    right, guess = (
        np.array([[label in answer for label in columns] for answer in answers])
        for answers in (gold, predicted)
    )
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(right, guess))
    present = (right | guess).any(axis=0)
    if not present.any():
        assert numbers(ours) == {n: float(n == "accuracy") for n in kind_of("multilabel").metrics}
        return
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        right, guess, average=None, zero_division=0
    )
    assert ours["precision"] == pytest.approx(precision[present].mean())
    assert ours["recall"] == pytest.approx(recall[present].mean())
    assert ours["f1"] == pytest.approx(f1[present].mean())
    assert ours["f1_micro"] == pytest.approx(
        reference.f1_score(right, guess, average="micro", zero_division=0)
    )
    for i, name in enumerate((*LABELS, "<unknown>")):
        assert (name in ours["per_class"]) == present[i]
        if present[i]:
            assert ours["per_class"][name] == pytest.approx(
                {
                    "precision": precision[i],
                    "recall": recall[i],
                    "f1": f1[i],
                    "support": support[i],
                }
            )
    counts = multilabel_counts(gold, predicted, LABELS)
    assert counts.correct.tolist() == [g == p for g, p in pairs]
    assert counts.hits.tolist() == [len(g & p) for g, p in pairs]
    assert f1_of(counts) == pytest.approx(ours["f1_micro"])


@pytest.mark.parametrize("index", [9, -1])
def test_impossible_labels_in_a_set_are_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"predicted index {index} is not one of 4 labels"):
        multilabel_metrics([frozenset()], [frozenset({index})], LABELS)


# Tagging


def metrics_of(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme = Scheme.BIO
) -> Any:
    """The metrics of tags, whose entities are counted in tokens."""
    sides = ([tagged_text(one, scheme) for one in side] for side in (gold, predicted))
    return tagging_metrics(*sides, scheme)


def counted(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> SentenceCounts:
    return entity_counts(*([tagged_text(one) for one in side] for side in (gold, predicted)))


@settings(max_examples=120)
@given(tagged())
def test_tagging_metrics_equal_seqevals_on_any_sequence(
    sentences: tuple[list[list[str]], list[list[str]]],
) -> None:
    reference = pytest.importorskip("seqeval.metrics.sequence_labeling")
    gold, predicted = sentences
    ours = metrics_of(gold, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        micro = reference.precision_recall_fscore_support(
            gold, predicted, average="micro", zero_division=0
        )
        assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(micro[:3])
        if ours["per_type"]:  # seqeval's mean of no types is NaN
            macro = reference.f1_score(gold, predicted, average="macro", zero_division=0)
            assert ours["f1_macro"] == pytest.approx(macro)
        if any(gold):
            accuracy = reference.accuracy_score(gold, predicted)
            assert ours["token_accuracy"] == pytest.approx(accuracy)
        if ours["per_type"]:
            report = reference.classification_report(
                gold, predicted, output_dict=True, zero_division=0
            )
            expected = {
                kind: {k.replace("f1-score", "f1"): v for k, v in row.items()}
                for kind, row in report.items()
                if not kind.endswith(" avg")
            }
            assert list(ours["per_type"]) == sorted(expected)
            for kind, row in expected.items():
                assert ours["per_type"][kind] == pytest.approx(row)


@settings(max_examples=80)
@given(tagged([*TAGS, "L-PER", "U-PER", "U-LOC"]))
def test_entities_are_the_spans_that_the_rest_of_the_package_reads(
    sentences: tuple[list[list[str]], list[list[str]]],
) -> None:
    gold, predicted = (
        [set(spans_of(tags, [(i, i + 1) for i in range(len(tags))])) for tags in side]
        for side in sentences
    )
    counts = counted(*sentences)
    assert counts.gold.tolist() == [len(g) for g in gold]
    assert counts.predicted.tolist() == [len(p) for p in predicted]
    assert counts.hits.tolist() == [len(g & p) for g, p in zip(gold, predicted, strict=True)]
    assert counts.correct.tolist() == [g == p for g, p in zip(gold, predicted, strict=True)]
    assert f1_of(counts) == pytest.approx(metrics_of(*sentences)["f1"])
    mixed_up = sum(
        (g.start, g.end) == (p.start, p.end) and g.label != p.label
        for right, guess in zip(gold, predicted, strict=True)
        for g in right
        for p in guess
    )
    assert sum(c["count"] for c in metrics_of(*sentences)["confusions"]) == mixed_up


def test_an_entity_never_continues_in_the_next_sentence() -> None:
    counts = counted([["B-PER"], ["I-PER"]], [["B-PER"], ["B-PER"]])
    assert counts.hits.tolist() == counts.gold.tolist() == [1, 1]


def test_a_part_of_an_entity_is_not_a_hit() -> None:
    gold, predicted = [["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]]
    result = metrics_of(gold, predicted)
    assert result["f1"] == 0.0
    assert result["token_accuracy"] == pytest.approx(2 / 3)


def test_an_entity_of_the_wrong_type_is_listed_as_a_confusion() -> None:
    result = metrics_of([["B-PER", "I-PER", "O"]], [["B-LOC", "I-LOC", "O"]])
    assert result["confusions"] == [{"gold": "PER", "predicted": "LOC", "count": 1}]


def test_without_any_entity_the_scores_are_zero_as_in_seqeval() -> None:
    result = metrics_of([["O", "O"]], [["O", "O"]])
    assert result["precision"] == result["recall"] == result["f1"] == result["f1_macro"] == 0.0
    assert result["token_accuracy"] == 1.0
    assert result["per_type"] == {}
    assert counted([["O", "O"]], [["O", "O"]]).correct.tolist() == [True]


@settings(max_examples=60)
@given(tagged(["NOUN", "VERB", "O", "B-X"]))
def test_plain_tags_are_scored_token_by_token(
    sentences: tuple[list[list[str]], list[list[str]]],
) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    gold, predicted = sentences
    ours = metrics_of(gold, predicted, Scheme.PLAIN)
    flat_gold, flat_predicted = list(chain(*gold)), list(chain(*predicted))
    right = [g == p for g, p in zip(flat_gold, flat_predicted, strict=True)]
    accuracy = sum(right) / len(right) if right else 0.0
    assert ours["token_accuracy"] == pytest.approx(accuracy)
    # `O` is not a class: it is neither found nor missed.
    classes = sorted({*flat_gold, *flat_predicted} - {"O"})
    assert sorted(ours["per_type"]) == classes
    if classes:
        for average, names in (
            ("micro", ("precision", "recall", "f1")), ("macro", (None, None, "f1_macro")),
        ):  # fmt: skip
            expected = reference.precision_recall_fscore_support(
                flat_gold, flat_predicted, labels=classes, average=average, zero_division=0
            )
            for name, value in zip(names, expected, strict=False):
                assert name is None or ours[name] == pytest.approx(value)


def test_entities_are_compared_by_their_characters() -> None:
    # The tags of the words are the same, but the results for the user are not.
    gold = TaggedText(("B-NUM",), frozenset({Span(5, 8, "NUM")}))
    wide = TaggedText(("B-NUM",), frozenset({Span(5, 10, "NUM")}))
    assert gold != wide
    assert tagging_metrics([gold], [wide])["f1"] == 0.0
    assert tagging_metrics([gold], [gold])["f1"] == 1.0
    assert entity_counts([gold], [wide]).hits.tolist() == [0]


def test_tags_of_different_length_are_refused_with_the_sentence() -> None:
    with pytest.raises(ValueError, match="text 1 has 2 gold and 1 predicted tags"):
        metrics_of([["O"], ["O", "O"]], [["O"], ["O"]])


# Several tasks, correlations, names


def test_a_frame_is_right_when_every_task_it_is_labelled_for_is() -> None:
    correct = {
        "intent": [True, True, False, None, None],
        "slots": [True, False, True, True, None],
    }
    assert frame_accuracy(correct) == 0.5
    assert frame_accuracy({"intent": [None]}) is frame_accuracy({}) is None


def test_frames_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"number of sentences: \{'a': 1, 'b': 2\}"):
        frame_accuracy({"a": [True], "b": [True, True]})


@settings(max_examples=50)
@given(paired(st.integers(-5, 5).map(float) | st.integers(-9999, 9999).map(lambda n: n / 8)))
def test_correlations_equal_scipys(pairs: list[tuple[float, float]]) -> None:
    reference = pytest.importorskip("scipy.stats")
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    if len({*x}) < 2 or len({*y}) < 2:
        assert pearson(x, y) == spearman(x, y) == 0.0
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant numbers
        assert spearman(x, y) == pytest.approx(reference.spearmanr(x, y)[0], abs=1e-9)
        assert pearson(x, y) == pytest.approx(reference.pearsonr(x, y)[0], abs=1e-6)


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1e200, 4e307])
def test_the_linear_correlation_does_not_depend_on_the_unit(scale: float) -> None:
    x = scale * np.array([1.0, 2.0, 4.0, -4.0])
    y = [3.0, 1.0, 2.0, -1.0]
    assert pearson(x, y) == pytest.approx(pearson([1, 2, 4, -4], y))
    assert pearson(y, x) == pytest.approx(pearson(x, y))


def test_the_linear_correlation_of_the_largest_numbers_is_finite() -> None:
    assert pearson([1e308, 1e308, -1e308], [1, 2, 3]) == pytest.approx(-(0.75**0.5))


def test_the_distance_of_ranks_is_zero_in_any_order_of_equal_numbers() -> None:
    assert rank_distances([5, 5, 5, 0], [0.7, 0.9, 0.8, 0.1]) == [0, 0, 0, 0]
    assert rank_distances([0, 1, 2, 3], [0.4, 0.3, 0.2, 0.1]) == [3, 1, 1, 3]
    assert rank_distances([1, 2, 2], [0.5, 0.5, 0.5]) == [1, 0, 0]
    assert rank_distances([], []) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unit", [1e-300, 1.0, 1e300])
def test_predictions_that_differ_by_the_noise_of_batches_have_equal_ranks(
    seed: int, unit: float
) -> None:
    rng = np.random.default_rng(seed)
    texts = np.repeat(rng.uniform(0.2, 0.95, 200), 10)
    noisy = texts + rng.uniform(-1e-7, 1e-7, 2000)
    assert similarity_metrics(texts, noisy)["spearman"] == pytest.approx(1.0, abs=1e-9)
    assert rank_distances(range(2000), noisy) == rank_distances(range(2000), texts)
    scaled = regression_metrics(texts * unit, noisy * unit, deviation=unit)
    assert scaled["spearman"] == pytest.approx(1.0, abs=1e-9)


def test_predictions_that_differ_by_more_than_noise_have_ranks_of_their_own() -> None:
    gold = [1_700_000_000.0, 1_700_000_001.0, 1_700_000_002.0]
    assert similarity_metrics(gold, [0.1, 0.2, 0.3])["spearman"] == pytest.approx(1.0)
    times = regression_metrics(gold, gold, float(np.std(gold)))
    assert times["spearman"] == pytest.approx(1.0)
    with_outlier = [*np.linspace(0, 5, 100), 1e9]
    assert regression_metrics(with_outlier, with_outlier, 1.4)["spearman"] == pytest.approx(1.0)
    # Of dense numbers, neighbours closer together than noise do not chain to one long tie.
    dense = np.linspace(0, 1e-3, 5000)
    assert similarity_metrics(dense, dense)["spearman"] > 0.9999


def test_spearman_depends_on_ranks_alone() -> None:
    x = [0.1, 0.5, 0.5, 0.9, 3.0]
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, [-v for v in x]) == pytest.approx(-1.0)
    assert 0.5 < pearson(x, np.exp(x)) < 1.0


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 2.0], [1.0], r"shapes \(2,\) and \(1,\)"),
        ([1.0, float("nan")], [1.0, 2.0], "not finite"),
    ],
)
def test_numbers_that_cannot_be_correlated_are_refused(
    x: list[float], y: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        spearman(x, y)


def example_metrics() -> dict[str, metrics.TaskMetrics]:
    return {
        "classification": classification_metrics([0, 1], [0, 0], LABELS),
        "multilabel": multilabel_metrics([frozenset({0})], [frozenset({0, 1})], LABELS),
        "tagging": metrics_of([["B-PER", "O"]], [["B-PER", "O"]]),
        "similarity": similarity_metrics([0.0, 1.0, 2.0], [0.1, 0.3, 0.2]),
    }


def test_the_metrics_that_each_kind_lists_are_those_it_computes() -> None:
    for kind, result in example_metrics().items():
        assert sorted(numbers(result)) == sorted(kind_of(kind).metrics)
        assert kind_of(kind).main_metric in kind_of(kind).metrics
    pos = TaskSpec("pos", "tagging", ("NOUN", "VERB"), Scheme.PLAIN, "linear")
    assert pos.main_metric == "token_accuracy"


def test_metrics_are_json_values() -> None:
    for result in example_metrics().values():
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_without_records_all_scores_are_zero() -> None:
    empty = [
        classification_metrics([], [], LABELS),
        multilabel_metrics([], [], LABELS),
        tagging_metrics([], []),
        similarity_metrics([], []),
    ]
    for result in empty:
        assert set(numbers(result).values()) == {0.0}


def test_counts_of_classes_add_up_to_accuracy() -> None:
    counts = classification_counts([0, 1, -1], [0, 0, 0])
    assert counts.correct.tolist() == [True, False, False]
    assert f1_of(counts) == pytest.approx(1 / 3)
