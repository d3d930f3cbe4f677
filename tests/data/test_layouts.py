"""Layouts that a configuration states for all its files, or for those of one task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manyheads import check, evaluate
from manyheads.config import make_config
from manyheads.data.hold_out import splits_of, with_parts, write_parts
from manyheads.data.readers import Layout, read_rows
from manyheads.errors import ConfigError
from training_setup import run, sentences, settings, write_records


def tables(folder: Path) -> dict[str, Any]:
    """Two tasks, each with files of its own kind: a table without `text`, and CoNLL columns."""
    tasks: dict[str, Any] = {
        "intent": {"kind": "classification", "map": {"utterance": "text", "goal": "label"}},
        "ner": {"kind": "tagging", "format": "conll", "map": {"2": "tokens", "1": "ner"}},
    }
    for part, seed in (("train", 1), ("valid", 2)):
        records = sentences(9, seed)
        lines = [f"{' '.join(r['tokens'])}\t{r['label']}" for r in records]
        rows = ["\n".join(map(" ".join, zip(r["ner"], r["tokens"], strict=True))) for r in records]
        for task, ending, text in (
            ("intent", "tsv", "\n".join(["utterance\tgoal", *lines])),
            ("ner", "txt", "\n\n".join(rows)),
        ):
            path = folder / f"{task}-{part}.{ending}"
            path.write_text(text + "\n", encoding="utf-8")
            tasks[task][f"{part}_file"] = str(path)
    return tasks


def of(**values: Any) -> Layout:
    return Layout.of(make_config(values))


def test_tasks_with_files_of_different_layouts_are_checked_trained_and_evaluated(
    tmp_path: Path,
) -> None:
    tasks = tables(tmp_path)
    config = make_config(
        {**settings(tmp_path), "train_file": None, "valid_file": None, "tasks": tasks}
    )
    report = check(config=config)
    assert [sum(t.labelled for t in file.tasks.values()) for file in report.files] == [9] * 4
    run(tmp_path, train_file=None, valid_file=None, tasks=tasks)
    assert set(evaluate(tmp_path / "saved" / "best").kinds) == {"intent", "ner"}


def test_the_held_out_part_of_a_tasks_own_file_has_the_standard_layout(tmp_path: Path) -> None:
    rows = [{"body": f"text {'x' * i}", "topic": "ab"[i % 2]} for i in range(40)]
    task: dict[str, Any] = {"kind": "classification", "map": {"body": "text", "topic": "label"}}
    task["train_file"] = str(write_records(tmp_path / "x.jsonl", rows))
    values: dict[str, Any] = {"save_dir": str(tmp_path / "run"), "tasks": {"x": task}}
    config = make_config(values)
    (split,) = splits_of(config)
    assert write_parts(config, split).held_out == 6
    config = with_parts(config)
    assert config.tasks["x"].map is None
    for path in (*config.train_files(), *config.valid_files()):
        row = next(read_rows(path, layout=Layout.of(config)))
        assert row.fields.keys() == {"text", "label"}
    other = {"kind": "classification", "train_file": task["train_file"], "map": task["map"]}
    values["tasks"] = {"x": task, "y": {**other, "valid_file": "y.csv"}}
    with pytest.raises(ConfigError, match=r"`tasks\.y\.map` is set, and x has no validation data"):
        splits_of(make_config(values))


def test_a_file_of_a_task_has_the_common_layout_unless_the_task_has_its_own(tmp_path: Path) -> None:
    layout = of(
        text_field="body", format="jsonl", train_file="a", valid_file="b",
        tasks={
            "x": {"kind": "classification", "train_file": "x", "format": "csv"},
            "y": {"kind": "classification", "train_file": "y", "map": {"kind": "label"}},
            "z": {"kind": "classification", "train_file": "z", "map": {}},
        },
    )  # fmt: skip
    assert layout.of_file("a") is layout.of_file("b") is layout
    assert layout.of_file("x") == Layout("csv", {"body": "text"})
    assert layout.of_file("y") == Layout("jsonl", {"kind": "label"})
    assert layout.of_file("z") == Layout("jsonl")
    path = write_records(tmp_path / "z.jsonl", [{"text": "a", "body": "b"}])
    fields = next(read_rows(path, layout=of(text_field="body", train_file="a"))).fields
    assert fields["text"] == "b"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"tasks": {"x": {"kind": "classification", "train_file": "a", "format": "csv"}}},
            "a has one layout by the options of task 'x', and another by the common options",
        ),
        (
            {
                "tasks": {
                    "x": {"kind": "classification", "train_file": "c", "format": "csv"},
                    "y": {"kind": "classification", "valid_file": "c"},
                }
            },
            "c has one layout by the options of task 'y', and another by task 'x'",
        ),
        (
            {"tasks": {"x": {"kind": "pair", "train_file": "c", "map": {"d": "e", "f": "e"}}}},
            r"'f' is to be read as 'e', but so is another.*Correct `tasks\.x\.map`",
        ),
        (
            {"tasks": {"x": {"kind": "classification", "map": {"d": "label"}}}},
            "`map` is for the task's own files, and it has none; set its `train_file`",
        ),
        (
            {"text_field": "a", "map": {"a": "label"}},
            "the field 'a' is to be read as 'label', but also as 'text'",
        ),
    ],
)
def test_a_layout_that_contradicts_another_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(train_file="a", valid_file="b", **values)


def test_roles_are_joined_in_the_files_of_one_task_or_of_all(tmp_path: Path) -> None:
    for name in ("common", "own"):
        text = '## intent:fly\n- to [Oslo]{"entity": "city", "role": "to"}\n'
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
    common, own = str(tmp_path / "common.md"), str(tmp_path / "own.md")
    tasks = {"ner": {"kind": "tagging", "train_file": own, "role_separator": ":"}}
    for separator, expected in (("_", "city_to"), (None, "city")):
        layout = of(train_file=common, tasks=tasks, role_separator=separator)
        found = [next(read_rows(file, layout=layout)) for file in (common, own)]
        types = [row.fields["entities"][0]["label"] for row in found]
        assert types == [expected, "city:to"]
    assert Layout(role_separator="_").settings() == {"role_separator": "_"}
