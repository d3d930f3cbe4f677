"""The benchmark of few sentences draws, scores and shows what it should."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import few
from benchmark_data import data_sets

pytestmark = pytest.mark.soak


def test_a_draw_has_so_many_sentences_of_each_class_and_none_twice(tmp_path: Path) -> None:
    data = data_sets(tmp_path)
    split = few.draw(data, "banking77-3", 1)
    assert set(Counter(r["label"] for r in split.train).values()) == {3}
    # The sentences of the small files repeat, so they are told apart as objects.
    assert not {id(r) for r in split.train} & {id(r) for r in split.valid}
    assert few.draw(data, "banking77-3", 1) == split
    assert len(few.draw(data, "snips-7", 1).train) == 7


def test_a_sentence_counts_as_right_with_its_class_and_all_its_entities() -> None:
    gold = [
        {"label": "a", "ner": ["B-x", "I-x", "O"]},
        {"label": "b", "ner": ["O", "B-x"]},
    ]
    answers = [{"label": "a", "ner": ["B-x", "O", "O"]}, {"label": "b", "ner": ["O", "B-x"]}]
    assert few.scores(gold, answers) == {"accuracy": 1.0, "f1": 0.5, "frame": 0.5}
    assert few.scores(gold, gold) == {"accuracy": 1.0, "f1": 1.0, "frame": 1.0}


def test_results_that_are_there_are_shown_and_not_computed_again(tmp_path: Path) -> None:
    data = data_sets(tmp_path / "data")
    lines = [
        {"set": "banking77-3", "system": "ours", "draw": n, "processor_seconds": 9.0,
         "scores": {"accuracy": accuracy}}
        for n, accuracy in ((1, 0.8), (2, 0.9))
    ]  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    (out / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    few.main(
        ["--data", str(data), "--out", str(out), "--only", "banking77-3", "--systems", "ours",
         "--draws", "2"]
    )  # fmt: skip
    assert "| banking77-3 | Manyheads | 2 | 85.0 ± 63.5 |  |  | 9 |" in (out / "few.md").read_text()
    assert (out / "few.svg").read_text().startswith("<?xml")
