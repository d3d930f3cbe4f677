"""Intervals have their nominal coverage, and the bootstrap equals the textbook's."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.evaluation import (
    MeanInterval,
    Ratio,
    last_within_chance,
    mean_interval,
    paired_bootstrap,
    share_interval,
)
from manyheads.evaluation.statistics import t_quantile
from manyheads.tasks.metrics import SentenceCounts


def shares(values: list[bool]) -> Ratio:
    return Ratio.accuracy(values)


@settings(max_examples=200)
@given(st.floats(0.001, 0.999), st.integers(1, 200))
def test_quantiles_of_students_t_equal_scipys(probability: float, freedom: int) -> None:
    reference = pytest.importorskip("scipy.stats")
    expected = reference.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_interval_over_three_seeds_is_the_one_in_the_tables() -> None:
    result = mean_interval([0.95, 0.96, 0.97])
    margin = 4.302653 * 0.01 / math.sqrt(3)
    assert result.mean == pytest.approx(0.96)
    assert result.deviation == pytest.approx(0.01)
    assert (result.low, result.high) == pytest.approx((0.96 - margin, 0.96 + margin))
    assert result.count == 3


def test_a_single_run_has_no_interval() -> None:
    assert mean_interval([0.9]) == MeanInterval(0.9, None, None, None, 1, 0.95)


def test_an_interval_of_95_percent_covers_the_true_mean_in_95_of_100_cases() -> None:
    random = np.random.default_rng(1)
    intervals = [mean_interval(random.normal(3.0, 2.0, 3).tolist()) for _ in range(2000)]
    covered = sum(i.low < 3.0 < i.high for i in intervals if i.low and i.high) / len(intervals)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_intervals_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_quantiles_that_do_not_exist_are_refused(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match=f"probability {probability} and {freedom} degrees"):
        t_quantile(probability, freedom)


def test_accuracy_and_f1_are_ratios_of_sums_over_sentences() -> None:
    counts = SentenceCounts(
        correct=np.array([True, False, True]),
        hits=np.array([2, 1, 0]),
        predicted=np.array([2, 1, 0]),
        gold=np.array([2, 3, 0]),
    )
    assert Ratio.accuracy(counts.correct).value() == pytest.approx(2 / 3)
    assert Ratio.f1(counts).value() == pytest.approx(2 * 3 / (3 + 5))
    assert Ratio.accuracy([True, None, False, None]).value() == 0.5
    assert Ratio.accuracy([None]).value() == 0.0


def test_two_equal_systems_do_not_differ() -> None:
    answers = shares([True, False, True, True] * 20)
    result = paired_bootstrap(answers, answers)
    assert (result.difference, result.low, result.high) == (0.0, 0.0, 0.0)
    assert result.second_better == 0.5


def test_a_clear_difference_is_outside_noise_and_has_its_sign() -> None:
    random = np.random.default_rng(0)
    worse, better = shares(list(random.random(500) < 0.6)), shares(list(random.random(500) < 0.9))
    result = paired_bootstrap(worse, better)
    assert result.difference == pytest.approx(better.value() - worse.value())
    assert 0.2 < result.low < result.difference < result.high < 0.5
    assert result.second_better == 1.0
    mirrored = paired_bootstrap(better, worse)
    assert mirrored.high < 0
    assert mirrored.second_better == 0.0


def test_the_bootstrap_equals_one_that_draws_sentences_one_by_one() -> None:
    random = np.random.default_rng(2)
    sides = []
    for error in (0.3, 0.25):
        gold = random.integers(0, 4, 300)
        hits = random.binomial(gold, 1 - error)
        predicted = hits + random.integers(0, 2, 300)
        sides.append(Ratio.f1(SentenceCounts(hits == gold, hits, predicted, gold)))
    first, second = sides
    drawn = random.integers(0, 300, (4000, 300))
    naive = [
        second.numerator[d].sum() / second.denominator[d].sum()
        - first.numerator[d].sum() / first.denominator[d].sum()
        for d in drawn
    ]
    ours = paired_bootstrap(first, second, resamples=20_000)
    assert (ours.low, ours.high) == pytest.approx(
        tuple(np.quantile(naive, [0.025, 0.975])), abs=0.004
    )
    assert ours.second_better == pytest.approx(np.mean(np.array(naive) > 0), abs=0.03)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    random = np.random.default_rng(3)
    hard = random.random(400) < 0.5
    first = hard.copy()
    second = hard | (random.random(400) < 0.06)
    paired = paired_bootstrap(shares(list(first)), shares(list(second)))
    apart = paired_bootstrap(shares(list(first)), shares(list(random.permutation(second))))
    assert paired.low > 0
    assert apart.high - apart.low > 2 * (paired.high - paired.low)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    random = np.random.default_rng(4)
    first, second = (shares(list(random.random(50) < 0.7)) for _ in range(2))
    assert paired_bootstrap(first, second, seed=7) == paired_bootstrap(first, second, seed=7)
    assert paired_bootstrap(first, second, seed=7, resamples=99) != paired_bootstrap(
        first, second, seed=8, resamples=99
    )


def test_the_ratios_of_several_runs_add_up() -> None:
    first, second = shares([True, False]), shares([True, True])
    assert (first + second).value() == 0.75


def test_many_different_sentences_do_not_fill_the_memory() -> None:
    random = np.random.default_rng(5)
    first, second = (Ratio(random.random(20_000), np.ones(20_000)) for _ in range(2))
    tracemalloc.start()
    paired_bootstrap(first, second, resamples=400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # all draws at once would take 64 MB twice


@pytest.mark.parametrize(
    ("first", "second", "resamples", "message"),
    [
        ([True], [True, False], 10, "different lengths"),
        ([], [], 10, "no sentences to resample"),
        ([True], [True], 0, "0 resamples"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(
    first: list[bool], second: list[bool], resamples: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(shares(first), shares(second), resamples=resamples)


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert share_interval(3, 1000) == pytest.approx((0.0010208, 0.0087830), abs=1e-6)
    assert share_interval(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)
    assert share_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "errors", "chosen"),
    [
        ([0.5], [0.0], 0),
        ([0.1, 0.7, 0.7, 0.3], [0.0] * 4, 2),
        ([0.1, 0.7, 0.68, 0.3], [0.05] * 4, 2),
        ([0.1, 0.7, 0.64, 0.3], [0.05] * 4, 1),
        # The error of the best counts, and not that of the others.
        ([0.7, 0.64, 0.3], [0.05, 1.0, 1.0], 0),
        ([0.7, 0.3, 0.69, 0.68], [0.01, 0.0, 0.0, 0.0], 2),
    ],
)
def test_the_last_score_within_one_standard_error_of_the_best_is_chosen(
    scores: list[float], errors: list[float], chosen: int
) -> None:
    assert last_within_chance(scores, errors) == chosen


@given(
    pairs=st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 0.2)), min_size=1, max_size=20),
)
def test_a_choice_made_after_each_score_ends_at_that_made_of_all(
    pairs: list[tuple[float, float]],
) -> None:
    scores, errors = [s for s, _ in pairs], [e for _, e in pairs]
    kept = [
        i for i in range(len(pairs)) if last_within_chance(scores[: i + 1], errors[: i + 1]) == i
    ]
    assert kept[-1] == last_within_chance(scores, errors)
