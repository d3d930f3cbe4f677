"""Confidence metrics of scores whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from manyheads.tasks.metrics import (
    binned,
    calibration_error,
    confidence_metrics,
    error_by_chance,
    reliability,
    risk_coverage,
)


def test_calibrated_scores_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.3, 0.9, 20_000)
    right = rng.random(20_000) < scores
    good = confidence_metrics(scores, right, calibrated=True)
    bad = confidence_metrics(np.sqrt(scores), right, calibrated=False)
    assert good["ece"] < 0.015
    assert bad["ece"] > 0.1
    assert bad["brier"] > good["brier"]
    # The order is the same, and so is the area under the risk-coverage curve.
    assert bad["aurc"] == pytest.approx(good["aurc"], rel=1e-5)


@pytest.mark.parametrize("answers", [1, 30, 500, 8000])
def test_the_error_by_chance_is_that_of_perfectly_calibrated_scores(answers: int) -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.3, 0.99, answers)
    errors = [calibration_error(scores, rng.random(answers) < scores) for _ in range(200)]
    spread = np.std(errors) * (1 / 200 + 1 / 100) ** 0.5
    assert error_by_chance(scores) == pytest.approx(np.mean(errors), abs=5 * spread)
    metrics = confidence_metrics(scores, scores > 0.5, calibrated=True)
    assert metrics["ece_by_chance"] == error_by_chance(scores)


def test_certain_scores_have_no_error_by_chance() -> None:
    assert error_by_chance(np.array([0.0, 1.0, 1.0])) == 0.0


def test_bins_have_equal_mass() -> None:
    scores = np.linspace(0, 1, 3000) ** 4
    _, _, counts = reliability(scores, scores > 0.5)
    assert len(counts) == 15
    assert set(counts.tolist()) == {200}
    assert binned(np.array([])) == []


@pytest.mark.parametrize("levels", [1, 3, 40])
def test_the_order_of_answers_with_equal_scores_has_no_effect(levels: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(1, levels + 1, 1000) / (levels + 1)
    right = rng.random(1000) < scores
    shuffled, by_answer = rng.permutation(1000), np.argsort(right)
    error = calibration_error(scores, right)
    for order in (shuffled, by_answer):
        assert calibration_error(scores[order], right[order]) == pytest.approx(error)
    by_chance = [calibration_error(scores, rng.random(1000) < scores) for _ in range(200)]
    assert error_by_chance(scores) == pytest.approx(np.mean(by_chance), rel=0.2)


def test_scores_that_differ_by_the_noise_of_batches_count_as_equal() -> None:
    right = np.arange(200) % 4 > 0
    scores = np.where(np.arange(200) < 100, 0.7, 0.9)
    noise = np.where(right, 1e-7, -1e-7)
    plain = confidence_metrics(scores, right, calibrated=True)
    noisy = confidence_metrics(scores + noise, right, calibrated=True)
    assert noisy["aurc"] == plain["aurc"] == pytest.approx(0.25)
    assert noisy["ece"] == pytest.approx(plain["ece"], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_a_temperature_changes_no_order_and_so_no_area_under_risk_and_coverage(
    temperature: float,
) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(7, 2, 2000)
    right = rng.random(2000) < 1 / (1 + np.exp(-logits / 3))
    plain, scaled = (
        confidence_metrics(1 / (1 + np.exp(-logits / t)), right, calibrated=False)
        for t in (1.0, temperature)
    )
    assert scaled["aurc"] == pytest.approx(plain["aurc"], rel=1e-3)
    assert len(binned(1 / (1 + np.exp(-logits / temperature)))) == 15


def test_risk_rises_with_coverage_if_errors_have_the_lowest_scores() -> None:
    coverage, risk = risk_coverage(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False])
    )
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 0, 1 / 3, 1 / 2])
    # Equal scores are taken together.
    _, equal = risk_coverage(np.full(4, 0.5), np.array([True, True, False, False]))
    assert equal.tolist() == [0.5] * 4
