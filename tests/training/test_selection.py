"""The choice of the best epoch and the Pareto front."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.config import Config, make_config
from manyheads.tasks.metrics import Evaluation
from manyheads.training.selection import (
    best_value,
    chance,
    main_scores,
    pareto_front,
    share_error,
    trade_off,
)

MAIN = {"intent": "accuracy", "ner": "f1"}


def config(**values: Any) -> Config:
    tasks = {
        "intent": {"kind": "classification", "weight": 3.0},
        "ner": {"kind": "tagging", "weight": 1.0},
    }
    return make_config({"tasks": tasks, **values})


def evaluation(intent: float, ner: float) -> Evaluation:
    tasks: Any = {
        "intent": {"accuracy": intent, "f1": intent / 2, "per_class": {}},
        "ner": {"f1": ner, "token_accuracy": 0.9},
    }
    return Evaluation(tasks=tasks, frame_accuracy=0.1, records=5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.6),
        ({"best_metric": "weighted"}, 0.7),
        ({"best_metric": "weighted", "best_weights": {"intent": 1, "ner": 4}}, 0.48),
        ({"best_metric": "weighted", "best_weights": {"ner": 0.5}}, 0.4),
        ({"best_metric": "intent"}, 0.8),
        ({"best_metric": "ner"}, 0.4),
        ({"best_metric": "intent.f1"}, 0.4),
        ({"best_metric": "ner.token_accuracy"}, 0.9),
    ],
)
def test_the_named_metric_is_the_score(settings: dict[str, Any], expected: float) -> None:
    assert best_value(config(**settings), evaluation(0.8, 0.4), MAIN) == pytest.approx(expected)


def test_a_tasks_score_is_its_main_metric() -> None:
    assert main_scores(evaluation(0.8, 0.4), MAIN) == {"intent": 0.8, "ner": 0.4}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, math.hypot(0.0404, 0.0202) / 2),
        ({"best_metric": "weighted"}, math.hypot(3 * 0.0404, 0.0202) / 4),
        ({"best_metric": "intent"}, 0.0404),
        ({"best_metric": "intent.f1"}, 0.0490),
    ],
)
def test_the_score_has_the_standard_error_of_its_tasks(
    settings: dict[str, Any], expected: float
) -> None:
    counts = {"intent": 100, "ner": 600}
    found = chance(config(**settings), evaluation(0.8, 0.43), MAIN, counts)
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_error_of_a_share_falls_with_the_records_and_is_never_zero() -> None:
    assert share_error(0.9, 100) == pytest.approx(0.0310, abs=1e-4)
    assert share_error(0.9, 10_000) == pytest.approx(0.003, abs=1e-4)
    for end in (0.0, 1.0):
        assert share_error(end, 100) == pytest.approx(0.00985, abs=1e-4)


@pytest.mark.parametrize("value", [-0.3, 12.0, float("nan")])
def test_a_metric_that_is_no_share_has_no_error(value: float) -> None:
    assert share_error(value, 100) == 0.0


def points(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"intent": intent, "ner": ner} for intent, ner in pairs]


@pytest.mark.parametrize(
    ("scores", "front"),
    [
        ([], []),
        (points((0.1, 0.2)), [0]),
        (points((0.1, 0.2), (0.2, 0.3)), [1]),
        (points((0.1, 0.4), (0.2, 0.3)), [0, 1]),
        (points((0.1, 0.4), (0.1, 0.5), (0.2, 0.3), (0.1, 0.3)), [1, 2]),
        (points((0.2, 0.3), (0.2, 0.3), (0.2, 0.3)), [2]),
    ],
)
def test_the_front_has_the_points_that_no_other_dominates(
    scores: list[dict[str, float]], front: list[int]
) -> None:
    assert pareto_front(scores) == front


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_every_point_is_in_the_front_or_matched_by_one_that_is(
    pairs: list[tuple[int, int]],
) -> None:
    scores = points(*pairs)
    front = pareto_front(scores)
    for one in scores:
        assert any(scores[i]["intent"] >= one["intent"] and scores[i]["ner"] >= one["ner"]
                   for i in front)  # fmt: skip
    for i in front:
        for j in set(front) - {i}:
            assert scores[j]["intent"] < scores[i]["intent"] or scores[j]["ner"] < scores[i]["ner"]


def test_a_trade_off_is_described_epoch_by_epoch() -> None:
    told = trade_off(points((0.9, 0.5), (0.8, 0.4), (0.7, 0.61234)))
    assert told == (
        "No epoch is the best for every task. These are on the Pareto front: "
        "epoch 1 (intent 0.9000, ner 0.5000); epoch 3 (intent 0.7000, ner 0.6123)."
    )


def test_there_is_no_trade_off_where_one_epoch_is_the_best_for_all() -> None:
    assert trade_off(points((0.9, 0.5), (0.9, 0.6), (0.8, 0.6))) is None
    assert trade_off([{"intent": 0.5}, {"intent": 0.4}]) is None
