"""A loss that is not finite stops the run before its step, or the step is skipped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import training_setup
from equal_runs import assert_equal, weights
from manyheads.modeling import list_checkpoints
from manyheads.training import Run, train
from manyheads.training.loop import TrainingError
from training_setup import (
    Spy,
    config,
    log_lines,
    run,
    spoil,
)


def prepared(folder: Path, **changes: Any) -> Run:
    """A run that has not started."""
    return training_setup.prepared(config(folder, **changes))


def names(save_dir: Path) -> list[str]:
    return [file.path.name for file in list_checkpoints(save_dir)]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        spoil(patched, 2)
        with pytest.raises(TrainingError, match="not finite at step 3") as caught:
            run(tmp_path)
    assert caught.value.exit_status == 2
    places = re.findall(re.escape(f"{tmp_path}/train.jsonl:") + r"(\d+)", str(caught.value))
    assert len(set(places)) == 4
    assert '`resume=True, on_nonfinite="skip"`' in str(caught.value)
    # The state before the step is saved: a resumed run can repeat the step, or skip it.
    assert names(tmp_path / "saved") == ["mtl_step2.pt"]
    shutil.copytree(tmp_path / "saved", tmp_path / "copy")
    spy = Spy()
    train(config(tmp_path, on_nonfinite="skip"), resume=True, reporter=spy)
    assert spy.said("Resumed after step 2 of 8")
    run(tmp_path / "undisturbed", train_file=str(tmp_path / "train.jsonl"))
    assert_equal(weights(tmp_path / "saved"), weights(tmp_path / "undisturbed" / "saved"))
    with monkeypatch.context() as patched:
        spoil(patched, 1)
        train(config(tmp_path, on_nonfinite="skip", save_dir=str(tmp_path / "copy")), resume=True)
    assert log_lines(tmp_path / "copy")[-2]["skipped"] == 1


def test_a_loss_that_is_not_finite_in_the_very_first_step_can_be_skipped_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 1, 2)
    with pytest.raises(TrainingError, match="not finite at step 1"):
        run(tmp_path)
    spy = Spy()
    train(config(tmp_path, on_nonfinite="skip"), resume=True, reporter=spy)
    assert spy.said("Resumed after step 0 of 8")
    assert len(spy.losses) == 7


def test_steps_whose_loss_is_not_finite_are_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 4, value=float("inf"))
    result, spy = run(tmp_path, on_nonfinite="skip")
    steps = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["skipped"] for line in steps] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert len(spy.losses) == 6
    for tensor in weights(result.save_dir).values():
        assert tensor.isfinite().all()


def test_a_skipped_step_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(1, 9))
    result, _ = run(
        tmp_path, on_nonfinite="skip", tasks={"classification": {"kind": "classification"}}
    )
    start = prepared(tmp_path / "start", tasks={"classification": {"kind": "classification"}})
    assert_equal(weights(result.save_dir), start.model.state_dict())
