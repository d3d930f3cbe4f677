"""Readers: every format gives the same records, streams, and reports the place of an error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import string
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from files import message, read
from manyheads.data.readers import (
    FORMATS,
    MAX_RECORD_BYTES,
    Layout,
    Row,
    is_dataset_name,
    json_stream,
    read_rows,
)
from manyheads.errors import DataError

QUICK = settings(max_examples=40)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


# Properties that all formats share.

TOKENS = [["John", "lives", "in", "Paris", "."], ["#", "é", "日本"]]
TAGS = [["B-PER", "O", "O", "B-LOC", "O"], ["O", "I-X", "B-X"]]


def as_objects() -> list[dict[str, Any]]:
    return [{"tokens": t, "ner": n} for t, n in zip(TOKENS, TAGS, strict=True)]


def write_seq_folder(path: Path, end: str = "\n") -> Path:
    path.mkdir()
    for name, rows in (("seq.in", TOKENS), ("seq.out", TAGS), ("label", [["a"], ["b c"]])):
        write(path / name, "".join(f"{' '.join(row)} {end}" for row in rows))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "json": lambda p: write(p / "x.json", json.dumps(as_objects(), indent=2, ensure_ascii=False)),
    "json lines": lambda p: write(p / "x.jsonl", json_lines()),
    "json lines in .json": lambda p: write(p / "x.json", json_lines()),
    "crlf": lambda p: write(p / "x.ndjson", json_lines("\r\n")),
    "conll": lambda p: write(p / "x.conll", conll("\t")),
    "conll crlf": lambda p: write(p / "x.bio", conll("\t").replace("\n", "\r\n")),
    "conll spaces": lambda p: write(p / "x.iob", conll(" ")),
    "conll in .txt": lambda p: write(p / "x.txt", conll("\t")),
    "bom": lambda p: write(p / "x.annotated", b"\xef\xbb\xbf" + conll("\t").encode()),
    "folder": lambda p: write_seq_folder(p / "x"),
    "folder crlf": lambda p: write_seq_folder(p / "x", "\r\n"),
    "parquet": lambda p: write_parquet(p / "x.parquet", {"tokens": TOKENS, "ner": TAGS}),
}


def json_lines(end: str = "\n") -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + end for item in as_objects())


def conll(separator: str) -> str:
    sentences = [
        "".join(f"{token}{separator}{tag}\n" for token, tag in zip(t, n, strict=True))
        for t, n in zip(TOKENS, TAGS, strict=True)
    ]
    return "\n".join(sentences)


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


# Round trips under any Unicode.

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
text_without_nul = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
token = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda t: len(t.split()) == 1 and t == t.split()[0] and "\0" not in t and t != "-DOCSTART-"
)
tag = st.sampled_from(["O", "B-x", "I-é", "S-日"])
sentence = st.lists(st.tuples(token, tag), min_size=1, max_size=5)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
json_object = st.dictionaries(any_text, json_value, max_size=4)


@given(st.lists(json_object, min_size=1, max_size=5), st.booleans(), st.sampled_from(["", "\r"]))
@QUICK
def test_json_lines_round_trip(folder: Path, items: list[Any], ascii: bool, cr: str) -> None:
    text = "".join(json.dumps(item, ensure_ascii=ascii) + cr + "\n" for item in items)
    assert read(write(folder / "x.jsonl", text)) == items


@given(
    st.lists(json_object, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, 0, 3]),
    st.integers(1, 40),
)
@QUICK
def test_json_list_round_trip_whatever_the_window(
    folder: Path, items: list[Any], ascii: bool, indent: int | None, chunk: int
) -> None:
    path = write(folder / "x.json", json.dumps(items, ensure_ascii=ascii, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert read(path) == items


@given(st.lists(json_object, min_size=1, max_size=3), st.integers(1, 40), st.data())
@QUICK
def test_a_broken_json_list_is_broken_where_the_json_module_finds_it(
    folder: Path, items: list[Any], chunk: int, data: st.DataObject
) -> None:
    text = json.dumps(items, indent=1)
    start = data.draw(st.integers(1, len(text)))
    cut = data.draw(st.integers(0, 2))
    text = (
        text[:start]
        + data.draw(st.sampled_from(["", "]", "{", ",", '"', "\\", "-", "é"]))
        + (text[start + cut :])
    )
    try:
        expected: Any = json.loads(text)
    except json.JSONDecodeError as error:
        expected = error
    found: Any
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        try:
            found = read(write(folder / "broken.json", text))
        except DataError as error:
            found = str(error)
    if isinstance(expected, json.JSONDecodeError):
        place = re.search(r":([0-9]+)[ :].*broken JSON at column ([0-9]+)", str(found))
        is_no_object = "the record is" in str(found)
        assert is_no_object or (
            place and [*map(int, place.groups())] == ([expected.lineno, expected.colno])
        )
    else:
        assert found == expected or "the record is" in found or "no record" in found


@given(st.lists(st.tuples(text_without_nul, text_without_nul), min_size=1, max_size=5))
@example([("a\r\nb", "\r"), ('"', ""), (",", "\t")])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
@QUICK
def test_delimited_round_trip(folder: Path, ending: str, items: list[tuple[str, str]]) -> None:
    # Some tools do not quote TSV: after a quote at the start of a cell, a line with as many cells
    # as the header is a row.
    assume(
        ending == "csv" or not any("\t" in text and "\n" in text for pair in items for text in pair)
    )
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter="," if ending == "csv" else "\t")
    writer.writerows([("text", "label"), *items])
    path = write(folder / f"x.{ending}", out.getvalue())
    expected = [{"text": text, "label": label or None} for text, label in items if text or label]
    if not expected:
        assert "no record" in message(path)
    else:
        assert read(path) == expected


@given(st.lists(sentence, min_size=1, max_size=4), st.integers(0, 2))
@example([[("#", "O"), ("#x", "O")]], 0)
@QUICK
def test_conll_round_trip(folder: Path, sentences: list[Any], more: int) -> None:
    # Only the file's own byte-order mark is removed, not one that is part of the first token.
    text = "\ufeff" + "\n\n".join(
        "\n".join("\t".join([token, *["_"] * more, tag]) for token, tag in pairs)
        for pairs in sentences
    )
    rows = read(write(folder / "x.conll", text))
    assert [list(zip(row["tokens"], row["ner"], strict=True)) for row in rows] == sentences
    assert all(
        row.keys() == {"tokens", "ner", *[f"col{i + 2}" for i in range(more)]} for row in rows
    )


@given(st.lists(sentence, min_size=1, max_size=4))
@QUICK
def test_seq_folder_round_trip(folder: Path, sentences: list[Any]) -> None:
    (folder / "seq").mkdir(exist_ok=True)
    columns = [[token for token, _ in s] for s in sentences], [[t for _, t in s] for s in sentences]
    for name, rows in zip(("seq.in", "seq.out"), columns, strict=True):
        write(folder / "seq" / name, "\ufeff" + "\n".join(" ".join(row) for row in rows))
    write(folder / "seq" / "label", "x y\n" * len(sentences))
    rows = read(folder / "seq")
    assert [list(zip(row["tokens"], row["ner"], strict=True)) for row in rows] == sentences
    assert {row["label"] for row in rows} == {"x y"}


@given(st.lists(any_text, min_size=1, max_size=5))
@settings(max_examples=25)
def test_parquet_round_trip(folder: Path, texts: list[str]) -> None:
    path = write_parquet(folder / "x.parquet", {"text": texts, "label": range(len(texts))})
    assert read(path) == [{"text": text, "label": i} for i, text in enumerate(texts)]


@given(st.lists(text_without_nul.filter(lambda t: t.strip() and "\n" not in t), min_size=1))
@QUICK
def test_plain_text_round_trip(folder: Path, texts: list[str]) -> None:
    path = write(folder / "x.txt", "\ufeff" + "".join(f"{text}\n" for text in texts))
    expected = [text.removesuffix("\r") for text in texts]
    assert read(path, format="text") == [{"text": text} for text in expected]


# Whatever a file holds, the only error is a DataError.

ENDINGS = [".json", ".jsonl", ".csv", ".tsv", ".conll", ".txt", ".parquet"]
FRAGMENTS = [
    b'[{"text": "a"}', b'{"text": "\\ud8', b"]", b"[", b"{", b",", b'"', b"\n", b"\n\n", b"\t",
    b"text,label\n", b"text\tlabel\n", b"a\tO", b"#", b"-DOCSTART-", b"\xef\xbb\xbf", b" ",
    b"\xff\xfe", b"PAR1", b"\0", b"\r", b"\r\n", b"\xe9", b"9" * 5000, b"1e999",
    b"NaN", b"-", b"\\", b"tru",
]  # fmt: skip
anything = st.binary(max_size=200) | st.lists(
    st.sampled_from(FRAGMENTS) | st.binary(max_size=4), max_size=12
).map(b"".join)


@given(anything, st.booleans())
@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=50)
def test_random_bytes_raise_nothing_but_data_errors(
    folder: Path, ending: str, content: bytes, goes_on: bool
) -> None:
    path = write(folder / f"random{ending}", content)
    errors: list[DataError] = []
    try:
        for row in read_rows(path, on_error=errors.append if goes_on else None):
            assert isinstance(row, Row)
    except DataError as error:
        errors.append(error)
    assert all(str(error).startswith(str(path)) for error in errors)


@given(st.data())
@pytest.mark.parametrize("name", ["json", "json lines", "conll", "folder", "parquet"])
@settings(max_examples=25)
def test_damaged_files_raise_nothing_but_data_errors(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    path = WRITERS[name](tmp_path_factory.mktemp("damaged"))
    target = (
        path / data.draw(st.sampled_from(["seq.in", "seq.out", "label"]))
        if (path.is_dir())
        else path
    )
    content = bytearray(target.read_bytes())
    start = data.draw(st.integers(0, len(content)))
    content[start : start + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    target.write_bytes(content)
    errors: list[DataError] = []
    try:
        for row in read_rows(path):
            assert isinstance(row, Row)
    except DataError as error:
        errors.append(error)
    assert all(str(path) in str(error) for error in errors)


# Bad files, each with its message.


def test_missing_files_and_folders_suggest_similar_names(tmp_path: Path) -> None:
    write(tmp_path / "train.json", "[]")
    text = message(tmp_path / "trian.json")
    assert "trian.json: there is no such file or folder" in text
    assert 'did you mean "train.json"?' in text
    assert "no such file" in message(tmp_path / "absent" / "x.json")
    assert "a folder without seq.in and seq.out and label" in message(tmp_path)
    assert "cannot be read" in message("a\0b.json")


def test_a_folder_needs_all_three_files_of_one_length(tmp_path: Path) -> None:
    path = write_seq_folder(tmp_path / "x")
    with (path / "label").open("a") as file:
        file.write("c\n")
    assert f"{path}:3: seq.in has ended, but label continues" in message(path)
    (path / "seq.out").unlink()
    assert f"{path}: a folder without seq.out; expected the files seq.in" in message(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_empty_and_blank_files_are_errors(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    for content, found in ((b"", "is empty"), (b"\xef\xbb\xbf", "is empty"), (b" \n\n", "")):
        assert f"{path}: the" in message(write(path, content))
        assert found in message(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.json", "[]"), ("y.json", " [ \n ] "), ("x.csv", "text,label\n"), ("x.conll", "#\n")],
)
def test_files_without_a_record_are_errors(name: str, content: str, tmp_path: Path) -> None:
    assert "there is no " in message(write(tmp_path / name, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            '[\n{"text": "a"},\n{"text" "b"}]',
            ":3 (record 2): broken JSON at column 9: expecting",
        ),
        ('[{"text": "a"}\n  {"text": "b"}]', ":2 (record 1): broken JSON at column 3: '{' after"),
        ('[{"text": "a"},\n', ":2 (record 2): broken JSON at column 1: expecting value"),
        (
            '[{"text": "a"}',
            ":1 (record 1): broken JSON at column 15: the file ends inside the",
        ),
        ('[{"text": "a"}] x', ":1 (record 1): broken JSON at column 17: text follows"),
        ('[\n"a"]', ":2 (record 1): the record is 'a'; expected an object"),
        ("[1, 2]", ":1 (record 1): the record is 1; expected an object"),
        ('[{"text": "a', ":1 (record 1): broken JSON at column 11: unterminated string"),
        ('[{"text": "a\tb"}]', ":1 (record 1): broken JSON at column 13: invalid control"),
        ('[{"text": "a\0b"}]', ":1: a NUL byte"),
        ('{\n"a": [{}]}', ": one JSON object over several lines; expected a list of objects"),
        ("text", ":1: broken JSON: the file begins with 't'; expected [ of a list"),
        ("[" + "9" * 5000 + "]", ":1 (record 1): the JSON has a number of thousands of digits"),
        ('["' + "[" * 5000 + '"]', ":1 (record 1): the record is '[[[["),
    ],
)
def test_broken_json_lists_name_line_column_and_record(
    content: str, expected: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.json", content)
    assert f"{path}{expected}" in message(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": }', "broken JSON at column 10: expecting value"),
        ('["a"]', "the record is ['a']; expected an object"),
        ("null", "the record is None; expected an object"),
        ('{"text": "a"} {"text": "b"}', "broken JSON at column 15: extra data"),
        ("\ufeff{}", "an invisible byte-order mark (U+FEFF) at column 1; expected JSON"),
        ('{"n": ' + "9" * 5000 + "}", "the JSON has a number of thousands of digits"),
    ],
)
def test_broken_json_lines_name_line_and_column(line: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "a"}\n' + line + "\n")
    assert f"{path}:2: {expected}" in message(path)


@pytest.mark.parametrize(("name", "form"), [("x.jsonl", "{}\n"), ("x.json", "[{}]")])
@pytest.mark.parametrize(
    ("record", "key"),
    [
        ('{"text": "a", "label": "x", "label": "y"}', "label"),
        ('{"text": "a", "label": "x", "label": "x"}', "label"),
        ('{"text": "a", "entities": [{"start": 0, "end": 1, "end": 2, "label": "x"}]}', "end"),
    ],
)
def test_a_key_twice_in_an_object_is_an_error_that_names_it(
    name: str, form: str, record: str, key: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, form.replace("{}", record))
    assert f"{path}:1" in message(path)
    assert f"the key '{key}' twice in one object; expected each key once" in message(path)


def test_a_record_with_a_key_twice_does_not_hide_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}\n')
    errors: list[DataError] = []
    assert [row.fields for row in read_rows(path, on_error=errors.append)] == [{"text": "c"}]
    assert len(errors) == 1


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_an_error_that_says_so(ending: str, opening: str, tmp_path: Path) -> None:
    begin = "[" if ending == ".json" else '{"a":'
    path = write(tmp_path / f"x{ending}", begin + opening * 10_000)
    assert f"{path}:1" in message(path)
    assert "nested too deeply" in message(path)


@pytest.mark.parametrize("name", ["json", "json lines", "conll", "conll in .txt", "folder"])
def test_bytes_that_are_not_utf8_are_named_by_line_and_offset(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path)
    target = path / "seq.in" if path.is_dir() else path
    content = target.read_bytes().replace("é".encode(), b"\xe9")
    target.write_bytes(content)
    offset = content.index(b"\xe9")
    line = content.count(b"\n", 0, offset) + 1
    assert f"{target}:{line}: byte 0xe9 at offset {offset} of the file is not UTF-8" in (
        message(path)
    )


A_CSV = "-t utf-8 {}/a.csv > {}/a-utf8.csv"


@pytest.mark.parametrize(
    ("name", "content", "command"),
    [
        (
            "a.csv",
            "text\né\n".encode("cp1252"),
            f"iconv -f ENCODING {A_CSV}",
        ),
        ("a.json", b'[{"text": "\xe9"}]', "iconv -f ENCODING -t utf-8 {}/a.json > {}/a-utf8.json"),
        (
            "a.csv",
            "text\na\n".encode("utf-16"),
            f"iconv -f UTF-16 {A_CSV}",
        ),
        ("a.csv", b"text\ra\r", "tr '\\r' '\\n' < {}/a.csv > {}/a-lf.csv"),
        (
            "a.csv.gz",
            gzip.compress("text\né\n".encode("cp1252")),
            "gzip -dc {}/a.csv.gz | iconv -f ENCODING -t utf-8 > {}/a-utf8.csv",
        ),
    ],
)
def test_the_command_that_converts_a_file_is_complete(
    name: str, content: bytes, command: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    expected = command.format(tmp_path, tmp_path)
    shown = message(path)
    assert f"Convert the file, for example with: {expected}" in shown
    assert ("usually cp1252 (Western Europe), cp1250" in shown) == ("ENCODING" in expected)
    subprocess.run(["/bin/sh", "-c", expected.replace("ENCODING", "cp1252")], check=True)
    (converted,) = set(tmp_path.iterdir()) - {path}
    assert read(converted) == [{"text": "é" if b"\xe9" in content or "gz" in name else "a"}]
    spaced = tmp_path / f"my {name}"
    path.rename(spaced)
    assert f" '{spaced}' " in message(spaced)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a".encode("utf-16"), "begins with a byte-order mark of UTF-16"),
        (b"\xfe\xff\0a", "begins with a byte-order mark of UTF-16"),
        ("a".encode("utf-32"), "begins with a byte-order mark of UTF-32"),
        (gzip.compress(b"[]", mtime=0), "is gzip-compressed"),
        (b"PK\x03\x04", "is a ZIP archive"),
    ],
)
def test_other_encodings_and_archives_are_recognised(
    content: bytes, expected: str, tmp_path: Path
) -> None:
    assert f"the file {expected}" in message(write(tmp_path / "x.jsonl", content))


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".conll"])
def test_nul_bytes_are_errors(ending: str, tmp_path: Path) -> None:
    head = {".jsonl": "{}\n", ".csv": "text\n", ".conll": "a\tO\n"}[ending]
    path = write(tmp_path / f"x{ending}", head + "a\0b\tO\n")
    assert f"{path}:2: a NUL byte; expected text in UTF-8" in message(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text,text\na,b\n", ":1: the header has the column 'text' twice"),
        (
            "txt,label\na,b\n",
            ":1: the header has no column `text` or `tokens`, only: txt, label ("
            'did you mean "text"?)',
        ),
        (
            "txt;label\na;b\n",
            "Cells seem to be separated by ';': `layout=Layout(format=\"semicolons\")`.",
        ),
        ("text,label\na\n", ":2: 1 cell, beginning with 'a'; expected 2, as the header has"),
        ('text,label\n"a"b,c\n', ":2: broken CSV: ',' expected after '\"'"),
        ('text,label\n"a\nb,c\n', ":2: broken CSV: unexpected end of data"),
        ("text,label\na\rb,c\n", ":2: broken CSV: new-line character seen in unquoted field"),
    ],
)
def test_broken_csv_is_located(content: str, expected: str, tmp_path: Path) -> None:
    assert expected in message(write(tmp_path / "x.csv", content))


def test_csv_tokens_are_split_and_empty_cells_are_missing_values(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "tokens,ner,label\na b,O O,\n,,x\n")
    assert read(path) == [
        {"tokens": ["a", "b"], "ner": "O O", "label": None},
        {"tokens": [], "ner": None, "label": "x"},
    ]


@pytest.mark.parametrize(("name", "between"), [("x.csv", ","), ("x.tsv", "\t")])
def test_rows_without_a_value_are_skipped_or_kept_as_asked(
    name: str, between: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, ",\ntext,label\na,x\n,\nb,y\n,\n".replace(",", between))
    assert [row["text"] for row in read(path)] == ["a", "b"]
    assert [row.fields["text"] for row in read_rows(path, needs_labels=False)] == ["a", "b"]
    texts = [row.fields["text"] for row in read_rows(path, keeps_empty_rows=True)]
    assert texts == ["a", "", "b", ""]
    path = write(tmp_path / name, ",\na,x\n".replace(",", between))
    numbered = read_rows(path, layout=Layout(names={"1": "text"}), keeps_empty_rows=True)
    assert [row.fields["text"] for row in numbered] == ["", "a"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\tO\nb\n", ":2: the line has 1 column: 'b'; expected 2, separated by tabs"),
        (
            "a O\nb c O\n",
            ":2: the line has 3 columns: 'b c O'; expected 2, separated by spaces or tabs",
        ),
        ("a\nb\n", ":1: the line has one column: 'a'; expected a token and its tag"),
        ("a\tO\n#x\n", ":2: the line has 1 column: '#x'"),
        ("a\tO\n\n#x\n", ":3: the line has 1 column: '#x'"),
        ("a\tO\n# b\n", ":2: the line has 1 column: '# b'"),
        ("a NN\n\n# NN\n", ":3: '# NN' may be a comment or the token '#'"),
    ],
)
def test_broken_columns_are_located(content: str, expected: str, tmp_path: Path) -> None:
    assert expected in message(write(tmp_path / "x.conll", content))


def test_hash_signs_are_tokens_but_comments_and_document_lines_are_not(tmp_path: Path) -> None:
    text = (
        "# a comment of five words\n#\n-DOCSTART-\tX\tX\tO\n\n"
        "#\tN\tx\tO\n#b\tN\tx\tB-a\n\n \t \n# text = c d\n#\tN\tx\tO\n-DOCSTART-\nc\tN\tx\tO\n"
    )
    rows = read(write(tmp_path / "x.conll", text))
    assert [row["tokens"] for row in rows] == [["#", "#b"], ["#"], ["c"]]
    assert rows[0] == {
        "tokens": ["#", "#b"], "col2": ["N", "N"], "col3": ["x", "x"], "ner": ["O", "B-a"],
    }  # fmt: skip
    spaces = write(tmp_path / "y.conll", "# a comment\n# O\n#b O\n\nc O\n")
    assert [row["tokens"] for row in read(spaces)] == [["#", "#b"], ["c"]]


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


# Packages that only some formats need.


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("pyarrow", lambda p: write(p / "x.parquet", b"PAR1....PAR1")),
        ("datasets", lambda p: "datasets:squad"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    package: str,
    make: Callable[[Path], Path | str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = make(tmp_path)
    with pytest.raises(DataError, match=f"needs {package}.*Run: pip install {package}") as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))


def test_indices_in_parquet_get_the_class_names_of_the_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    tags = {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "List"}
    features = {"label": names, "ner": tags}
    ner = [[0], [1, -100, -1], None]
    table = pa.table({"text": ["a", "b", "c"], "label": [1, -1, 5], "ner": ner})
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    errors: list[DataError] = []
    rows = [row.fields for row in read_rows(tmp_path / "x.parquet", on_error=errors.append)]
    assert rows[0] == {"text": "a", "label": "pos", "ner": ["O"]}
    assert rows[1] == {"text": "b", "label": None, "ner": ["B-x", None, None]}
    assert "x.parquet row 3: `label` has the class 5; expected 0 to 1" in str(errors[0])


@pytest.mark.parametrize("by_columns", [False, True])
def test_indices_in_entities_of_parquet_get_the_class_names_of_the_file(
    tmp_path: Path, by_columns: bool
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    struct = {
        "start": {"dtype": "int32", "_type": "Value"}, "end": {"dtype": "int32", "_type": "Value"},
        "label": {"names": ["PER", "LOC"], "_type": "ClassLabel"},
    }  # fmt: skip
    if by_columns:
        column = {"start": [0, 4], "end": [3, 6], "label": [1, 0]}
        feature: Any = {key: {"feature": one, "_type": "List"} for key, one in struct.items()}
    else:
        column = [{"start": 0, "end": 3, "label": 1}, {"start": 4, "end": 6, "label": 0}]
        feature = {"feature": struct, "_type": "List"}
    table = pa.table({"text": ["Rom Bo", "b"], "entities": [column, None]})
    info = json.dumps({"info": {"features": {"entities": feature}}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    first, second = read(tmp_path / "x.parquet")
    assert first["entities"] == [
        {"start": 0, "end": 3, "label": "LOC"}, {"start": 4, "end": 6, "label": "PER"},
    ]  # fmt: skip
    assert second["entities"] is None


def test_an_index_without_a_name_inside_an_object_of_parquet_stays(tmp_path: Path) -> None:
    """No task may read the object; a list of tags is one of a task."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = {"names": ["de", "en"], "_type": "ClassLabel"}
    features = {"meta": {"lang": names}, "ner": {"feature": names, "_type": "List"}}
    meta = [{"lang": 1}, {"lang": -1}, {"lang": 7}, None]
    table = pa.table({"text": [*"abcd"], "meta": meta, "ner": [[0], [0], [1], [2]]})
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    errors: list[DataError] = []
    rows = [row.fields for row in read_rows(tmp_path / "x.parquet", on_error=errors.append)]
    assert [row["meta"] for row in rows] == [{"lang": "en"}, {"lang": None}, {"lang": 7}]
    assert ["`ner` has the class 2" in str(error) for error in errors] == [True]


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "x.parquet", b"PAR1" + string.printable.encode() + b"PAR1")
    assert f"{path}: not a sound Parquet file after 0 rows" in message(path)


@pytest.fixture
def local_dataset(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        first, second = {"text": f"{split} a", "label": 0}, {"text": "b", "label": 1}
        lines = f"{json.dumps(first)}\n{json.dumps(second)}\n"
        write(tmp_path / "set" / f"{split}.jsonl", lines)
    return tmp_path / "set"


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_by_name_streams_the_named_split(local_dataset: Path) -> None:
    name = f"datasets:{local_dataset}"
    assert is_dataset_name(name)
    assert read(f"{name}@test") == [{"text": "test a", "label": 0}, {"text": "b", "label": 1}]
    assert [row.where for row in read_rows(f"{name}@train")][1] == f"{name}@train record 2"
    assert "several splits; expected one of: t" in message(name)
    assert "no split 'tran' (did you mean \"train\"?)" in message(f"{name}@tran")
    (local_dataset / "test.jsonl").unlink()
    assert len(read(name)) == 2


@pytest.mark.filterwarnings("ignore")
def test_an_unavailable_data_set_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    text = message("datasets:owner/name:config@train")
    assert (
        "datasets:owner/name:config@train: the data set cannot be opened (ConnectionError" in text
    )
    assert "offline, only what is on this machine is found" in text
    assert "does not name a data set" in message("datasets:a@b@c")
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    assert "version 4 or newer, which runs no code of a data set" in message("datasets:x")


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
