"""Files as tools write them: each format is written from records and read back the same."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import lines, message, read, unread
from manyheads.data.readers import FORMATS, Layout, read_rows
from manyheads.errors import DataError
from tool_formats import QUICK, WITH_BOTH, Sample, by_intent, names, samples, words


@given(st.lists(samples(), min_size=1, max_size=4))
@pytest.mark.parametrize("name", WITH_BOTH)
@QUICK
def test_sentences_with_entities_and_an_intent_round_trip(
    folder: Path, name: str, items: list[Sample]
) -> None:
    file, write = WITH_BOTH[name]
    # One sentence has an entity, so that the file shows where it keeps them.
    items = [*items, Sample(("to", "Lund"), ((1, 1, "city"),), "greet")]
    path = folder / file
    path.write_text(write(items), encoding="utf-8")
    if name == "snips":
        items = [item for some in by_intent(items).values() for item in some]
    rows = read(path)
    prefix = "alarm_" if name == "hwu" else ""
    assert [row["text"] for row in rows] == [item.text for item in items]
    assert [row.get("entities", []) for row in rows] == [item.entities for item in items]
    assert [row["label"] for row in rows] == [prefix + item.label for item in items]
    assert read(path, format=name) == rows


@given(st.lists(samples(), min_size=1, max_size=4), st.booleans())
@QUICK
def test_tags_of_kaggle_round_trip(folder: Path, items: list[Sample], repeats: bool) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["Sentence #", "Word", "POS", "Tag"])
    for number, item in enumerate(items):
        for i, (word, tag) in enumerate(zip(item.words, item.tags, strict=True)):
            writer.writerow([f"Sentence: {number}" if i == 0 or repeats else "", word, "X", tag])
    path = folder / "ner.csv"
    path.write_bytes(out.getvalue().encode())
    assert [(row["tokens"], row["ner"]) for row in read(path)] == [
        ([*item.words], item.tags) for item in items
    ]


def test_a_row_without_a_value_is_no_word_of_kaggle(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Sentence #,Word,POS,Tag\nSentence: 1,book,NN,O\n,a,DT,O\n,,,\n")
    for kept in (False, True):
        [row] = read_rows(path, keeps_empty_rows=kept)
        assert row.fields["tokens"] == ["book", "a"]


def test_kaggle_may_be_in_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "ner.csv"
    path.write_bytes(b"Sentence #,Word,POS,Tag\nSentence: 1,Caf\xe9,NN,B-org\n,\x80,NN,O\n")
    assert read(path) == [{"tokens": ["Café", "€"], "pos": ["NN", "NN"], "ner": ["B-org", "O"]}]


@given(st.lists(st.tuples(words, st.lists(names, min_size=1, unique=True)), min_size=1))
@QUICK
def test_fasttext_round_trip(folder: Path, items: list[tuple[str, list[str]]]) -> None:
    path = folder / "x.txt"
    path.write_text(
        "".join(" ".join([*(f"__label__{n}" for n in some), text]) + "\n" for text, some in items),
        encoding="utf-8",
    )
    several = any(len(some) > 1 for _, some in items)
    assert read(path) == [
        {"text": text, "labels": some} if several else {"text": text, "label": some[0]}
        for text, some in items
    ]


def test_labels_of_fasttext_may_be_anywhere_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("__label__a put it  on\nput __label__b it on __label__a\nit__label__c is on\n")
    assert read(path) == [
        {"text": "put it  on", "labels": ["a"]},
        {"text": "put it on", "labels": ["b", "a"]},
        {"text": "it__label__c is on", "labels": []},
    ]


@pytest.mark.parametrize("name", ["x.iob", "x.txt", "x.conll"])
@pytest.mark.parametrize("middle", ["", "|NN"])
def test_sentences_of_words_with_tags_behind_a_bar_are_read(
    name: str, middle: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    tagged = [[("I", "O"), ("like", "O"), ("Oslo", "B-GPE")], [("Ada", "B-PER"), ("left", "O")]]
    text = "\n".join(" ".join(f"{w}{middle}|{t}" for w, t in one) for one in tagged)
    path.write_text(f"-DOCSTART- -X-|O|O\n\n{text}\n")
    assert [(row["tokens"], row["ner"]) for row in read(path)] == [
        (["I", "like", "Oslo"], ["O", "O", "B-GPE"]), (["Ada", "left"], ["B-PER", "O"]),
    ]  # fmt: skip
    path.write_text(f"{text}\na|b{middle}|O c{middle}|O\n")
    assert f"{name}:3: the token 'a|b{middle}|O'; expected word|TAG or word|POS|TAG" in message(
        path
    )


@pytest.mark.parametrize(
    ("before", "faulty", "word"),
    [
        (3, "in|O Paris", "Paris"),
        (0, "in|O Paris", "Paris"),
        (0, "in Paris|B-LOC", "in"),
        (0, "in Paris", "in"),
    ],
)
def test_a_word_without_its_tag_behind_a_bar_is_named(
    tmp_path: Path, before: int, faulty: str, word: str
) -> None:
    path = tmp_path / "x.iob"
    path.write_text("I|O live|O\n" * before + f"{faulty}\n" + "in|O Rome|B-LOC\n" * 3)
    expected = f"x.iob:{before + 1}: the token '{word}'; expected word|TAG or word|POS|TAG"
    assert expected in message(path)


def test_a_token_a_line_with_its_tag_behind_a_bar_is_no_sentence_a_line(tmp_path: Path) -> None:
    path = tmp_path / "x.iob"
    path.write_text("Ada|B-PER\nleft|O\n\nBo|B-PER\n")
    assert "the line has one column: 'Ada|B-PER'" in message(path)


def test_a_label_that_a_line_of_fasttext_repeats_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("the first __label__a tag __label__a\n__label__b put it on\n")
    assert read(path) == [
        {"text": "the first tag", "label": "a"},
        {"text": "put it on", "label": "b"},
    ]


@given(st.lists(st.tuples(words, st.sampled_from(["DESC:manner", "NUM:date"])), min_size=1))
@QUICK
def test_trec_round_trip(folder: Path, items: list[tuple[str, str]]) -> None:
    path = folder / "x.label"
    path.write_text("".join(f"{label} {text} ?\n" for text, label in items), encoding="utf-8")
    assert read(path) == [
        {"text": f"{text} ?", "label": label, "coarse": label.split(":")[0]}
        for text, label in items
    ]


@given(st.dictionaries(words, st.sampled_from(["greet", "bye"]), min_size=1))
@QUICK
def test_a_split_of_clinc_round_trips(folder: Path, items: dict[str, str]) -> None:
    path = folder / "clinc.json"
    path.write_text(json.dumps({"train": [*items.items()], "oos_test": [["what", "oos"]]}))
    expected = [{"text": text, "label": label} for text, label in items.items()]
    assert read(Path(f"{path}@train")) == expected
    assert read(Path(f"{path}@oos_test+train"))[:-1] == expected
    text = message(path)
    assert f"{path}: several splits; expected one of: train, oos_test" in text
    assert f"Write {path}@train" in text
    assert "no split 'trian' (did you mean \"train\"?)" in message(f"{path}@trian")


def test_a_split_of_clinc_may_be_larger_than_a_record(tmp_path: Path) -> None:
    path = tmp_path / "clinc.json"
    path.write_text(json.dumps({"train": [["hi", "greet"]] * 1000, "val": []}))
    assert len(read(Path(f"{path}@train"), limit_bytes=1000)) == 1000
    assert "several splits; expected one of: train, val" in message(path, limit_bytes=1000)


def test_a_partition_of_massive_is_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "en-US.jsonl"
    path.write_text(
        lines(
            [
                {"partition": part, "utt": "up at six", "annot_utt": "up at [time : six]",
                 "intent": "alarm_set", "scenario": "alarm"}
                for part in ("train", "dev", "train")
            ]
        )
    )  # fmt: skip
    row = {
        "text": "up at six", "label": "alarm_set", "scenario": "alarm",
        "entities": [{"start": 6, "end": 9, "label": "time"}],
    }  # fmt: skip
    assert read(Path(f"{path}@train")) == [row, row]
    assert "several splits; expected one of: train, dev" in message(path)


@given(st.lists(samples(), min_size=1, max_size=4))
@QUICK
def test_dialogflow_takes_the_intent_from_the_name(folder: Path, items: list[Sample]) -> None:
    agent = folder / "intents"
    agent.mkdir(exist_ok=True)
    path = agent / "book.flight_usersays_pt-BR.json"
    path.write_text(
        json.dumps(
            [
                {"isTemplate": False, "data": [
                    {"text": t, **({"alias": e, "meta": "@x"} if e else {})}
                    for t, e in i.pieces()]}
                for i in items
            ]
        )
    )  # fmt: skip
    rows = read(path)
    assert [(row["text"], row["entities"], row["label"]) for row in rows] == [
        (item.text, item.entities, "book.flight") for item in items
    ]
    assert read(agent) == rows


@given(st.lists(samples(), min_size=1, max_size=4))
@QUICK
def test_brat_round_trips(folder: Path, items: list[Sample]) -> None:
    path = folder / "brat"
    path.mkdir(exist_ok=True)
    text, notes = "", ["R1\tnear Arg1:T1 Arg2:T2", "#1\tAnnotatorNotes T1\tsure?"]
    for item in items:
        for e in item.entities:
            place = f"{e['label']} {len(text) + e['start']} {len(text) + e['end']}"
            notes.append(f"T{len(notes)}\t{place}\t{item.text[e['start'] : e['end']]}")
        text += f"{item.text}\n\n"
    (path / "a.txt").write_text(text, encoding="utf-8")
    (path / "a.ann").write_text("\n".join(notes), encoding="utf-8")
    assert read(path) == [{"text": item.text, "entities": item.entities} for item in items]
    (path / "b.txt").write_text("not annotated")
    assert unread(path) == {
        "relations": 1, "notes": 1, "texts without annotations (.ann)": 1
    }  # fmt: skip


def test_brat_annotations_that_do_not_fit_the_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ada met\nBo\n")
    for notes, expected in {
        "T1\tPER 0 3\tBob": "a.ann:1: the entity is 'Bob', but the text has 'Ada'",
        "T1\tPER 4 10\tmet Bo": "a.ann:1: the entity 'met Bo' crosses the end of a line",
        "T1\tPER 20 23\tBob": "a.ann:1: an entity begins at character 20, after the end",
        "T1\tPER x 3\tAda": "a.ann:1: the annotation is 'T1\\tPER x 3\\tAda'",
    }.items():
        (tmp_path / "a.ann").write_text(notes)
        assert expected in message(tmp_path)
    (tmp_path / "a.ann").write_text("T1\tPER 0 3;8 10\tAda Bo\n")
    assert unread(tmp_path) == {"entities in several pieces": 1}
    (tmp_path / "a.txt").unlink()
    assert "there is no a.txt beside it" in message(tmp_path)


LONG = Sample(("to", *["word" * 250] * 2, "Lund"), ((3, 3, "city"),), "greet")


def conllu(items: Sequence[Sample]) -> str:
    return "".join(
        "".join(f"{i}\t{word}" + "\t_" * 8 + "\n" for i, word in enumerate(item.words, 1)) + "\n"
        for item in items
    )


def kaggle(items: Sequence[Sample]) -> str:
    return "Sentence #,Word,Tag\n" + "".join(
        f"{number},{word},O\n" for number, item in enumerate(items) for word in item.words
    )


STREAMED: dict[str, tuple[str, Callable[[Sequence[Sample]], str]]] = {
    **{name: value for name, value in WITH_BOTH.items() if name != "rasa"},
    "clinc": ("x.json", lambda items: json.dumps({"train": [[i.text, i.label] for i in items]})),
    "conllu": ("x.conllu", conllu),
    "dialogflow": (
        "a_usersays_en.json",
        lambda items: json.dumps([{"data": [{"text": i.text}]} for i in items]),
    ),
    "fasttext": ("x.txt", lambda items: "".join(f"__label__{i.label} {i.text}\n" for i in items)),
    "indicators": (
        "x.csv", lambda items: "body,a,b\n" + "".join(f"{i.text},0,1\n" for i in items)
    ),
    "kaggle-ner": ("x.csv", kaggle),
    "semicolons": ("x.csv", lambda items: "text\n" + "".join(f"{i.text}\n" for i in items)),
    "tagged-lines": (
        "x.iob", lambda items: "".join(" ".join(f"{w}|O" for w in i.words) + "\n" for i in items)
    ),
    "trec": ("x.label", lambda items: "".join(f"NUM:date {i.text} ?\n" for i in items)),
    "tsv": ("x.tsv", lambda items: "text\n" + "".join(f"{i.text}\n" for i in items)),
}  # fmt: skip
"""The formats of text files that are read record by record, whatever their size."""


@pytest.mark.parametrize("name", STREAMED)
def test_memory_does_not_grow_with_the_file_of_a_tool(name: str, tmp_path: Path) -> None:
    file, write = STREAMED[name]
    path = tmp_path / file
    path.write_text(write([LONG] * 1500), encoding="utf-8")
    tracemalloc.start()
    try:
        rows = sum(1 for _ in read_rows(path, layout=Layout(format=name)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == 1500
    assert peak < path.stat().st_size / 2


# The records of the other tools are lines of text, which no value can break.
@pytest.mark.parametrize("name", sorted(WITH_BOTH.keys() - {"rasa-markdown", "hwu", "massive"}))
def test_a_broken_record_of_a_tool_is_named_and_the_others_read(name: str, tmp_path: Path) -> None:
    file, write = WITH_BOTH[name]
    good = Sample(("to", "Lund"), ((1, 1, "city"),), "greet")
    content = write([good, Sample(("at", "noon"), ((1, 1, "date"),), "bye"), good])
    broken = (
        content.replace("[noon](date)", '[noon]{"role": 1}')
        if name == "rasa"
        else content.replace('"date"', "5").replace('"at noon"', "7").replace('"at "', "7")
    )
    path = tmp_path / file
    path.write_text(broken)
    errors: list[DataError] = []
    rows = list(read_rows(path, on_error=errors.append))
    # Records refuse texts that are not strings, as in every format.
    assert len(rows) + len(errors) == 3
    assert all(str(error).startswith(f"{path}:") for error in errors)


def test_a_rejected_answer_to_a_yes_or_no_question_means_that_the_label_does_not_apply(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.jsonl"
    asked = [("a", "accept"), ("b", "reject"), ("c", "ignore")]
    path.write_text(lines([{"text": t, "label": "DOCS", "answer": a} for t, a in asked]))
    assert read(path) == [{"text": "a", "labels": ["DOCS"]}, {"text": "b", "labels": []}]
    assert unread(path) == {"records whose answer is 'ignore'": 1}


def test_rejected_answers_about_several_labels_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    asked = [("a", "X", "accept"), ("b", "Y", "reject"), ("c", "Y", "accept")]
    path.write_text(lines([{"text": t, "label": n, "answer": a} for t, n, a in asked]))
    assert read(path) == [{"text": "a", "label": "X"}, {"text": "c", "label": "Y"}]
    assert unread(path) == {"records whose answer is 'reject'": 1}
    path.write_text(lines([{"text": "a", "label": None, "answer": "reject"}]))
    assert "no record in it, only records whose answer is 'reject' (1)" in message(path)


def test_an_accepted_entity_says_nothing_of_the_other_words(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    ada = {"text": "Ada met Bo", "spans": [{"start": 0, "end": 3, "label": "PER"}], "_task_hash": 1}
    path.write_text(
        lines(
            [
                ada | {"_is_binary": True, "answer": "accept"},
                ada | {"_is_binary": False, "answer": "accept"},
                ada | {"_is_binary": True, "label": "GREET", "answer": "accept"},
            ]
        )
    )
    assert read(path) == [
        {"text": "Ada met Bo", "entities": ada["spans"]},
        {"text": "Ada met Bo", "entities": ada["spans"], "label": "GREET"},
    ]
    assert unread(path) == {
        "answers about one entity of a text (`ner.correct` asks for all of them)": 1
    }


def test_lists_of_one_class_are_a_class(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(lines([{"text": "a", "label": ["x"]}, {"text": "b", "label": []}]))
    assert read(path) == [{"text": "a", "label": "x"}, {"text": "b", "label": None}]
    path.write_text(lines([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}]))
    assert read(path) == [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}]
    path.write_text(lines([{"text": "Ada", "label": [[0, 3, "PER"]]}, {"text": "b", "label": []}]))
    assert [row["entities"] for row in read(path)] == [
        [{"start": 0, "end": 3, "label": "PER"}], [],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["comments", "relations"])
def test_a_field_that_doccano_also_has_is_its_own_only_as_a_list(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.jsonl"
    own: list[Any] = [12, "fine", None]
    path.write_text(lines([{"text": "a", "label": ["x"], name: value} for value in own]))
    assert [row[name] for row in read(path)] == own
    assert unread(path) == {}
    path.write_text(lines([{"text": "a", "label": ["x"], name: [{"id": 1}] * 2}]))
    assert read(path) == [{"text": "a", "label": "x"}]
    assert [*unread(path).values()] == [2]


@pytest.mark.parametrize("ending", ["jsonl", "ndjson"])
def test_classes_with_a_score_of_at_least_a_half_apply(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_text(
        lines(
            [{"text": "a", "cats": {"X": 1, "Y": 0.0}}, {"text": "b", "cats": {"X": 0, "Y": 0.7}}]
        )
    )
    assert read(path) == [{"text": "a", "label": "X"}, {"text": "b", "label": "Y"}]
    path.write_text(lines([{"text": "a", "cats": {"X": 1, "Y": 1}}]))
    assert read(path) == [{"text": "a", "labels": ["X", "Y"]}]


def test_words_that_dialogflow_ignores_are_no_entity(tmp_path: Path) -> None:
    path = tmp_path / "fly_usersays_en.json"
    piece = {"text": "please", "meta": "@sys.ignore", "alias": "ignore"}
    path.write_text(json.dumps([{"data": [piece, {"text": " go"}], "isTemplate": False}]))
    assert read(path) == [{"text": "please go", "entities": [], "label": "fly"}]


def test_annotations_of_spacy_may_be_indented(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    pair = ["Ada", {"entities": [[0, 3, "PER"]]}]
    path.write_text(json.dumps({"classes": ["PER"], "annotations": [pair]}, indent=2))
    assert read(path) == [{"text": "Ada", "entities": [{"start": 0, "end": 3, "label": "PER"}]}]


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json"])
def test_pairs_of_spacy_may_be_one_a_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    ada = ["Ada", {"entities": [[0, 3, "PER"]], "cats": {"A": 1.0}}]
    path.write_text(lines([ada, "", ["Bo", {"entities": 5}], ["Cy", {}], '["Di", {']))
    errors: list[DataError] = []
    found = [(row.line, row.fields) for row in read_rows(path, on_error=errors.append)]
    entity = {"start": 0, "end": 3, "label": "PER"}
    assert found == [(1, {"text": "Ada", "entities": [entity], "label": "A"}), (4, {"text": "Cy"})]
    assert f"x.{ending}:3: `entities` is 5" in str(errors[0])
    assert f"x.{ending}:5: broken JSON at column 9" in str(errors[1])


def test_files_of_other_tools_are_answered_with_the_way_to_convert_them(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("#FORMAT=WebAnno TSV 3.3\n\n#Text=Ada\n1-1\t0-3\tAda\tPER\n")
    assert "the file is WebAnno TSV" in message(path)
    assert "Export it from INCEpTION as CoNLL 2002" in message(path)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"id": 0, "paragraphs": [{"sentences": []}]}], indent=1))
    assert "the file is the training data of spaCy 2" in message(path)
    assert "spacy convert FILE ." in message(path)
    path.write_text(json.dumps([{"id": 0, "paragraphs": [{"heading": "x"}], "text": "a"}]))
    assert read(path)[0]["text"] == "a"


SPAN = {"start": 0, "end": 3, "label": "PER"}


@pytest.mark.parametrize(
    ("record", "tool", "advice"),
    [
        (
            {
                "id": "0",
                "fields": {"text": "Ada"},
                "suggestions": {},
                "responses": {"ner": [{"value": [SPAN], "user_id": "u"}]},
            },
            "an export of Argilla",
            "`text`, from `fields`, and the value of one response to each question as `label`",
        ),
        (
            {"examples": [{"example_id": "0", "content": "Ada", "annotations": []}]},
            "an export of LightTag",
            "`text`, the `content` of an example",
        ),
        (
            {
                "content": "Ada",
                "annotation": [{"label": ["PER"], "points": [{"start": 0, "end": 2}]}],
                "extras": None,
            },
            "an export of Dataturks",
            "the `end` of a point + 1",
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_of_other_tools_is_answered_once_with_the_fields_to_write(
    record: dict[str, Any], tool: str, advice: str, indent: int | None, tmp_path: Path
) -> None:
    is_line = indent is None or "examples" in record
    path = tmp_path / "x.json"
    path.write_text(json.dumps(record if is_line else [record], indent=indent))
    errors: list[DataError] = []
    with pytest.raises(DataError, match=f"the file is {tool}") as caught:
        list(read_rows(path, on_error=errors.append))
    assert advice in str(caught.value)
    assert errors == []


def test_texts_of_dataturks_are_read_where_their_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"content": "Ada", "annotation": None, "extras": None}))
    assert read(path, names={"content": "text"})[0]["text"] == "Ada"


def test_tokens_that_are_objects_beside_a_text_are_not_read_as_words(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    places = {"id": 0, "start": 0, "end": 3}
    path.write_text(json.dumps({"text": "Ada", "ents": [SPAN], "tokens": [places]}))
    assert read(path) == [{"text": "Ada", "ents": [SPAN]}]
    assert unread(path) == {}
    entity = {"text": "Ada", "start": 0, "end": 3, "entityLabel": "PER"}
    path.write_text(json.dumps({"document": "Ada", "tokens": [entity]}))
    layout = Layout(names={"document": "text"})
    counts: dict[str, int] = {}
    (row,) = read_rows(path, layout=layout, on_unread=counts.update)
    assert row.fields == {"text": "Ada"}
    assert counts == {"lists of `tokens` that are objects rather than words": 1}
    # The user says that they are words, or no text stands beside them.
    path.write_text(json.dumps({"text": "Ada", "words": [places]}))
    assert read(path, names={"words": "tokens"}) == [{"text": "Ada", "tokens": [places]}]
    path.write_text(json.dumps({"tokens": [places]}))
    assert read(path) == [{"tokens": [places]}]


def test_every_format_has_a_name_and_is_described() -> None:
    assert all(name == name.lower() and form.description for name, form in FORMATS.items())
