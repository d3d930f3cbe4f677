"""A trained and exported model that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an intent and entities with float32 and int8 graphs, never to be changed."""
    # Here, since other tests of this folder run where neither is installed.
    from manyheads.exporting import export_model
    from training_setup import run, sentences, write_records

    folder = tmp_path_factory.mktemp("run")
    write_records(folder / "train.jsonl", sentences(80, 1))
    tasks = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging", "decoder": "crf"}}
    run(folder, tasks=tasks, num_epochs=3, threads=1)
    export_model(folder / "saved", threads=1, limit=100)
    return folder / "saved" / "best"
