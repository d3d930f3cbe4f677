"""Texts to label next are uncertain ones that represent others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from manyheads.cli import main
from manyheads.errors import RequestError
from manyheads.evaluation.selection import spread_rows, uncertainty
from manyheads.tasks import ClassResult, Entity, Prediction, TaggingResult
from training_setup import run, sentences, write_records


def test_each_group_of_uncertain_texts_contributes_one_and_certain_ones_none() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(6, dtype=np.float32), 10, axis=0)
    vectors = groups + random.normal(0, 0.02, groups.shape).astype(np.float32)
    weights = np.where(np.arange(60) < 30, 0.5, 1e-6)
    chosen = spread_rows(vectors, weights, 3, seed=1)
    assert sorted(i // 10 for i in chosen) == [0, 1, 2]
    assert spread_rows(vectors, weights, 3, seed=1) == chosen


def test_copies_of_a_text_do_not_fill_the_selection() -> None:
    vectors = np.concatenate([np.ones((20, 4)), np.eye(4)]).astype(np.float32)
    weights = np.full(24, 0.5)
    chosen = spread_rows(vectors, weights, 5, seed=0)
    assert set(range(20, 24)) < set(chosen)
    assert len(set(chosen)) == 5


def test_an_answer_is_as_uncertain_as_its_least_certain_part() -> None:
    entities = TaggingResult((Entity("a", "X", 0, 1, 0.6), Entity("b", "X", 2, 3, 0.9)), ())
    both: dict[str, Any] = {"intent": ClassResult("x", 0, 0.8), "ner": entities}
    assert uncertainty(Prediction("a b", both)) == pytest.approx(0.4)
    assert np.isnan(uncertainty(Prediction("a b", {"ner": TaggingResult((), ())})))
    # A text without words has no answer, which is not an unsure one.
    assert np.isnan(uncertainty(Prediction("", {"intent": ClassResult(None, None, None)})))


def test_the_command_and_the_function_write_records_to_label(tmp_path: Path) -> None:
    model = run(tmp_path / "model", num_epochs=1)[0].save_dir
    pool = write_records(tmp_path / "pool.jsonl", sentences(30, 9, fields=()))
    out = tmp_path / "chosen.jsonl"
    assert (
        main(
            ["data", "select", str(pool), "--model", str(model), "--count", "4", "--out", str(out)]
        )
        == 0
    )
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(lines) == 4
    found = manyheads.select(sentences(30, 9, fields=()), model, count=4, progress=False)
    assert [one.text for one in found.chosen] == [line["text"] for line in lines]
    assert found.chosen[0].uncertainty == lines[0]["uncertainty"]
    write_records(pool, [r | {"answer": "reject"} for r in sentences(30, 9, fields=())])
    assert manyheads.select(str(pool), model, count=4, progress=False).texts == found.texts
    with pytest.raises(RequestError, match=r"different texts?, and 500 are to be chosen"):
        manyheads.select(sentences(30, 9, fields=()), model, count=500, progress=False)


def test_pairs_of_one_first_text_are_different_for_a_model_of_pairs(tmp_path: Path) -> None:
    records = [
        {"text": f"{name} lives in {place}", "text2": second, "label": label, "who": name}
        for name in ("ann", "john")
        for place in ("london", "paris", "berlin", "rome")
        for second, label in ((f"who is in {place} ?", "same"), ("where is mary ?", "other"))
    ]
    write_records(tmp_path / "train.jsonl", records)
    write_records(tmp_path / "valid.jsonl", records)
    tasks = {"same": {"kind": "pair", "field": "label"}, "who": {"kind": "classification"}}
    model = run(tmp_path, tasks=tasks, num_epochs=1)[0].save_dir
    pool = [
        ("ann lives in rome", text) for text in ("a b", "where is she ?", "the weather was bad")
    ]
    found = manyheads.select([*pool, ("john", "mary")], model, count=3, progress=False)
    assert found.texts == 4
    assert all(0 < one.uncertainty < 1 for one in found.chosen)
    assert {(one["text"], one["text2"]) for one in found.records()} < {*pool, ("john", "mary")}
    assert "where is she ?" in found._repr_html_()
    # Other tasks and models do not read the second text.
    who = manyheads.select([*pool, ("john", "mary")], model, count=1, tasks=["who"], progress=False)
    assert who.texts == 2
    other = run(tmp_path / "single", num_epochs=1)[0].save_dir
    single = manyheads.select([*pool, ("john", "mary")], other, count=1, progress=False)
    assert single.texts == 2
    assert [*single.records()[0]] == ["text", "uncertainty"]
