"""Thresholds hold on fresh data, and the bounds are the exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from manyheads.evaluation import clopper_pearson, find_thresholds
from manyheads.evaluation.thresholds import binomial_tail, reach
from manyheads.tasks import NEVER, Judged, read_thresholds


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # of scipy.stats.binomtest(...).proportion_ci()
        (0, 10, 0.0, 0.3084971),
        (5, 10, 0.1870860, 0.8129140),
        (10, 10, 0.6915029, 1.0),
        (95, 100, 0.8871651, 0.9835681),
        (2970, 3000, 0.9857549, 0.9932432),
    ],
)
def test_the_interval_of_a_share_is_clopper_and_pearsons(
    right: int, total: int, low: float, high: float
) -> None:
    assert clopper_pearson(right, total) == pytest.approx((low, high), abs=1e-6)


def test_the_tail_of_a_binomial_is_the_sum_of_its_terms() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.binomial(30, 0.8, 200_000)
    for right in (0, 10, 24, 30):
        assert binomial_tail(right, 30, 0.8) == pytest.approx((drawn >= right).mean(), abs=0.005)
    assert binomial_tail(31, 30, 0.8) == 0.0


def answers(rng: np.random.Generator, count: int, sharpness: float = 1.0) -> Judged:
    scores = rng.beta(4, 1, count)
    right = rng.random(count) < scores**sharpness
    labels = np.array(["a", "b"], np.object_)[rng.integers(0, 2, count)]
    return Judged(scores, right, labels, np.arange(count))


def test_the_precision_holds_on_fresh_answers() -> None:
    rng = np.random.default_rng(0)
    failed = found = 0
    fresh = answers(rng, 100_000)
    for _ in range(60):
        judged = answers(rng, 800)
        reached = reach(judged.scores, judged.right, 0.9, 0.95)
        if reached is not None:
            found += 1
            assert reached.low >= 0.9
            failed += fresh.right[fresh.scores >= reached.score].mean() < 0.9
    assert found > 50
    assert failed <= 6  # one in twenty, and chance


def test_a_precision_that_no_score_reaches_is_not_promised() -> None:
    rng = np.random.default_rng(0)
    assert reach(rng.random(2000), rng.random(2000) < 0.5, 0.9, 0.95) is None
    sure = np.ones(20, np.bool_)
    # All of twenty right is not enough evidence for nine in ten; of thirty it is.
    assert reach(rng.random(20), sure, 0.9, 0.95) is None
    assert reach(rng.random(30), np.ones(30, np.bool_), 0.9, 0.95) is not None


def test_a_confidence_of_one_half_is_enough_for_a_threshold() -> None:
    judged = answers(np.random.default_rng(0), 800)
    reached = reach(judged.scores, judged.right, 0.9, 0.5)
    assert reached is not None
    assert 0.9 <= reached.low < reached.right / reached.answers
    assert find_thresholds(judged, 0.9, 0.5).task == reached


def test_a_label_that_is_often_wrong_has_a_higher_threshold() -> None:
    rng = np.random.default_rng(0)
    judged = answers(rng, 3000)
    rare = Judged(
        np.append(judged.scores, [0.95, 0.96, 0.97, 0.99]),
        np.append(judged.right, [False, False, False, True]),
        np.append(judged.labels, ["rare"] * 4),
        np.arange(3004),
    )
    found = find_thresholds(rare, 0.9)
    assert found.thresholds is not None
    assert set(found.labels) == {"a", "b"}
    assert found.thresholds.of("rare") > 0.97
    assert found.thresholds.of("unheard of") == found.thresholds.score


def test_a_label_that_is_wrong_at_the_highest_score_is_never_decided() -> None:
    scores = np.append(np.full(4, 1.0), np.full(200, 0.9999))
    labels = np.array(["wrong"] * 4 + ["good"] * 200, np.object_)
    judged = Judged(scores, labels == "good", labels, np.arange(204))
    found = find_thresholds(judged, 0.9).thresholds
    assert found is not None
    assert found.of("wrong") == NEVER
    assert found.of("good") == 0.9999
    assert read_thresholds(found.to_json(), "model") == found
