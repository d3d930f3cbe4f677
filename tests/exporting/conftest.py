"""A trained and an exported model that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from manyheads.exporting import export_model
from training_setup import run, sentences, write_records


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best model of a small run, never to be changed."""
    folder = tmp_path_factory.mktemp("run")
    tasks = {
        "intent": {"kind": "classification"},
        "ner": {"kind": "tagging", "decoder": "crf", "word_features": "on"},
    }
    write_records(folder / "train.jsonl", sentences(120, 1))
    write_records(folder / "valid.jsonl", sentences(40, 2))
    run(folder, tasks=tasks, num_epochs=4, threads=1)
    return folder / "saved" / "best"


@pytest.fixture
def best(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model."""
    return shutil.copytree(trained, tmp_path / "best")


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with its float32 graph, never to be changed."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "best")
    export_model(folder, formats=("float32",), threads=1)
    return folder
