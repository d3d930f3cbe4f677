"""Any content round-trips through each format, and any bytes raise nothing but a data error."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from every_format import ENDINGS, WRITERS, write, write_parquet
from files import message, read
from manyheads.data.readers import Row, json_stream, read_rows
from manyheads.errors import DataError

QUICK = settings(max_examples=40)

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
