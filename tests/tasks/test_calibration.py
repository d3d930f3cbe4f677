"""Calibration recovers known curves, keeps the order of scores, and is validated when read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import ModelError
from manyheads.tasks import (
    Entity,
    Evidence,
    Platt,
    Scheme,
    Scoring,
    Span,
    TaggingResult,
    TaskSpec,
    Temperature,
    kind_of,
)
from manyheads.tasks.calibration import (
    Isotonic,
    curve_shares,
    fit_curve,
    fit_isotonic,
    fit_platt,
    fit_platt_by_label,
    fit_platt_with_offsets,
    fit_temperature,
    log_odds,
    pool_adjacent_violators,
    read_calibration,
)
from manyheads.tasks.decoding import sigmoid, softmax
from manyheads.tasks.labels import PartlyLabelled

values = st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=30)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (4000, 4))
    shares = softmax((logits / temperature).astype(np.float32))
    gold = (shares.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
    assert fit_temperature(logits, gold).temperature == pytest.approx(temperature, rel=0.06)


def test_a_logistic_curve_is_recovered() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, 6000)
    right = rng.random(6000) < sigmoid(0.5 * scores - 1.0)
    curve = fit_platt(scores, right)
    assert curve.slope[0] == pytest.approx(0.5, abs=0.05)
    assert curve.bias[0] == pytest.approx(-1.0, abs=0.1)


def test_each_label_gets_a_curve_and_a_label_without_examples_the_common_one() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (3000, 3))
    right = rng.random((3000, 3)) < sigmoid(scores + np.array([2.0, -2.0, 0.0]))
    right[:, 2] = False
    curves = fit_platt_by_label(scores, right)
    assert curves.bias[:2] == pytest.approx([2.0, -2.0], abs=0.3)
    assert -2.0 < curves.bias[2] < 2.0
    assert curves.probabilities(scores).shape == (3000, 3)


@given(values=values)
def test_pooling_returns_the_closest_non_decreasing_sequence(values: list[float]) -> None:
    found = pool_adjacent_violators(np.array(values), np.ones(len(values)))
    assert (np.diff(found) >= -1e-12).all()
    assert found.mean() == pytest.approx(np.mean(values))
    # No non-decreasing sequence of two levels is closer.
    error = ((found - values) ** 2).sum()
    for cut in range(len(values)):
        first, rest = np.mean(values[: cut + 1]), np.mean(values[cut + 1 :] or [1.0])
        if first <= rest:
            other = np.where(np.arange(len(values)) <= cut, first, rest)
            assert error <= ((other - values) ** 2).sum() + 1e-9


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60))
@settings(max_examples=40)
def test_curves_do_not_decrease_and_are_never_certain(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores, right = rng.normal(0, 4, count).round(1), rng.random(count) < rng.random()
    alone, folds = np.zeros(count, np.int64), np.arange(count) % 5
    best = fit_curve(scores, right, alone, 1, folds)
    for curve in (fit_platt(scores, right), fit_isotonic(scores, right), best):
        found = curve.probabilities(np.linspace(-400, 400, 2000))
        assert (np.diff(found) >= -1e-12).all()
        assert (found > 0).all()
        assert (found < 1).all()
        assert read_calibration(curve.to_json(), "model") == curve


@pytest.mark.parametrize("slope", [1.0, 3.0])
def test_a_multilabel_probability_is_not_certain_in_float32(slope: float) -> None:
    logits = np.array([[17.5, -17.5]], np.float32)
    calibration = Platt((slope, slope), (0.0, 0.0))
    [[high, low]] = kind_of("multilabel").calibrated(logits, None, calibration)
    assert 0 < low < 1e-6
    assert 1 - 1e-6 < high < 1


@pytest.mark.parametrize("count", [20, 60, 180])
@pytest.mark.parametrize("mean", [-1.0, 0.0, 3.0, 10.0])
def test_answers_that_are_all_right_keep_their_order(count: int, mean: float) -> None:
    scores = np.sort(np.random.default_rng(0).normal(mean, 2, count))
    labels, folds = np.zeros(count, np.int64), np.arange(count) % 5
    for right in (True, False):
        found = fit_curve(scores, np.full(count, right), labels, 1, folds).probabilities(scores)
        assert (np.diff(found) > 0).all()
        # Not better than `count` answers can show.
        error = 1 - found if right else found
        assert error.mean() == pytest.approx(1 / (count + 2), rel=0.01)


@pytest.mark.parametrize("count", [20, 60, 180])
def test_an_isotonic_curve_is_not_certain_and_ranks_the_scores_of_its_ends(count: int) -> None:
    scores = np.linspace(-4.0, 4.0, count)
    for right in (scores > -9, scores > 9, scores > 0):
        found = fit_isotonic(scores, right).probabilities(scores)
        assert found[0] > 0
        assert found[-1] < 1
        assert (np.diff(found) > 0).all()


def test_the_best_curve_is_chosen() -> None:
    rng = np.random.default_rng(0)
    scores, folds = rng.normal(0, 3, 4000), rng.integers(0, 5, 4000)
    logistic = rng.random(4000) < sigmoid(scores)
    steps = rng.random(4000) < np.where(scores > 0, 0.6, 0.4)
    alone, labels = np.zeros(4000, np.int64), rng.integers(0, 4, 4000)
    by_label = rng.random(4000) < sigmoid(scores + np.array([1.5, 0.0, 0.0, -1.5])[labels])
    assert isinstance(fit_curve(scores, logistic, alone, 1, folds), Platt)
    assert isinstance(fit_curve(scores, steps, labels, 4, folds), Isotonic)
    many = fit_curve(scores, by_label, labels, 4, folds)
    assert isinstance(many, Platt)
    assert len(set(many.slope)) == 1
    assert np.array(many.bias) == pytest.approx([1.5, 0.0, 0.0, -1.5], abs=0.4)


def test_a_rare_label_gets_nearly_the_common_bias() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(0, 2, 1001), np.array([0] * 1000 + [1])
    right = rng.random(1001) < sigmoid(scores + 1.0)
    right[-1] = False
    curve = fit_platt_with_offsets(scores, right, labels, 3)
    assert -0.5 < curve.bias[1] - curve.bias[2] < 0
    assert curve.bias[0] == pytest.approx(1.0, abs=0.2)


def test_scores_that_say_the_opposite_have_no_slope() -> None:
    scores, labels = np.linspace(-4, 4, 100), np.arange(100) % 2
    curve = fit_platt_with_offsets(scores, scores < 0, labels, 2)
    assert curve.slope == (0.0, 0.0)
    assert curve_shares(curve, scores, labels) == pytest.approx(np.full(100, 0.5), abs=0.02)


def test_log_odds_of_certainty_are_finite() -> None:
    found = log_odds(np.array([0.0, 0.5, 1.0]))
    assert np.isfinite(found).all()
    assert found[1] == 0.0


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {"method": "magic"},
        {"method": "temperature"},
        {"method": "temperature", "temperature": 0.0},
        {"method": "temperature", "temperature": math.nan},
        {"method": "temperature", "temperature": True},
        {"method": "temperature", "temperature": 1.0, "more": 1},
        {"method": "platt", "slope": [], "bias": []},
        {"method": "platt", "slope": [1.0, 2.0], "bias": [0.0]},
        {"method": "platt", "slope": [math.inf], "bias": [0.0]},
        {"method": "isotonic", "log_odds": [1.0, 0.0], "shares": [0.1, 0.9]},
        {"method": "isotonic", "log_odds": [0.0, 1.0], "shares": [0.9, 0.1]},
        {"method": "isotonic", "log_odds": [0.0, 1.0], "shares": [0.5, 1.5]},
        {"method": "isotonic", "log_odds": list(range(99)), "shares": [0.5] * 99},
    ],
)
def test_an_invalid_stored_calibration_is_refused(stored: Any) -> None:
    with pytest.raises(ModelError, match="its calibration has"):
        read_calibration(stored, "model")


def test_a_temperature_is_read_back() -> None:
    assert read_calibration(Temperature(1.5).to_json(), "model") == Temperature(1.5)


def test_entities_of_a_type_that_is_often_wrong_get_lower_probabilities() -> None:
    kind, tags = kind_of("tagging"), ("O", "B-city", "I-city", "B-firm", "I-firm")
    spec = TaskSpec("ner", "tagging", tags, scheme=Scheme.BIO, decoder="linear")
    rng = np.random.default_rng(0)
    evidence = [
        Evidence(
            np.array([1.0, 1.0]),
            np.array([rng.random() < 0.9, rng.random() < 0.3], np.int64),
            ("city", "firm"),
        )
        for _ in range(400)
    ]
    calibration = kind.fit_calibration(spec, evidence, np.arange(400) % 5)
    assert isinstance(calibration, Platt)
    assert kind.accepts(spec, calibration)
    assert kind.accepts(spec, Platt((1.0,), (0.0,)))
    assert not kind.accepts(spec, Platt((1.0,) * 3, (0.0,) * 3))
    found = kind.judge(spec, evidence[:1], calibration)
    assert found.scores == pytest.approx([0.9, 0.3], abs=0.07)
    entities = (Entity("Rome", "city", 0, 4, 0.73), Entity("Acme", "firm", 5, 9, 0.73))
    [result] = kind.scored(
        spec, [TaggingResult(entities, ())], np.empty((0, 5), np.float32), None,
        Scoring(calibration, None, logits=False),
    )  # fmt: skip
    assert isinstance(result, TaggingResult)
    assert [e.score for e in result.entities] == pytest.approx(found.scores, abs=0.01)


def test_entities_in_words_without_a_label_are_no_evidence() -> None:
    """They may be right or wrong; thresholds and curves are fitted on the others alone."""
    kind = kind_of("tagging")
    spec = TaskSpec("ner", "tagging", ("O", "B-x", "I-x"), scheme=Scheme.BIO, decoder="linear")
    entities = tuple(Entity("?", "x", s, e, 0.9) for s, e in ((0, 3), (4, 11), (12, 15), (16, 19)))
    label = PartlyLabelled((Span(0, 3, "x"),), ((8, 11), (12, 15)))
    found = kind.evidence(spec, label, None, TaggingResult(entities, ()), np.empty((0, 3)))
    assert found is not None
    assert found.gold.tolist() == [1, 0]
    assert (len(found.scores), found.labels) == (2, ("x", "x"))
