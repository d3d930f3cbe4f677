"""CoNLL and CoNLL-U: columns, ranges, and lines that end in other ways."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import message, read, unread
from manyheads.data.infer_tasks import infer_tasks
from tool_formats import QUICK, words


@given(st.lists(st.lists(words, min_size=1, max_size=5), min_size=1, max_size=4))
@QUICK
def test_conllu_round_trips(folder: Path, items: list[list[str]]) -> None:
    path = folder / "x.conllu"
    path.write_text(
        "".join(
            f"# text = {' '.join(some)}\n"
            + "".join(f"{i}\t{w}\t_\tNOUN\tNN\t_\t0\troot\t_\t_\n" for i, w in enumerate(some, 1))
            + "9.1\tx\tx\tX\t_\t_\t_\t_\t_\t_\n\n"
            for some in items
        ),
        encoding="utf-8",
    )
    assert read(path) == [
        {
            "text": " ".join(some), "tokens": some, "upos": ["NOUN"] * len(some),
            "xpos": ["NN"] * len(some), "deprel": ["root"] * len(some),
        }
        for some in items
    ]  # fmt: skip
    assert unread(path) == {"empty nodes": len(items)}
    assert read(path) == read(path.rename(folder / "x.conll"))


@pytest.mark.parametrize("token", ["New\u00a0York", "\u3000", "10\u202f000"])
@pytest.mark.parametrize("border", [" ", "\t", "  \t "])
def test_white_space_other_than_spaces_and_tabs_is_part_of_a_token(
    token: str, border: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.conll"
    lines = (f"{token}{border}B-LOC\n", f"is{border}O\n")
    for some in (lines, lines[::-1]):
        path.write_text("".join(some), encoding="utf-8")
        tokens = [line.partition(border)[0] for line in some]
        assert [row["tokens"] for row in read(path)] == [tokens]


def test_a_token_of_several_words_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(
        "# text = zum Haus\n1-2\tzum\t_\t_\t_\t_\t_\t_\t_\t_\n1\tzu\tzu\tADP\t_\t_\t3\tcase\t_\t_\n"
        "2\tdem\tder\tDET\t_\t_\t3\tdet\t_\t_\n3\tHaus\tHaus\tNOUN\t_\t_\t0\troot\t_\t_\n"
    )
    assert read(path) == [
        {"text": "zum Haus", "tokens": ["zum", "Haus"], "lemma": ["zu+der", "Haus"],
         "upos": ["ADP+DET", "NOUN"], "deprel": ["case+det", "root"]}
    ]  # fmt: skip


def test_entities_in_the_last_column_of_conllu_are_tags_and_lemmas_are_no_task(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.conllu"
    path.write_text(
        "".join(
            f"1-2\tzum\t_\t_\t_\t_\t_\t_\t_\t_\n1\tzu\tzu\tADP\t_\t_\t3\tcase\t_\t_\n"
            f"2\tdem\tder\tDET\t_\t_\t3\tdet\t_\tNER=B-{kind}\n"
            f"3\tHaus\thaus\tNOUN\t_\t_\t0\troot\t_\tSpaceAfter=No|ner=I-{kind}\n"
            "4\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_\n5\t!\t!\tPUNCT\t_\t_\t3\tpunct\t_\t_\n\n"
            for kind in ("LOC", "ORG") * 6
        )
    )
    assert [row["ner"] for row in read(path)[:2]] == [
        ["B-LOC", "I-LOC", "O", "O"], ["B-ORG", "I-ORG", "O", "O"],
    ]  # fmt: skip
    found = infer_tasks([str(path)])
    assert [task.name for task in found.tasks] == ["upos", "ner"]
    assert set(found.unused) == {"lemma", "deprel"}


def test_an_index_column_is_not_a_token(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("#\thttp://x\t[2020]\n1\tAda\tB-PER\tO\n2\tran\tO\tO\n\n1\tBo\tB-PER\tB-LOC\n")
    assert read(path) == [
        {"tokens": ["Ada", "ran"], "ner": ["B-PER", "O"], "col4": ["O", "O"]},
        {"tokens": ["Bo"], "ner": ["B-PER"], "col4": ["B-LOC"]},
    ]
    other = tmp_path / "y.conll"
    other.write_text("1\tAda\tB-PER\n2\tran\tO\n\n1\tBo\tB-PER\nx\tran\tO\n")
    assert [row["tokens"][0] for row in read(other)] == ["1", "1"]
    other.write_text("1\tAda\tB-PER\n2\tran\tO\n\n" * 1500 + "1\tBo\tB-PER\nx\tran\tO\n")
    assert ":4501: the first column has 'x'; expected numbers that count" in message(other)


def test_tags_may_come_before_the_words(tmp_path: Path) -> None:
    path = tmp_path / "x.bio"
    path.write_text("O\tany\nB-Dish\tsoup\n\nO\tB-x\nO\thello\n")
    assert read(path) == [
        {"tokens": ["any", "soup"], "ner": ["O", "B-Dish"]},
        {"tokens": ["B-x", "hello"], "ner": ["O", "O"]},
    ]


def test_columns_of_conll_are_named_by_number_or_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("s1\tAda\tB-PER\tNNP\ns1\tran\tO\tVBD\n")
    assert read(path, names={"2": "tokens", "3": "ner"}) == [
        {"col1": ["s1", "s1"], "tokens": ["Ada", "ran"], "ner": ["B-PER", "O"],
         "col4": ["NNP", "VBD"]}
    ]  # fmt: skip
    assert "there is no column '7', only 4 columns" in message(path, names={"7": "tokens"})
    assert "no column of 4 is the tokens'" in message(path, names={"3": "ner"})
    path.write_text("# global.columns = ID FORM NER\n1\tAda\tB-PER\n2\tran\tO\n")
    assert read(path) == [{"id": ["1", "2"], "tokens": ["Ada", "ran"], "ner": ["B-PER", "O"]}]


def test_a_tab_at_the_end_of_a_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("a\tO\t\nb\tO\t\n")
    assert ":1: the line ends in a tab" in message(path)
    path.write_text("a\tO\nb\tO\t\n")
    assert ":2: the line ends in a tab" in message(path)


@pytest.mark.parametrize("name", ["x.conll", "x.txt", "x.jsonl", "x.csv"])
def test_lines_that_end_at_cr_alone_are_refused_by_that_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"Ada\tB-PER\rran\tO\r")
    assert "the lines end at CR alone" in message(path)
    path.write_bytes(b"Ada B-PER\nran O\r\r\n")
    assert name != "x.conll" or ":2: a carriage return within the line" in message(path)
