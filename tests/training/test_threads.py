"""A run without a configured number of threads takes the fastest, and keeps it when resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from manyheads.modeling import epoch_path, load_checkpoint
from manyheads.training import threads, train
from manyheads.training.threads import choose_threads
from training_setup import Spy, config


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 4)


def taking(seconds: Mapping[int, float]) -> Callable[[int, int], float]:
    """A measurement that returns these seconds."""
    return lambda count, hidden: seconds[count]


def never(count: int, hidden: int) -> float:
    raise AssertionError("nothing is to be measured")


def test_the_fastest_number_of_threads_is_chosen_and_explained() -> None:
    choice = choose_threads(8, measure=taking({4: 2.0, 2: 1.5, 1: 1.0}))
    assert (choice.count, choice.reasons) == (1, ("1 is 2.0 times as fast as 4 now",))
    assert choose_threads(8, measure=taking({4: 2.0, 2: 1.0, 1: 1.5})).count == 2


def test_a_small_gain_changes_nothing() -> None:
    choice = choose_threads(8, measure=taking({4: 1.1, 2: 1.0, 1: 1.0}))
    assert (choice.count, choice.reasons) == (4, ())


def test_single_slow_rounds_do_not_decide() -> None:
    rounds: dict[int, int] = {}

    def measure(count: int, hidden: int) -> float:
        rounds[count] = rounds.get(count, 0) + 1
        return 100.0 if count == 4 and rounds[count] < 4 else {4: 1.0, 2: 1.8, 1: 3.0}[count]

    assert choose_threads(8, measure=measure).count == 4


def test_one_core_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 1)
    assert choose_threads(8, measure=never).count == 1


def test_the_recorded_number_is_kept_if_there_are_enough_cores() -> None:
    assert choose_threads(8, recorded=2, measure=never).count == 2
    assert choose_threads(8, recorded=8, measure=taking({4: 1.0, 2: 2.0, 1: 4.0})).count == 4


def test_a_resumed_run_has_the_threads_that_it_was_started_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spy = torch.get_num_threads(), Spy()
    monkeypatch.setattr(threads, "work_seconds", taking({4: 2.0, 2: 2.0, 1: 1.0}))
    monkeypatch.setattr("manyheads.modeling.devices.product_rate", lambda *measured: 1.0)
    settings = config(tmp_path, threads=None, precision="auto")
    try:
        train(settings, reporter=spy)
        assert spy.said("in float32 (1 is 2.0 times as fast as 4 now; bf16 products are 1.0 times")
        assert load_checkpoint(epoch_path(tmp_path / "saved", 1)).training["threads"] == 1
        monkeypatch.setattr(threads, "work_seconds", never)
        spy = Spy()
        train(settings, resume=True, reporter=spy)
        assert spy.said("with 1 thread in float32 (as many as before; precision as before)")
    finally:
        torch.set_num_threads(before)


def test_a_configured_number_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "work_seconds", never)
    train(config(tmp_path, threads=1))
