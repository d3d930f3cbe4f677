"""Shared by tests of training: small data, a small encoder, a reporter that records calls."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from files import write_records
from manyheads.config import Config, load_config
from manyheads.modeling import Encoder
from manyheads.modeling.heads import ClassificationHead
from manyheads.training import Reporter, Run, StepReport, TrainResult, prepare_run, train
from tiny import tiny_encoder_folder

NAMES = {"john": "PER", "mary": "PER", "peter": "PER", "anna": "PER", "emma": "PER", "paul": "PER"}
PLACES = {"london": "LOC", "paris": "LOC", "berlin": "LOC", "rome": "LOC", "york": "LOC"}
ENTITIES = NAMES | PLACES


@cache
def encoder_folder(model_type: str = "bert", pooling: str = "mean", layers: int = 2) -> Path:
    """A tiny encoder with weights, the same for all tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="manyheads-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny_encoder_folder(folder, model_type=model_type, pooling=pooling, layers=layers)


def sentences(count: int, seed: int = 0, *, fields: Sequence[str] = ("label", "ner")) -> list[Any]:
    """Records of short sentences, one or two names or places in each; the same for a seed."""
    draw = random.Random(seed)
    records = []
    for _ in range(count):
        name, place = draw.choice(list(NAMES)), draw.choice(list(PLACES))
        shape = draw.randrange(4)
        tokens = [
            ["will", name, "eat", "in", place, "?"],
            [name, "lives", "in", place],
            ["where", "is", name, "?"],
            ["the", "weather", "in", place, "was", "very", "bad", "yesterday"],
        ][shape]
        record: dict[str, Any] = {"tokens": tokens}
        if "label" in fields:
            record["label"] = "question" if "?" in tokens else "statement"
        if "ner" in fields:
            record["ner"] = [f"B-{ENTITIES[t]}" if t in ENTITIES else "O" for t in tokens]
        records.append(record)
    return records


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a small run on data in `folder`, which are written if missing."""
    train_file, valid_file = folder / "train.jsonl", folder / "valid.jsonl"
    if "train_file" not in changes and not train_file.exists():
        write_records(train_file, sentences(14, 1))
    if "valid_file" not in changes and not valid_file.exists():
        write_records(valid_file, sentences(8, 2))
    return {
        "model_name": str(encoder_folder()),
        "train_file": str(train_file),
        "valid_file": str(valid_file),
        "save_dir": str(folder / "saved"),
        "max_length": 32,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-2,
        "num_epochs": 1,
        "threads": 1,
        "precision": "float32",
        "log_every": 1,
        **changes,
    }


def without_files(folder: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a small run without files."""
    values = settings(folder, train_file="", valid_file="", **changes)
    return {k: v for k, v in values.items() if k not in ("train_file", "valid_file")}


def config(folder: Path, **changes: Any) -> Config:
    """The configuration of a small run (see `settings`)."""
    return load_config(None, settings(folder, **changes))


def prepared(made: Config, spy: Spy | None = None) -> Run:
    """A run that has not started."""
    Path(made.save_dir).mkdir(parents=True, exist_ok=True)
    report = (spy or Spy()).message
    return prepare_run(made, resume=False, overwrite=True, report=report)


@contextmanager
def encoder_calls(*, training_only: bool = False) -> Iterator[list[Tensor]]:
    """Record the inputs of every pass of an encoder."""
    calls: list[Tensor] = []
    forward = Encoder.forward

    def recorded(self: Encoder, input_ids: Tensor, *args: Any, **options: Any) -> Any:
        if self.training or not training_only:
            calls.append(input_ids)
        return forward(self, input_ids, *args, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Encoder, "forward", recorded)
        yield calls


class Killed(BaseException):
    """Simulates a process that ends without saving."""


@dataclass
class Spy(Reporter):
    """A reporter that records its calls and can end the run after a step."""

    at_step: Callable[[int], None] = lambda step: None
    """Called with the number of optimiser steps done in this process."""
    messages: list[str] = field(default_factory=list)
    losses: list[tuple[str, float]] = field(default_factory=list)
    sentences: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    turns: list[str] = field(default_factory=list)
    """The task, or the first of the tasks, of each optimiser step."""
    history: list[Mapping[str, Any]] = field(default_factory=list)
    total_steps: int = 0
    ended: bool = False

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        self.total_steps = total_steps

    def step(self, report: StepReport) -> None:
        self.losses.append((report.task, report.loss))
        self.sentences[report.task] = self.sentences.get(report.task, 0) + report.sentences
        self.tokens[report.task] = self.tokens.get(report.task, 0) + report.tokens
        if report.steps:
            self.turns.append(report.task)
            self.at_step(len(self.turns))

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        self.history = list(history)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def end(self) -> None:
        self.ended = True

    def said(self, part: str) -> bool:
        """Return whether a message contained this part."""
        return any(part in message for message in self.messages)


def run(folder: Path, **changes: Any) -> tuple[TrainResult, Spy]:
    """Train a small model from the beginning."""
    spy = Spy()
    return train(config(folder, **changes), reporter=spy), spy


def digest(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file under a folder, without lock files."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".manyheads.")
    }


def log_lines(save_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of the metrics log, without the seconds."""
    lines = (Path(save_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def spoil(monkeypatch: pytest.MonkeyPatch, *calls: int, value: float = math.nan) -> None:
    """Make some calls of a classification head's loss, counted from 1, not finite."""
    done = [0]
    right: Callable[..., Tensor] = ClassificationHead.loss

    def wrong(self: ClassificationHead, logits: Tensor, targets: Tensor) -> Tensor:
        done[0] += 1
        return right(self, logits, targets) * (value if done[0] in calls else 1.0)

    monkeypatch.setattr(ClassificationHead, "loss", wrong)
