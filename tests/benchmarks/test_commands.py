"""Benchmarks take the options that the documentation shows, and run the models of today."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import transfer
from benchmark_data import data_sets, tiny_study
from manyheads.inference import Runtime, load_model
from manyheads.inference.backends import pytorch
from manyheads.text import Batch
from rivals import padded_loop
from serving import served_model
from threads_per_batch import batch_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def calls() -> dict[str, set[str]]:
    """The options with which the pages call each script."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        shown = re.findall(r"^ *\$ (.*)|(?<!`)`([^`]+)`(?!`)", text, flags=re.MULTILINE)
        for command in (console or inline for console, inline in shown):
            # One may run another.
            *_, script = ["", *re.findall(r"python (benchmarks/\w+\.py)", command)]
            if script:
                options = {word for word in shlex.split(command) if word.startswith("--")}
                found[script] = found.get(script, set()) | options
    return found


CALLS = calls()


def test_the_pages_call_benchmarks() -> None:
    assert len(CALLS) > 15


@pytest.mark.parametrize("script", CALLS)
def test_a_benchmark_has_the_options_of_the_pages(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 0
    assert CALLS[script] <= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))


def test_the_padded_loop_answers_with_a_tagger_that_reads_the_shape_of_words() -> None:
    folder = served_model()
    trained = pytorch.load_trained(folder)
    assert trained.model.reads_word_features
    texts = ["john lives in paris", "where is mary ?", "will anna eat in rome ?"]
    *answers, embeddings = padded_loop(folder, trained, len(texts), 16)(texts)
    assert len(answers) == len(trained.model.heads)
    model = load_model(folder, Runtime("torch", threads=1))
    predictions = model.predictor.predict(texts, embed=True)
    np.testing.assert_allclose(embeddings, [p.embedding for p in predictions], atol=1e-5)


def test_a_batch_of_random_tokens_has_every_input_of_a_graph() -> None:
    feeds = batch_of(2, 8).feeds(field.name for field in fields(Batch))
    assert all(len(array) == 2 for array in feeds.values())


def test_a_report_of_transfer_is_written_with_settings_that_its_regime_alone_allows(
    tmp_path: Path,
) -> None:
    stsb = data_sets(tmp_path / "data") / "stsb"
    stsb.mkdir()
    for name in ("train", "test"):
        (stsb / f"{name}.csv").write_text("john eats,mary eats,4.0\na,bad rain,0.0\n")
    parts = tmp_path / "out" / "transfer-parts"
    parts.mkdir(parents=True)
    part = {"regime": "held", "seed": 1, "trained": 5, "minutes": 1.0, "epochs": 1}
    scores = dict.fromkeys(transfer.METRICS, 0.5)
    (parts / "held-1.json").write_text(json.dumps({**part, "scores": scores}))
    transfer.main(tiny_study(tmp_path, "--only", "held", "--set", "head_layers=1"))
    assert "| 50.0 |" in (tmp_path / "out" / "transfer.md").read_text()
