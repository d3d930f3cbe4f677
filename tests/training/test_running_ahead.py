"""Training on an asynchronous device: no step blocks, and results do not change.

The device is the processor, which is said to work behind. That no operation would have to wait for
it is seen on the device `meta`, where there are no numbers to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from equal_runs import weights
from manyheads.modeling import Compute
from manyheads.training import STEPS_AHEAD, loop, train
from manyheads.training.data import plan_epoch
from manyheads.training.loop import TrainingError
from manyheads.training.step_batches import load_batches
from run_settings import CRF, LINEAR, RUNS
from training_setup import Spy, config, encoder_folder, log_lines, prepared, run, spoil


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compute, "is_async", True)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of steps for which each read of the device was."""
    counts: list[int] = []
    fetch = loop.fetch

    def counted(pending: Any) -> Any:
        counts.append(len(pending))
        return fetch(pending)

    monkeypatch.setattr(loop, "fetch", counted)
    return counts


@pytest.mark.parametrize("name", RUNS)
def test_weights_log_and_reports_are_the_same_on_an_asynchronous_device(
    name: str, tmp_path: Path
) -> None:
    changes = {**RUNS[name], "num_epochs": 2, "log_every": 3}
    found = []
    for folder, is_async in (("at once", False), ("later", True)):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Compute, "is_async", is_async)
            result, spy = run(tmp_path / folder, **changes)
        found.append(
            (weights(result.save_dir, 2), spy.losses, spy.turns, log_lines(result.save_dir))
        )
    at_once, later = found
    assert at_once[0].keys() == later[0].keys()
    assert [key for key, value in at_once[0].items() if not torch.equal(value, later[0][key])] == []
    assert at_once[1:] == later[1:]


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "modernbert"])
@pytest.mark.parametrize("tasks", [LINEAR, CRF])
def test_a_step_reads_no_value_from_the_device(
    tmp_path: Path, kind: str, tasks: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path, tasks=tasks, schedule="joint", model_name=str(encoder_folder(kind)))
    one = prepared(made)
    batch = load_batches(one, plan_epoch(one.data.sources, seed=1, epoch=0)[0]).batches[0]
    inputs = one.data.datasets[batch.dataset].inputs(batch.rows, one.model.encoder.pad_id)
    nowhere = torch.device("meta")
    # That device has no other precision either.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: nullcontext())
    model = one.model.to(nowhere).train()
    # Only CPUs have sparse gradients.
    model.encoder.backbone.get_input_embeddings().sparse = False
    outputs = model(inputs.to(nowhere), list(tasks))
    for task, target in batch.targets.items():
        model.head(task).loss(outputs[task], target.to(nowhere)).backward(retain_graph=True)
    assert all(parameter.grad is not None for parameter in model.heads.parameters())


def test_values_are_read_for_the_log_and_at_the_end_of_an_epoch(
    tmp_path: Path, ahead: None, looks: list[int]
) -> None:
    run(tmp_path, tasks=LINEAR, log_every=3, num_epochs=2)
    assert looks == [3, 3, 2, 1, 3, 3, 1]


def test_values_are_read_after_many_steps_even_without_a_line_of_the_log(
    tmp_path: Path, ahead: None, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STEPS_AHEAD == 64
    monkeypatch.setattr(loop, "STEPS_AHEAD", 5)
    run(tmp_path, tasks=LINEAR, log_every=100)
    assert looks == [5, 3]


def test_on_a_cpu_values_are_read_after_each_step(tmp_path: Path, looks: list[int]) -> None:
    run(tmp_path, tasks=LINEAR, log_every=100)
    assert looks == [1] * 8


@pytest.mark.parametrize("measured", [{}, {"log_gradients": 1}])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(
    tmp_path: Path, ahead: None, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any]
) -> None:
    changes = {"tasks": LINEAR, "schedule": "joint", "log_every": 100, "num_epochs": 2, **measured}
    with monkeypatch.context() as patched:
        spoil(patched, 3)
        with pytest.raises(TrainingError, match="not finite at step 3"):
            run(tmp_path, **changes)
    assert [p.name for p in (tmp_path / "saved").glob("mtl_*.pt")] == ["mtl_step2.pt"]
    # The steps submitted after it changed nothing.
    spy = Spy()
    train(config(tmp_path, **changes), resume=True, reporter=spy)
    assert spy.said("Resumed after step 2 of 8")
    run(tmp_path / "undisturbed", **changes, train_file=str(tmp_path / "train.jsonl"))
    one, other = (weights(tmp_path / folder, 2) for folder in ("saved", "undisturbed/saved"))
    assert [key for key, value in one.items() if not torch.equal(value, other[key])] == []


def test_steps_with_a_loss_that_is_not_finite_can_be_skipped(
    tmp_path: Path, ahead: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 4)
    changes = {"tasks": LINEAR, "schedule": "joint", "log_every": 100, "num_epochs": 2}
    result, spy = run(tmp_path, **changes, on_nonfinite="skip")
    assert len(spy.turns) == 6
    for tensor in weights(result.save_dir, 2).values():
        assert tensor.isfinite().all()
