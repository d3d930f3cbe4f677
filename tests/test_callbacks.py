"""Callbacks and reporters of a run, and the state in which a run leaves the process."""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import manyheads
from equal_runs import assert_same_run
from manyheads.errors import RequestError
from manyheads.storage import read_manifest
from manyheads.training import StepReport, train
from training_setup import Spy, config, sentences, without_files


def test_callbacks_see_every_step_and_epoch_and_progress_is_shown_unless_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    epochs: list[int] = []
    data: dict[str, Any] = {"valid": sentences(4, 2), "overwrite": True}
    spy = Spy()
    manyheads.train(
        sentences(8, 1), **data, **without_files(tmp_path, num_epochs=2), reporter=spy,
        on_step=lambda report: steps.append(report.task),
        on_epoch=lambda entry: epochs.append(entry["epoch"]),
    )  # fmt: skip
    assert epochs == [1, 2]
    assert steps == [task for task, _ in spy.losses]
    assert capsys.readouterr() == ("", "")
    manyheads.train(sentences(8, 1), **data, **without_files(tmp_path))
    shown = capsys.readouterr()
    assert "Epochs" in shown.out
    assert "Evaluating epoch 1" in shown.err
    manyheads.train(sentences(8, 1), **data, **without_files(tmp_path), progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_failing_callback_ends_the_display(tmp_path: Path) -> None:
    def stop(report: object) -> None:
        raise KeyError("enough")

    spy = Spy()
    with pytest.raises(KeyError, match="enough"):
        manyheads.train(
            sentences(8, 1),
            valid=sentences(4, 2),
            reporter=spy,
            on_step=stop,
            **without_files(tmp_path),
        )
    assert spy.ended


class _Failing(Spy):
    """A reporter that ends the run at its third step: it raises, or sets `failure`."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def step(self, report: StepReport) -> None:
        super().step(report)
        if len(self.turns) == 3:
            error = KeyError("enough")
            if self.raises:
                raise error
            self.failure = error


@pytest.mark.parametrize("raises", [True, False])
def test_a_run_that_a_reporter_of_ones_own_stops_is_saved(tmp_path: Path, raises: bool) -> None:
    reporter = _Failing(raises)
    with pytest.raises(KeyError, match="enough"):
        manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), reporter=reporter,
            **without_files(tmp_path, num_epochs=2),
        )  # fmt: skip
    assert reporter.said("Stopped after step 3 of")
    assert reporter.ended


def test_an_epoch_is_saved_before_its_callback_is_called(tmp_path: Path) -> None:
    run, seen = tmp_path / "saved", []

    def look(entry: Mapping[str, Any]) -> None:
        seen.append((run / f"mtl_epoch{entry['epoch']}.pt").exists())
        assert (read_manifest(run / "best").metrics == entry["metrics"]) is entry["best"]

    manyheads.train(
        sentences(8, 1), valid=sentences(4, 2), progress=False, on_epoch=look,
        **without_files(tmp_path, num_epochs=2),
    )  # fmt: skip
    assert seen == [True, True]


@pytest.mark.parametrize(("callback", "call"), [("on_step", 6), ("on_epoch", 1), ("on_epoch", 2)])
def test_a_run_that_a_callback_stops_is_saved_and_resumed(
    tmp_path: Path, callback: str, call: int
) -> None:
    data: dict[str, Any] = {"valid": sentences(4, 2), "progress": False}
    whole = tmp_path / "whole"
    whole.mkdir()
    manyheads.train(sentences(8, 1), **data, **without_files(whole, num_epochs=2))
    calls = []

    def stop(value: object) -> None:
        calls.append(value)
        if len(calls) == call:
            raise KeyboardInterrupt("enough")

    spy = Spy()
    with pytest.raises(KeyboardInterrupt, match="enough"):
        manyheads.train(
            sentences(8, 1),
            reporter=spy,
            **{callback: stop},
            **data,
            **without_files(tmp_path, num_epochs=2),
        )
    assert len(calls) == call
    ended = (callback, call) == ("on_epoch", 2)
    assert spy.said("Continue with `resume=True`") is not ended
    manyheads.train(sentences(8, 1), resume=True, **data, **without_files(tmp_path, num_epochs=2))
    assert_same_run(whole / "saved", tmp_path / "saved", epoch=2)


def test_a_reporter_that_is_not_one_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    class Shows:
        def step(self, report: StepReport) -> None:
            raise AssertionError

    makers: dict[str, Any] = {"an object of Shows": Shows(), "the class Spy": Spy}
    for name, reporter in makers.items():
        with pytest.raises(RequestError, match=f"the reporter is {name}; expected an object of"):
            manyheads.train(sentences(2), reporter=reporter, **without_files(tmp_path))
        with pytest.raises(RequestError, match=f"the reporter is {name}; expected an object of"):
            train(config(tmp_path), reporter=reporter)
    assert not (tmp_path / "saved").exists()


def test_a_second_run_in_a_process_is_refused_and_one_in_a_callback_is_not(tmp_path: Path) -> None:
    data: dict[str, Any] = {"valid": sentences(4, 2), "progress": False}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    second = without_files(tmp_path / "second")

    def again(entry: object) -> None:
        with (
            ThreadPoolExecutor(1) as threads,
            pytest.raises(RequestError, match="another run is in progress in this process"),
        ):
            threads.submit(manyheads.train, sentences(8, 1), **data, **second).result()
        assert not (tmp_path / "second" / "saved").exists()
        manyheads.train(sentences(8, 1), **data, **second)

    manyheads.train(sentences(8, 1), on_epoch=again, **data, **without_files(tmp_path / "first"))
    weights = [tmp_path / name / "saved/best/model.safetensors" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_training_and_loading_leave_the_process_as_they_found_it(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        bars = transformers.utils.logging.is_progress_bar_enabled()
        return torch.get_rng_state().tolist(), random.getstate(), torch.get_num_threads(), bars

    threads = torch.get_num_threads()
    transformers.utils.logging.enable_progress_bar()
    torch.set_num_threads(2)
    try:
        before = state()
        trained = manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), progress=False, **without_files(tmp_path)
        )
        assert state() == before
        assert manyheads.load(trained.best, threads=2).module is not None
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_what_a_callback_draws_from_pythons_generator_is_not_drawn_again(tmp_path: Path) -> None:
    state, own = random.getstate(), random.Random(1)
    drawn: list[float] = []
    try:
        random.seed(1)
        manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), progress=False,
            on_epoch=lambda entry: drawn.append(random.random()), **without_files(tmp_path),
        )  # fmt: skip
        drawn.append(random.random())
    finally:
        random.setstate(state)
    assert len(drawn) > 1
    assert drawn == [own.random() for _ in drawn]
