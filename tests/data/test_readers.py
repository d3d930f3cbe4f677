"""Readers: every format gives the same records, streams, and goes on after an error."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from every_format import TAGS, TOKENS, WRITERS, write
from files import message, read
from manyheads.data.readers import FORMATS, MAX_RECORD_BYTES, Layout, Row, read_rows
from manyheads.errors import DataError


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_tokens_and_tags(name: str, tmp_path: Path) -> None:
    rows = read(WRITERS[name](tmp_path))
    assert [(row["tokens"], row["ner"]) for row in rows] == list(zip(TOKENS, TAGS, strict=True))


@pytest.mark.parametrize("name", WRITERS)
def test_reading_is_lazy(name: str, tmp_path: Path) -> None:
    rows = read_rows(WRITERS[name](tmp_path))
    assert isinstance(rows, Iterator)
    assert list(next(rows).fields["tokens"]) == TOKENS[0]


def test_a_row_knows_its_place(tmp_path: Path) -> None:
    lines = write(tmp_path / "x.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')
    assert [row.where for row in read_rows(lines)] == [f"{lines}:1", f"{lines}:3"]
    items = write(tmp_path / "x.json", '[\n {"text": "a"},\n\n {"text": "b"}]')
    places = [row.where for row in read_rows(items)]
    assert places == [f"{items}:2 (record 1)", f"{items}:4 (record 2)"]
    cells = write(tmp_path / "x.csv", 'text\n"a\nb"\n\nc\n')
    assert [row.line for row in read_rows(cells)] == [2, 5]
    columns = write(tmp_path / "x.conll", "# id = 1\na\tO\nb\tO\n\n\nc\tO\n")
    assert [row.line for row in read_rows(columns)] == [2, 6]
    assert Row("hub", 3, "record", {}).where == "hub record 3"


# Recognising the format of a file.


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.jsonl", '[{"text": "a"}]', "the ending is '.jsonl' but the content is a JSON list"),
        ("x.parquet", "text\na\n", "the ending is '.parquet' but the content is something else"),
        ("x.csv", b"PAR1", "the ending is '.csv' but the content is Parquet"),
        ("x.txt", "One sentence.\nAnother.\n", "lines of text without columns of tokens and tags"),
        ("x.txt", "good bad\n", "lines of text without columns"),
        ("x.dat", "text\na\n", "the ending '.dat' says nothing about the format"),
        ("x", "text\na\n", "no file ending; expected one of: a JSON list (.json), JSON lines ("),
    ],
)
def test_content_and_name_have_to_agree(
    name: str, content: str | bytes, expected: str, tmp_path: Path
) -> None:
    assert expected in message(write(tmp_path / name, content))


def test_a_format_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "good O\nbad O\n")
    assert read(path, format="text") == [{"text": "good O"}, {"text": "bad O"}]
    assert read(path, format="conll") == [{"tokens": ["good", "bad"], "ner": ["O", "O"]}]
    with pytest.raises(DataError, match=r"unknown format 'colnn' \(did you mean \"conll\"\?\)"):
        read_rows(path, layout=Layout("colnn"))
    assert set(FORMATS) >= {"json", "jsonl", "csv", "tsv", "conll", "parquet", "seq", "datasets"}


def test_pipes_and_devices_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    assert "a device, pipe or socket; expected a file or folder" in message(tmp_path / "x.json")
    assert "a device, pipe or socket" in message("/dev/zero")


def test_names_that_are_not_unicode_are_shown_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:  # noqa: PTH123 -- a name that pathlib would decode
        file.write(b"{}\n[]")
    text = message(os.fsdecode(path))
    assert "caf\\udce9.jsonl:2: the record is []" in text
    text.encode()


# Continuing after errors, and limits.


def test_line_based_formats_continue_after_a_bad_record(tmp_path: Path) -> None:
    cases = {
        "x.jsonl": b'{"text": "a"}\n{\n\xff\n[]\n{"text": "b"}\n',
        "x.csv": b'text,label\na,\n"b"c,d\n\xff,x\nx\nb,\n',
        "x.conll": b"a\tO\n\nx\ny\tO\n\n\xff\tO\n\nz\n\nb\tO\n",
        "x.json": b'[{"text": "a"}, 1, [], null, {"text": "b"}]',
    }
    for name, content in cases.items():
        errors: list[DataError] = []
        rows = list(read_rows(write(tmp_path / name, content), on_error=errors.append))
        assert len(rows) == 2, name
        assert len(errors) == 3, name
        message_of_first = message(tmp_path / name)
        assert message_of_first == str(errors[0])


def test_a_file_with_only_broken_records_is_not_reported_as_empty(tmp_path: Path) -> None:
    errors: list[DataError] = []
    assert not list(read_rows(write(tmp_path / "x.jsonl", "{\n[]"), on_error=errors.append))
    assert len(errors) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"text": "' + "a" * 5000 + '"}\n{"text": "b"}\n'),
        ("y.jsonl", '{"text": "b"}\n{"text": "' + "a" * 5000),
        ("x.json", '[{"text": "' + "a" * 5000 + '"}]'),
        ("y.json", '[{"text": "' + "é" * 600 + '"}]'),
        ("z.json", '[{"text": "a' + "a" * 300_000),
        ("x.csv", 'text\n"' + "a\n" * 3000 + '"\n'),
        ("x.conll", "a\tO\n" * 3000),
        ("x.txt", "a\tO\n" * 3000),
    ],
)
def test_records_have_a_largest_size(name: str, content: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, content)
    assert "a record of more than 1,000 bytes begins here" in message(path, limit_bytes=1000)
    assert read(path) if name != "y.jsonl" and name != "z.json" else message(path)


def test_reading_continues_after_a_line_that_is_too_long(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "' + "a" * 5000 + '"}\n{"text": "b"}\n\xff\n')
    errors: list[DataError] = []
    rows = list(read_rows(path, limit_bytes=1000, on_error=errors.append))
    assert [(row.line, row.fields) for row in rows] == [(2, {"text": "b"})]
    assert "x.jsonl:3: byte" in str(errors[1]) or len(errors) == 2


def test_the_standard_limit_holds_a_text_of_a_megabyte(tmp_path: Path) -> None:
    assert MAX_RECORD_BYTES > 2**20
    path = write(tmp_path / "x.jsonl", json.dumps({"text": "a" * 2**20}))
    assert len(read(path)[0]["text"]) == 2**20


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.conll"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    words = "word" * 100
    record = {"x.csv": f"{words}\n", "x.conll": f"{words}\tO\n\n"}.get(
        name, f'{{"text": "{words}"}}' + (",\n" if name == "x.json" else "\n")
    )
    head = {"x.json": "[", "x.csv": "text\n"}.get(name, "")
    path = write(tmp_path / name, head + record * 6000 + ("{}]" if name == "x.json" else ""))
    tracemalloc.start()
    try:
        rows = sum(1 for _ in read_rows(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows >= 6000
    assert peak < path.stat().st_size / 2


def test_of_a_folder_without_a_layout_the_files_are_named(tmp_path: Path) -> None:
    for name in ("en.yml", "de.yml", "notes.doc"):
        (tmp_path / name).write_text("nlu: []")
    files = f"{tmp_path / 'de.yml'}, {tmp_path / 'en.yml'}"
    with pytest.raises(DataError, match=rf"Name its files: {re.escape(files)}\.$"):
        list(read_rows(tmp_path))
    for name in ("en.yml", "de.yml"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"Name one file, or a folder that has these\.$"):
        list(read_rows(tmp_path))


def test_of_a_clone_of_the_hub_the_files_below_are_named_and_no_readme(tmp_path: Path) -> None:
    for name in (
        "README.md", "LICENSE.txt", "dataset_infos.json", ".git/x.json", "data/train.jsonl",
        "data/test.csv.gz", "data/readme.txt", "data/raw/x.csv", "slots/seq.in", "z.json",
    ):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a")
    named = ", ".join(
        str(tmp_path / name) for name in ("slots", "z.json", "data/test.csv.gz", "data/train.jsonl")
    )
    with pytest.raises(DataError, match=rf"Name its files: {re.escape(named)}\.$"):
        list(read_rows(tmp_path))
