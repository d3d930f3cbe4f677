"""Command lines run in the process of the tests, with or without a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Run
from fake_predictor import FakePredictor
from manyheads.cli import main
from manyheads.inference import Runtime


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*arguments: str, **options: Any) -> SimpleNamespace:
        status = main(arguments, **options)
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Give this process some standard input; until then, and without any, it has none."""
    with ExitStack() as opened:

        def give(data: bytes) -> None:
            path = tmp_path / "stdin"
            path.write_bytes(data)
            stream = opened.enter_context(path.open(encoding="utf-8"))
            monkeypatch.setattr("sys.stdin", stream)

        null = opened.enter_context(Path(os.devnull).open(encoding="utf-8"))
        monkeypatch.setattr("sys.stdin", null)
        yield give


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePredictor:
    """Replace the loaded predictor by one that needs no model."""
    fake = FakePredictor()

    def load_model(model: str, runtime: Runtime, **options: Any) -> SimpleNamespace:
        fake.loaded = {"model": model, "runtime": runtime, **options}
        return SimpleNamespace(predictor=fake)

    monkeypatch.setattr("manyheads.inference.load_model", load_model)
    monkeypatch.chdir(tmp_path)
    return fake
