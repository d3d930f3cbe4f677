"""A run's folder: checkpoints, the log, the same bytes for the same seed, and other runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import forked
from equal_runs import assert_equal, weights
from manyheads.cli import main
from manyheads.errors import ManyheadsError, RequestError
from manyheads.modeling import list_checkpoints
from manyheads.storage import StorageError
from manyheads.training import train
from training_setup import (
    Spy,
    config,
    digest,
    encoder_folder,
    log_lines,
    run,
    sentences,
    settings,
    write_records,
)


def test_a_run_learns(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", sentences(60, 1))
    result, _ = run(tmp_path, num_epochs=4, batch_size=4, schedule="joint")
    assert result.history[-1]["loss"]["ner"] < 0.5 * result.history[0]["loss"]["ner"]
    assert result.best_score > 0.8


def test_the_log_has_a_line_every_few_steps_and_for_each_epoch(tmp_path: Path) -> None:
    result, spy = run(tmp_path, log_every=3, num_epochs=2)
    lines = log_lines(result.save_dir)
    assert [(line["event"], line["step"]) for line in lines] == [
        ("step", 3), ("step", 6), ("epoch", 8), ("step", 9), ("step", 12), ("step", 15),
        ("epoch", 16),
    ]  # fmt: skip
    assert spy.turns[:3] == ["classification", "ner", "classification"]
    losses = dict.fromkeys(("classification", "ner"), ())
    for task, loss in spy.losses[:3]:
        losses[task] = (*losses[task], loss)
    assert lines[0]["loss"] == {task: np.mean(values) for task, values in losses.items()}
    epoch = [loss for task, loss in spy.losses[:8] if task == "ner"]
    assert lines[2]["loss"]["ner"] == pytest.approx(np.mean(epoch))


def names(save_dir: Path) -> list[str]:
    return [file.path.name for file in list_checkpoints(save_dir)]


def test_each_epoch_leaves_a_checkpoint(tmp_path: Path) -> None:
    result, _ = run(tmp_path, num_epochs=3)
    assert names(result.save_dir) == ["mtl_epoch1.pt", "mtl_epoch2.pt", "mtl_epoch3.pt"]


def test_old_checkpoints_are_limited_in_number(tmp_path: Path) -> None:
    result, _ = run(tmp_path, num_epochs=4, keep_checkpoints=2)
    assert names(result.save_dir) == ["mtl_epoch3.pt", "mtl_epoch4.pt"]


def test_checkpoints_within_epochs_are_saved_every_few_steps(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    spy = Spy(lambda step: seen.append(names(tmp_path / "saved")))
    train(config(tmp_path, num_epochs=2, checkpoint_every=3), reporter=spy)
    # Eight steps per epoch. Within an epoch only the newest checkpoint is kept, until its end.
    first = ["mtl_epoch1.pt"]
    assert seen == [
        [], [], [], *3 * [["mtl_step3.pt"]], *2 * [["mtl_step6.pt"]],
        first, *3 * [[*first, "mtl_step9.pt"]], *3 * [[*first, "mtl_step12.pt"]],
        [*first, "mtl_step15.pt"],
    ]  # fmt: skip
    assert names(tmp_path / "saved") == ["mtl_epoch1.pt", "mtl_epoch2.pt"]


def test_checkpoints_within_epochs_may_be_saved_at_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("manyheads.training.run.time.monotonic", lambda: now[0])
    seen: list[list[str]] = []

    def tick(step: int) -> None:
        seen.append(names(tmp_path / "saved"))
        now[0] += 40

    train(config(tmp_path, checkpoint_every="2m"), reporter=Spy(tick))
    saved = ["mtl_step3.pt"]
    assert seen == [[], [], [], saved, saved, saved, ["mtl_step6.pt"], ["mtl_step6.pt"]]


def test_the_same_configuration_and_seed_make_the_same_model_in_any_process_and_place(
    tmp_path: Path,
) -> None:
    # An encoder without a pooler, like many published ones: the library initialises one at random.
    encoder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), encoder)
    state = load_file(encoder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    assert len(kept) < len(state)
    save_file(kept, encoder / "model.safetensors", {"format": "pt"})

    values = settings(tmp_path / "first", model_name=str(encoder))
    (tmp_path / "second" / "data").mkdir(parents=True)
    for name in ("train", "valid"):
        shutil.copy(tmp_path / "first" / f"{name}.jsonl", tmp_path / "second" / "data")
    elsewhere = {
        **values,
        "train_file": "data/train.jsonl",
        "valid_file": "data/valid.jsonl",
        "save_dir": "here",
    }
    file = tmp_path / "second" / "config.yaml"
    file.write_text(yaml.safe_dump(elsewhere), encoding="utf-8")
    (tmp_path / "work").mkdir()
    forked.run(tmp_path / "work", main, ["train", str(file)])
    torch.rand(7)
    np.random.default_rng().random(3)
    run(tmp_path / "first", model_name=str(encoder))
    assert_equal(weights(tmp_path / "first" / "saved"), weights(tmp_path / "work" / "here"))
    assert log_lines(tmp_path / "first" / "saved") == log_lines(tmp_path / "work" / "here")


def test_another_seed_makes_another_model(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path, seed=seed, save_dir=str(tmp_path / str(seed)))
    one, other = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, which tests only read."""
    result, _ = run(tmp_path_factory.mktemp("trained"), num_epochs=2, schedule="joint")
    return result.save_dir


@pytest.fixture
def another_run(trained: Path, tmp_path: Path) -> Path:
    """A folder with another run, which a test may replace."""
    shutil.copytree(trained, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("remains", ["all", "best", "metrics.jsonl", "mtl_epoch1.pt"])
def test_a_folder_that_holds_another_run_is_refused_and_not_touched(
    another_run: Path, tmp_path: Path, remains: str
) -> None:
    for path in another_run.iterdir():
        if remains not in ("all", path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = digest(another_run)
    assert before
    message = r"holds another run \(.*expected a new or empty .*`resume=True`.*`overwrite=True`"
    with pytest.raises(RequestError, match=message):
        train(config(tmp_path))
    assert digest(another_run) == before


def test_with_overwrite_nothing_of_another_run_remains(another_run: Path, tmp_path: Path) -> None:
    (another_run / "notes.txt").write_text("a file of the user")
    train(config(tmp_path, batch_size=7), overwrite=True)
    assert names(another_run) == ["mtl_epoch1.pt"]
    assert len(log_lines(another_run)) == 5
    assert json.loads((another_run / "best" / "manyheads.json").read_text())["config"][
        "batch_size"
    ] == 7  # fmt: skip
    assert (another_run / "notes.txt").exists()


@pytest.mark.parametrize(
    "changes", [{"train_file": "nowhere.json"}, {"max_length": 65}, {"model_name": "./nowhere"}]
)
def test_an_error_before_the_first_step_leaves_the_run_that_overwrite_replaces(
    another_run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = digest(another_run)
    with pytest.raises(ManyheadsError):
        train(config(tmp_path, **changes), overwrite=True)
    assert digest(another_run) == before


def test_a_disk_without_room_for_a_checkpoint_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage, free = shutil.disk_usage(tmp_path), [0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    message = r"too little space for a checkpoint \(0 bytes of .* free\); expected at least .* kB"
    with pytest.raises(StorageError, match=message):
        run(tmp_path)
    saved = tmp_path / "saved"
    assert names(saved) == []

    free[0] = usage.free
    result, _ = run(tmp_path)
    free[0] = (saved / "mtl_epoch1.pt").stat().st_size
    run(tmp_path, save_dir=str(tmp_path / "other"))

    free[0] = 0
    assert train(config(tmp_path), resume=True).best == result.best
    before = digest(saved)
    with pytest.raises(StorageError, match=message):
        train(config(tmp_path, num_epochs=2), resume=True)
    assert digest(saved) == before
    # The files of a run that is replaced make room.
    train(config(tmp_path), overwrite=True)


def test_a_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    errors = []

    def second(step: int) -> None:
        if step == 2:
            with pytest.raises(RequestError, match="in use by") as caught:
                train(config(tmp_path, seed=3))
            errors.append(caught.value)

    train(config(tmp_path), reporter=Spy(second))
    assert len(errors) == 1
