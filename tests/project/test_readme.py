"""The examples in the README work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import manyheads
from manyheads.config import load_config
from manyheads.data.readers import Row
from manyheads.data.records import RecordParser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs_and_its_comments_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = blocks("python")
    for name, count in (("train", 320), ("valid", 40)):
        records = json.loads((ROOT / "src" / "data" / f"{name}.json").read_text(encoding="utf-8"))
        (tmp_path / f"{name}.json").write_text(json.dumps(records[:count]), encoding="utf-8")
    real_train = manyheads.train

    def train_on_a_part(config: str, **settings: Any) -> Any:
        part: dict[str, Any] = {"train_file": "train.json", "valid_file": "valid.json"}
        # The lower layers read each sentence once.
        quick = {"num_epochs": 2, "freeze": "layers:4", "learning_rate": 3e-4}
        quick |= {"head_learning_rate": 3e-3, "threads": 1}
        return real_train(ROOT / config, **{**settings, **part, **quick})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manyheads, "train", train_on_a_part)
    values: dict[str, Any] = {}
    code = example.replace("src/data/valid.json", "valid.json")
    exec(compile(code, "README.md", "exec"), values)
    shown = re.findall(r"^(prediction\b.*?)  # (.*)$", example, flags=re.MULTILINE)
    assert len(shown) == 3
    for expression, comment in shown:
        assert eval(expression, values) == eval(comment)
    assert values["report"].evaluation["tasks"]["ner"]["f1"] > 0.5


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    (tmp_path / "config.yaml").write_text(example, encoding="utf-8")
    config = load_config(tmp_path / "config.yaml")
    assert list(config.tasks) == ["intent", "slots"]


def test_the_example_records_can_be_read() -> None:
    (example,) = blocks("json")
    tasks = load_config(None).tasks
    for number, line in enumerate(example.splitlines(), 1):
        record = RecordParser(tasks, {})(Row("README.md", number, "line", json.loads(line)))
        assert set(record.labels) == {"classification", "ner"}


def test_every_page_that_is_linked_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
