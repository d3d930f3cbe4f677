"""CSV, TSV and Excel: headers, lists in cells, indicator columns, missing labels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import lines, message, read, unread
from manyheads.data.readers import Layout, read_rows
from manyheads.errors import worded_for_command
from tool_formats import QUICK, words


@pytest.mark.parametrize("name", ["snli.jsonl", "snli.tsv"])
def test_a_gold_label_without_agreement_is_missing(name: str, tmp_path: Path) -> None:
    columns = ["gold_label", "sentence1", "sentence2"]
    rows = [["-", "a b", "c"], ["entailment", "a b", "-"]]
    path = tmp_path / name
    path.write_text(
        lines([dict(zip(columns, row, strict=True)) for row in rows])
        if name == "snli.jsonl"
        else "".join("\t".join(row) + "\n" for row in [columns, *rows])
    )
    names = {"sentence1": "text", "sentence2": "text2", "gold_label": "label"}
    assert [(row["label"], row["text2"]) for row in read(path, names=names)] == [
        (None, "c"), ("entailment", "-"),
    ]  # fmt: skip
    assert read(path, names={"sentence1": "text"})[0]["gold_label"] is None
    counts: dict[str, int] = {}
    list(read_rows(path, layout=Layout(names=names), on_unread=counts.update))
    assert counts == {"labels `-` of `gold_label`, on which the annotators did not agree": 1}
    # In another column it is a class like the others.
    names = {"sentence1": "text", "sentence2": "label"}
    assert read(path, names=names)[1]["label"] == "-"


@pytest.mark.parametrize("mark", [",", ";"])
def test_spaces_after_all_separators_of_the_header_are_no_part_of_cells(
    mark: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    rows = [["text", "labels", "note"], ['"a, b; c"', "\"['x']\"", '"y ""z"" "'], ["d", "", "z"]]
    path.write_text("".join(f"{mark} ".join(row) + "\n" for row in rows))
    assert read(path) == [
        {"text": "a, b; c", "labels": ["x"], "note": 'y "z" '},
        {"text": "d", "labels": None, "note": "z"},
    ]
    path.write_text(f"id{mark}text\n1{mark} a\n")
    assert read(path) == [{"id": "1", "text": " a"}]


@given(
    st.lists(st.lists(st.text(max_size=4).filter(lambda t: "\0" not in t), min_size=1), min_size=1),
    st.sampled_from(["python", "numpy", "json"]),
)
@QUICK
def test_lists_in_cells_are_lists(folder: Path, items: list[list[str]], form: str) -> None:
    items = [[t.encode(errors="replace").decode() for t in some] for some in items]
    write: Callable[[list[str]], str] = {
        "python": str, "json": json.dumps, "numpy": lambda some: f"[{' '.join(map(repr, some))}]",
    }[form]  # fmt: skip
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("text", "tags"), *(("x", write(some)) for some in items)])
    path = folder / "lists.csv"
    path.write_bytes(out.getvalue().encode())
    assert [row["tags"] for row in read(path)] == items


def test_a_truncated_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("tokens,ner\n\"['a' 'b' ... 'z']\",O O O\n")
    assert ":2: `tokens` is \"['a' 'b' ... 'z']\", a truncated or broken list" in message(path)
    path.write_text("tokens,ner\n[ a ],O O O\n")
    assert read(path) == [{"tokens": ["[", "a", "]"], "ner": "O O O"}]


@pytest.mark.parametrize(("name", "separator"), [("x.csv", ","), ("x.csv", ";"), ("x.tsv", "\t")])
def test_rows_without_any_value_are_skipped(name: str, separator: str, tmp_path: Path) -> None:
    path = tmp_path / name
    rows = ["text,label", "a,x", ",", '"",', ",,", "b,", ","]
    path.write_text("\n".join(rows).replace(",", separator))
    assert read(path) == [{"text": "a", "label": "x"}, {"text": "b", "label": None}]


def test_unpaired_quotes_do_not_swallow_rows_of_tsv(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('text\tlabel\na\tx\n"b\ty\nc\tx\nd "\ty\n"e ""f"""\tx\n"g\nh\ti"\ty\n')
    assert [(row["text"], row["label"]) for row in read(path)] == [
        ("a", "x"), ('"b', "y"), ("c", "x"), ('d "', "y"), ('e "f"', "x"), ("g\nh\ti", "y"),
    ]  # fmt: skip


def test_columns_without_a_header_are_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("12,my card is lost,card\n13,hello,greet\n")
    text = message(path)
    assert "only: 12, my card is lost, card" in text
    assert 'by number: `{"1": "text", "2": "label"}`' in text
    assert read(path, names={"2": "text", "3": "label"}) == [
        {"1": "12", "text": "my card is lost", "label": "card"},
        {"1": "13", "text": "hello", "label": "greet"},
    ]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_header_inside_a_table_is_refused(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"text,label\none,a\n{mark}text,label\ntwo,b\n", encoding="utf-8")
    assert ":3: the line repeats the header; expected a record" in message(path)
    path.write_text("text\none\ntext\n")
    assert read(path) == [{"text": "one"}, {"text": "text"}]


def test_a_number_before_a_text_and_a_number_is_an_id_and_not_a_scored_pair(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("12,my card is lost,0\n")
    assert "only: 12, my card is lost, 0" in message(path)
    path.write_text("a dog runs,a cat runs,0\n")
    assert read(path) == [{"text": "a dog runs", "text2": "a cat runs", "score": "0"}]


@pytest.mark.parametrize(
    ("content", "command", "python"),
    [
        (
            "intent,utterance\nquestion,what time is it\n",
            "--text-field utterance --map intent=label",
            '{"utterance": "text", "intent": "label"}',
        ),
        (
            "id,my words,topic\n1,good morning,x\n2,bye\n",
            "--text-field 'my words' --map COLUMN=label",
            '{"my words": "text", OTHER: "label"}',
        ),
        ("intent,utterance\n", "--text-field utterance --map intent=label", ""),
        (
            "Text,Label\nhi,greeting\nbye,farewell\n",
            "--text-field Text --map Label=label",
            '{"Text": "text", "Label": "label"}',
        ),
        (
            "Category,line\ngreeting,hi\n",
            "--text-field line --map Category=label",
            '{"line": "text", "Category": "label"}',
        ),
        ("12,hello,x\n", "--text-field COLUMN --map COLUMN=label", '{COLUMN: "text", OTHER: "'),
    ],
)
def test_without_a_column_text_the_command_names_the_columns_of_the_file(
    content: str, command: str, python: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    assert f"layout=Layout(names={python}" in message(path)
    with worded_for_command():
        shown = message(path)
    assert f"such as {command} (of two texts" in shown
    # Of short words, unrelated ones have much in common.
    assert "did you mean" not in shown or "Text" in content


def test_columns_are_renamed_and_one_that_is_replaced_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("body,label,topic\na,1,x\n")
    names = {"body": "text", "topic": "label"}
    assert read(path, names=names) == [{"text": "a", "label (replaced)": "1", "label": "x"}]
    assert "there is no column 'bdy', only the columns body, label, topic" in (
        message(path, names={"bdy": "text"})
    )
    other = tmp_path / "x.jsonl"
    other.write_text('{"body": "a", "label": 1, "topic": "x", "id": 2}\n')
    assert read(other, names=names) == [{"text": "a", "label": "x", "id": 2}]
    assert "no record has the field 'tpic'" in message(other, names={"tpic": "label"})


def test_labels_in_one_cell_are_split_at_the_separator_of_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabels\na\t15,25\nb\t4\nc\t\n")
    assert [row["labels"] for row in read(path, separator=",")] == [["15", "25"], ["4"], None]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_a_blank_second_text_is_none(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("text,text2\na,b\nc,\nd, \n".replace(",", "\t" if "tsv" in name else ","))
    assert [row["text2"] for row in read(path)] == ["b", None, None]


def test_columns_without_a_name_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    counts: dict[str, int] = {}
    path.write_text(",text,label,\n0,a,x,\n1,b,y,\n")
    found = [row.fields for row in read_rows(path, on_unread=counts.update)]
    assert found == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert counts == {"columns without a name in the header": 2}
    path.write_text(",text\n0,a\n")
    counts.clear()
    [row] = read_rows(path, layout=Layout(names={"": "id"}), on_unread=counts.update)
    assert (row.fields, counts) == ({"id": "0", "text": "a"}, {})
    path.write_text(",label,\n0,x,\n")
    assert ":1: the header has no column `text` or `tokens`, only: label; " in message(path)
    path.write_text(",body,rude,kind\n0,so so,0,1\n1,yes,1,1\n")
    assert read(path)[0] == {"text": "so so", "labels": ["kind"]}


def test_semicolons_separate_cells_if_they_do_so_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text;label\n"a; b, c";x\n')
    assert read(path) == [{"text": "a; b, c", "label": "x"}]
    path.write_text("body;label\na;x\n")
    assert read(path, names={"body": "text"}) == [{"text": "a", "label": "x"}]
    path.write_text("Text;Kategorie;Datum\na, b;x;1\n")
    with worded_for_command():
        assert "such as --text-field Text --map Kategorie=label (of two" in message(path)
    assert read(path, names={"Text": "text", "Kategorie": "label"}) == [
        {"text": "a, b", "label": "x", "Datum": "1"}
    ]


@pytest.mark.parametrize(
    ("name", "content", "command", "python"),
    [
        (
            "x.csv",
            "Satz;Absicht\nwie, bitte;frage\ngut;lob\n",
            "--format semicolons --text-field Satz --map Absicht=label.",
            '`layout=Layout(format="semicolons", names={"Satz": "text", "Absicht": "label"})`.',
        ),
        (
            "x.tsv",
            "label,my words\na,good morning\n",
            "--format csv --text-field 'my words'.",
            '`layout=Layout(format="csv", names={"my words": "text"})`.',
        ),
        ("x.tsv", "text,kind\na,b\n", "--format csv.", '`layout=Layout(format="csv")`.'),
        ("x.csv", "a|b\nc|d\n", *["write them with commas or tabs."] * 2),
    ],
)
def test_of_another_separator_one_message_names_the_format_and_the_columns(
    name: str, content: str, command: str, python: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert message(path).endswith(f"': {python}")
    with worded_for_command():
        assert message(path).endswith(f"': {command}")


@pytest.mark.parametrize("mark", [";", ",", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}\n", '"SEP={}"\r\n', "\ufeffsep={}\n"])
def test_a_line_before_the_header_states_the_separator_as_for_excel(
    line: str, mark: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    header = line.format(mark) + f"text{mark}label\n"
    path.write_text(header + f"a b{mark}x\n", encoding="utf-8", newline="")
    (row,) = read_rows(path)
    assert (row.fields, row.line) == ({"text": "a b", "label": "x"}, 3)
    path.write_text(header + f"a{mark}x{mark}y\n", encoding="utf-8", newline="")
    assert f"{path}:3: 3 cells, beginning with 'a'" in message(path)
    path.write_text(line.format(mark) + f"txt{mark}label\n", encoding="utf-8", newline="")
    assert f"{path}:2: the header has no column `text`" in message(path)


@pytest.mark.parametrize(
    ("table", "fields"),
    [
        ("body,rude,kind\na b,1,0\nc d,0,1\n", {"text": "a b", "labels": ["rude"]}),
        (
            "Sentence #,Word,POS,Tag\nSentence: 1,Rome,NNP,B-geo\n",
            {"tokens": ["Rome"], "ner": ["B-geo"], "pos": ["NNP"]},
        ),
    ],
)
def test_a_format_is_recognised_behind_a_line_that_states_the_separator(
    table: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"sep=,\n{table}", encoding="utf-8")
    assert read(path)[0] == fields


@given(st.lists(st.tuples(words, st.booleans(), st.booleans()), min_size=1, max_size=5))
@QUICK
def test_indicator_columns_round_trip(folder: Path, items: list[tuple[str, bool, bool]]) -> None:
    path = folder / "x.csv"
    items = [*items, ("end", True, True)]
    path.write_text(
        "id,text,rude,kind\n" + "".join(f"x1,{t},{a:d},{b:d}\n" for t, a, b in items)
        + "x1,open,-1,-1\n",
        encoding="utf-8",
    )  # fmt: skip
    rows = read(path, format="indicators")
    assert [row["labels"] for row in rows] == [
        *([*["rude"] * a, *["kind"] * b] for _, a, b in items), None,
    ]  # fmt: skip
    path.write_text("text,id\na,2\n")
    assert "no column holds only 0 and 1: text, id" in message(path, format="indicators")


def test_columns_of_0_and_1_beside_one_of_texts_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,body,rude,kind,odd\n0,"so\nso",0,1,0\n1,yes,1,1,0\n')
    rows = read(path)
    assert [row["text"] for row in rows] == ["so\nso", "yes"]
    assert [row["labels"] for row in rows] == [["kind"], ["rude", "kind"]]
    # If one column is named `text`, every other may be a task; of two columns of texts, neither is.
    path.write_text("text,rude,kind\nso so,0,1\nyes,1,1\n")
    assert read(path)[0] == {"text": "so so", "rude": "0", "kind": "1"}
    path.write_text("one,two,rude,kind\nso so,a b,0,1\nyes,b,1,1\n")
    assert "no column `text`" in message(path)
    path.write_text("id,age,rude,kind\n0,30,0,1\n1,31,1,1\n")
    assert "no column `text`" in message(path)


def test_columns_of_0_and_1_without_a_1_give_no_class_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("body,rude,odd,kind,rare\nso so,0,0,1,0\nyes,1,0,1,0\n")
    assert read(path) == [
        {"text": "so so", "labels": ["kind"]}, {"text": "yes", "labels": ["rude", "kind"]}
    ]  # fmt: skip
    assert unread(path) == {"columns of 0 and 1 that have no 1, and so give no class: odd, rare": 2}


@given(st.lists(st.tuples(words, st.none() | words), min_size=1, max_size=5))
@settings(max_examples=10)
def test_excel_round_trips(folder: Path, items: list[tuple[str, str | None]]) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("text", "label"), *items]:
        book.active.append(row)
    book.create_sheet("more")
    path = folder / "x.xlsx"
    book.save(path)
    assert read(path) == [{"text": text, "label": label} for text, label in items]
    assert unread(path) == {"sheets after the first": 1}


def test_a_broken_workbook_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"PK\x03\x04 and no more")
    assert "not a sound workbook" in message(path)
