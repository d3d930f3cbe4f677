"""Broken files: each has a message with the place, and what to do."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from every_format import ENDINGS, WRITERS, write, write_seq_folder
from files import message, read
from manyheads.data.readers import Layout, read_rows
from manyheads.errors import DataError


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
            gzip.compress("text\né\n".encode("cp1252"), mtime=0),
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
            "Cells seem to be separated by ';': `layout=Layout(format=\"semicolons\", names={",
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
