"""Comparing two runs bit by bit; settings of a run with all kinds of randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from manyheads.config import Config
from manyheads.modeling import epoch_path, load_checkpoint
from manyheads.storage import BEST, read_manifest
from manyheads.training import train
from training_setup import (
    Killed,
    Spy,
    config,
    digest,
    log_lines,
    sentences,
    write_records,
)

EPOCHS = 2
STEPS = 10
"""Of the whole run: per epoch three of the larger task and two of the smaller."""


def hard_config(folder: Path, **changes: Any) -> Config:
    """Dropout also of tokens, two tasks of different sizes, accumulation and bf16."""
    if not (folder / "classes.jsonl").exists():
        write_records(folder / "classes.jsonl", sentences(21, 3, fields=["label"]))
        write_records(folder / "tags.jsonl", sentences(11, 4, fields=["ner"]))
    values: dict[str, Any] = {
        "tasks": {
            "intent": {
                "kind": "classification", "train_file": str(folder / "classes.jsonl"),
                "start": "fitted",
            },
            "ner": {
                "kind": "tagging", "train_file": str(folder / "tags.jsonl"), "dropout": 0.3,
                "decoder": "crf", "neck": "bilstm", "neck_size": 8, "word_features": "on",
            },
        },
        "num_epochs": EPOCHS,
        "gradient_accumulation": 2,
        "precision": "bf16",
        "lr_schedule": "cosine",
        "token_dropout": 0.2,
        **changes,
    }  # fmt: skip
    return config(folder, train_file=str(folder / "classes.jsonl"), **values)


def stop_at(step: int) -> Callable[[int], None]:
    """Simulate the end of the process after that many steps."""

    def end(done: int) -> None:
        if done == step:
            raise Killed

    return end


def weights(save_dir: str | Path, epoch: int = 1) -> Mapping[str, Tensor]:
    """The weights after an epoch."""
    return load_checkpoint(epoch_path(save_dir, epoch)).model


def assert_resumes(
    whole: Config, stopped: Config, *steps: int, between: Callable[[], object] = lambda: None
) -> None:
    """Assert that a run killed after some steps, and resumed, ends like an undisturbed one.

    Args:
        whole: the undisturbed run, which may be finished already.
        stopped: the same in another folder, saving often enough.
        steps: done by each killed process.
        between: called before the last process begins.
    """
    if not epoch_path(whole.save_dir, whole.epochs).exists():
        train(whole)
    for number, step in enumerate(steps):
        with pytest.raises(Killed):
            train(stopped, resume=number > 0, reporter=Spy(stop_at(step)))
    between()
    train(stopped, resume=True)
    assert_same_run(Path(whole.save_dir), Path(stopped.save_dir), whole.epochs)


def calibration_of(save_dir: Path) -> Mapping[str, Any]:
    """The calibration of the best model, which its file names beside the run's folder."""
    return read_manifest(save_dir / BEST).calibration


def state_of(save_dir: Path, epoch: int = EPOCHS) -> dict[str, Any]:
    """The state that must be bit-identical: the last checkpoint and the best model's files."""
    contents = load_checkpoint(epoch_path(save_dir, epoch))
    return {
        "model": dict(contents.model),
        "training": contents.training,
        "best": digest(save_dir / "best"),
        "calibration": calibration_of(save_dir),
        "log": log_lines(save_dir),
    }


def assert_same_run(undisturbed: Path, saved: Path, epoch: int = 3) -> None:
    """Assert that a continued run left the same files, bit by bit, as an undisturbed one."""
    expected = load_checkpoint(epoch_path(undisturbed, epoch))
    found = load_checkpoint(epoch_path(saved, epoch))
    assert_equal(dict(expected.model), dict(found.model))
    assert_equal(expected.training, found.training)
    assert log_lines(saved) == log_lines(undisturbed)
    for name in ("model.safetensors", "heads.safetensors"):
        assert (saved / "best" / name).read_bytes() == (undisturbed / "best" / name).read_bytes()
    assert_equal(calibration_of(undisturbed), calibration_of(saved))


def assert_equal(one: Any, other: Any, place: str = "") -> None:
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype, place
        assert torch.equal(one, other), place
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), place
        for key in one:
            # The log has durations, so its length varies.
            if key not in ("log_bytes", "save_dir"):
                assert_equal(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{place}[{i}]")
    else:
        assert one == other, place
