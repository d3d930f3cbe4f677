"""Records held out for validation: shares, copies and rare labels."""

from __future__ import annotations

import json
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import read, write
from manyheads.config import load_config
from manyheads.data.hold_out import (
    Labels,
    hold_out,
    labels_of,
    splits_of,
    text_key,
    with_parts,
    write_parts,
)
from manyheads.data.readers import in_memory
from manyheads.data.records import Record
from manyheads.errors import ConfigError, DataError
from manyheads.tasks import Pair, Span


def of_classes(*names: str) -> list[Labels]:
    return [frozenset({("topic", name)}) for name in names]


def record(text: str, **labels: Any) -> Record:
    return Record(text, None, labels, "line 1")


def test_each_label_has_its_share_and_a_few_records_where_it_has_ten() -> None:
    names = ["a"] * 100 + ["b"] * 40 + ["c"] * 10 + ["d"] * 4 + ["e"] * 3
    held = hold_out([str(i) for i in range(len(names))], of_classes(*names), 0.15)
    assert Counter(names[i] for i in held) == {"a": 15, "b": 6, "c": 2, "d": 1}


def test_entity_types_are_stratified_beside_classes() -> None:
    draw = random.Random(3)
    labels = [
        frozenset({("topic", draw.choice("ab")), ("ner", draw.choice(["X", "X", "X", "Y"]))})
        for _ in range(400)
    ]
    held = hold_out([str(i) for i in range(400)], labels, 0.2)
    totals = Counter(label for mine in labels for label in mine)
    share = Counter(label for i in held for label in labels[i])
    for label, total in totals.items():
        assert share[label] / total == pytest.approx(0.2, abs=0.06)


@given(st.lists(st.tuples(st.sampled_from("pqrstuvw"), st.sampled_from("abc")), max_size=60))
def test_copies_stay_together_and_no_label_loses_all_its_records(
    drawn: list[tuple[str, str]],
) -> None:
    keys, names = [key for key, _ in drawn], [name for _, name in drawn]
    held = hold_out(keys, of_classes(*names), 0.3)
    assert not {keys[i] for i in held} & {keys[i] for i in range(len(keys)) if i not in held}
    assert {names[i] for i in range(len(names)) if i not in held} == set(names)


def test_the_held_out_records_do_not_depend_on_the_order_of_the_data() -> None:
    keys = [f"text {i}" for i in range(50)]
    labels = of_classes(*("ab"[i % 2] for i in range(50)))
    backwards = hold_out(keys[::-1], labels[::-1], 0.2)
    assert {keys[i] for i in hold_out(keys, labels, 0.2)} == {keys[::-1][i] for i in backwards}


def test_another_seed_holds_out_other_records_of_the_same_labels() -> None:
    keys = [f"text {i}" for i in range(50)]
    labels = of_classes(*("ab"[i % 2] for i in range(50)))
    parts = [hold_out(keys, labels, 0.2, seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert [sum(i % 2 for i in part) for part in parts] == [5, 5, 5]


def test_near_copies_differ_only_in_case_punctuation_white_space_and_digits() -> None:
    key = text_key(record("Order 12: where is  it?"))
    assert key == text_key(record("order 345 - Where is it"))
    assert key != text_key(record("Order 12: where is she?"))
    assert text_key(record("?!")) != text_key(record("..."))
    assert text_key(record("warm ☀️")) == text_key(record("Warm!"))
    # Vowel signs are parts of words: day, donation.
    assert text_key(record("दिन")) != text_key(record("दान"))
    assert text_key(record("a", pair=Pair("b", "x"))) != text_key(record("a"))


def test_a_record_has_the_labels_of_all_its_tasks() -> None:
    spans = (Span(0, 1, "X"), Span(2, 3, "X"), Span(4, 5, "Y"))
    mixed = record("a b c", topic="t", ner=spans, price=2.5, tones=())
    assert labels_of(mixed) == {
        ("topic", "t"), ("ner", "X"), ("ner", "Y"), ("price", ""), ("tones", ""),
    }  # fmt: skip


def test_both_parts_are_written_and_replace_the_files(tmp_path: Path) -> None:
    rows = [{"text": f"text {'x' * i}", "label": "ab"[i % 2], "id": i} for i in range(40)]
    files = [write(tmp_path / "1.jsonl", *rows[:25]), write(tmp_path / "2.jsonl", *rows[25:])]
    tasks = {"topic": {"kind": "classification", "field": "label"}}
    config = load_config(None, {"files": files, "tasks": tasks, "save_dir": str(tmp_path / "run")})
    (split,) = splits_of(config)
    parts = write_parts(config, split)
    assert (parts.training, parts.held_out) == (34, 6)
    config = with_parts(config)
    assert config.files is None
    assert list(config.train_files()) == [str(split.train)]
    assert list(config.valid_files()) == [str(split.valid)]
    written = [
        json.loads(line)
        for path in (split.train, split.valid)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert sorted(one["text"] for one in written) == sorted(row["text"] for row in rows)
    assert all(one.keys() == {"text", "label"} for one in written)


def test_numbers_of_a_database_are_held_out_as_the_numbers_they_are(tmp_path: Path) -> None:
    values = {f"text {'x' * i}": Decimal(i) / 4 for i in range(20)}
    rows = [{"text": text, "price": value} for text, value in values.items()]
    tasks = {"price": {"kind": "regression", "field": "price"}}
    with in_memory(rows, "priced") as name:
        config = load_config(
            None, {"files": [name], "tasks": tasks, "save_dir": str(tmp_path / "run")}
        )
        (split,) = splits_of(config)
        assert write_parts(config, split).held_out == 3
    written = [*read(split.train), *read(split.valid)]
    assert {one["text"]: one["price"] for one in written} == values


def test_named_validation_data_are_used_unchanged(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(10)]
    values = {
        "files": [write(tmp_path / "1.jsonl", *rows)],
        "valid_file": write(tmp_path / "2.jsonl", *rows[:4]),
        "tasks": {"topic": {"kind": "classification", "field": "label"}},
        "save_dir": str(tmp_path / "run"),
    }
    config = load_config(None, values)
    parts = write_parts(config, *splits_of(config))
    assert (parts.training, parts.held_out) == (10, 4)


@pytest.mark.parametrize(("share", "least"), [(0.15, 4), (0.2, 3), (0.3, 2)])
def test_too_few_records_to_hold_one_out_are_refused(
    tmp_path: Path, share: float, least: int
) -> None:
    def write_labelled(number: int, *, distinct: bool = True) -> None:
        records = [
            {"text": f"{label} {'pqrstu'[i * distinct]}", "label": label}
            for label in "xy"
            for i in range(number)
        ]
        values = {
            "files": [write(tmp_path / "1.jsonl", *records)],
            "tasks": {"topic": {"kind": "classification", "field": "label"}},
            "save_dir": str(tmp_path / "run"),
            "hold_out": share,
        }
        write_parts(load_config(None, values), *splits_of(load_config(None, values)))

    few = rf"\d records with \d different texts, .* at least {least} records, .*: `valid_file`"
    with pytest.raises(DataError, match=few):
        write_labelled(least - 1)
    with pytest.raises(DataError, match=few):
        write_labelled(least, distinct=False)
    write_labelled(least)


def test_a_layout_that_only_some_files_would_keep_is_refused() -> None:
    values = {
        "text_field": "sentence",
        "tasks": {
            "topic": {"kind": "classification", "train_file": "a.jsonl"},
            "ner": {"kind": "tagging", "train_file": "b.jsonl", "valid_file": "c.jsonl"},
        },
    }
    with pytest.raises(ConfigError, match=r"`text_field` is set, and topic has no validation"):
        splits_of(load_config(None, values))
    del values["tasks"]["ner"]["valid_file"]  # type: ignore[index]
    first, second = splits_of(load_config(None, values))
    assert (first.tasks, second.tasks) == (("topic",), ("ner",))
