"""A loss that is not finite stops the run before its step, or the step is skipped."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import training_setup
from equal_runs import assert_equal, weights
from manyheads.modeling import list_checkpoints, load_checkpoint, step_path
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


def test_a_skipped_step_changes_no_weight_and_an_epoch_of_them_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, *range(1, 5))
    tasks = {"classification": {"kind": "classification"}}
    with pytest.raises(TrainingError, match="losses of all steps of epoch 1 are not finite"):
        run(tmp_path, on_nonfinite="skip", tasks=tasks, checkpoint_every=3)
    start = prepared(tmp_path / "start", tasks=tasks)
    skipped = load_checkpoint(step_path(tmp_path / "saved", 3))
    assert_equal(dict(skipped.model), start.model.state_dict())


@pytest.mark.parametrize(
    ("rate", "what", "way"),
    [(1e6, "the model's outputs", "skip"), (1e38, "the weights", "stop")],
)
def test_a_model_that_is_not_finite_is_not_evaluated(
    tmp_path: Path, rate: float, what: str, way: str
) -> None:
    # One step an epoch, after which no loss shows it.
    message = f"{what} are not finite after step 1.*Lower `learning_rate`.*`overwrite=True`"
    with pytest.raises(TrainingError, match=message):
        run(
            tmp_path, on_nonfinite=way, schedule="joint", batch_size=14,
            learning_rate=rate, head_learning_rate=rate, lr_schedule="constant", warmup_ratio=0,
        )  # fmt: skip
