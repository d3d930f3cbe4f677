"""Files as tools write them: each format is written from records and read back the same."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.data.infer_tasks import infer_tasks
from manyheads.data.readers import FORMATS, Layout, read_rows
from manyheads.data.readers.parquet_footer import ColumnSize, column_sizes
from manyheads.errors import DataError

QUICK = settings(deadline=None, max_examples=40)


@dataclass(frozen=True)
class Sample:
    """A sentence of words with single spaces, entities by first and last word, and an intent."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]
    label: str

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def entities(self) -> list[dict[str, Any]]:
        found = []
        for first, last, label in self.spans:
            start = len(" ".join(self.words[:first])) + (first > 0)
            end = start + len(" ".join(self.words[first : last + 1]))
            found.append({"start": start, "end": end, "label": label})
        return found

    @property
    def tags(self) -> list[str]:
        tags = ["O"] * len(self.words)
        for first, last, label in self.spans:
            tags[first : last + 1] = [f"{'BI'[i > 0]}-{label}" for i in range(last - first + 1)]
        return tags

    def pieces(self) -> list[tuple[str, str | None]]:
        """The text cut at its entities."""
        found: list[tuple[str, str | None]] = []
        end = 0
        for item in self.entities:
            found += [(self.text[end : item["start"]], None)] * (item["start"] > end)
            found.append((self.text[item["start"] : item["end"]], item["label"]))
            end = item["end"]
        return found + [(self.text[end:], None)] * (end < len(self.text))


names = st.sampled_from(["city", "date", "artist_name"])
words = st.text(alphabet="abcXYZ019é中", min_size=1, max_size=5)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    some = draw(st.lists(words, min_size=1, max_size=7))
    spans, start = [], 0
    while start < len(some) and draw(st.booleans()):
        first = draw(st.integers(start, len(some) - 1))
        last = draw(st.integers(first, min(first + 2, len(some) - 1)))
        spans.append((first, last, draw(names)))
        start = last + 1
    return Sample(tuple(some), tuple(spans), draw(st.sampled_from(["alarm_set", "greet", "bye"])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for property tests, each of which overwrites its own file again and again."""
    return tmp_path_factory.mktemp("tools")


def lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def markup(sample: Sample, form: str) -> str:
    return "".join(
        text if label is None else form.format(text=text, label=label)
        for text, label in sample.pieces()
    )


def by_intent(items: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for item in items:
        found.setdefault(item.label, []).append(item)
    return found


def label_studio(items: Sequence[Sample]) -> str:
    def result(item: Sample) -> list[Any]:
        spans = [
            {"from_name": "ner", "to_name": "text", "type": "labels",
             "value": {"start": e["start"], "end": e["end"], "labels": [e["label"]]}}
            for e in item.entities
        ]  # fmt: skip
        choice = {"from_name": "intent", "to_name": "text", "type": "choices",
                  "value": {"choices": [item.label]}}  # fmt: skip
        return [*spans, choice]

    tasks = [
        {"id": i, "data": {"text": item.text}, "annotations": [
            {"was_cancelled": True, "result": []}, {"was_cancelled": False, "result": result(item)}
        ]}
        for i, item in enumerate(items)
    ]  # fmt: skip
    # The first span of a file shows which question the spans answer.
    return json.dumps(tasks, indent=2)


def label_studio_min(items: Sequence[Sample]) -> str:
    return json.dumps(
        [
            {"id": 1, "text": i.text, "annotator": 1, "annotation_id": 2, "lead_time": 3.5,
             "intent": {"choices": [i.label]}}
            | ({"ner": [{"start": e["start"], "end": e["end"], "labels": [e["label"]],
                         "text": i.text[e["start"] : e["end"]]} for e in i.entities]}
               if i.spans else {})
            for i in items
        ]
    )  # fmt: skip


def prodigy(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"text": i.text, "accept": [i.label], "options": [], "_task_hash": 1,
             "_view_id": "blocks", "answer": "accept", "spans": i.entities,
             "tokens": [{"text": w, "id": n, "start": 0, "end": 1} for n, w in enumerate(i.words)]}
            for i in items
        ]
    )  # fmt: skip


def doccano(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"id": 1, "text": i.text, "cats": [i.label], "Comments": [],
             "entities": [[e["start"], e["end"], e["label"]] for e in i.entities]}
            for i in items
        ]
    )  # fmt: skip


def spacy_pairs(items: Sequence[Sample]) -> str:
    return json.dumps(
        [
            [i.text, {"entities": [[e["start"], e["end"], e["label"]] for e in i.entities],
                      "cats": {"greet": 0.0, "bye": 0.0, "alarm_set": 0.0, i.label: 1.0}}]
            for i in items
        ],
        indent=1,
    )  # fmt: skip


def rasa_json(items: Sequence[Sample]) -> str:
    examples = [
        {"text": i.text, "intent": i.label, "entities": [
            {"start": e["start"], "end": e["end"], "entity": e["label"]} for e in i.entities]}
        for i in items
    ]  # fmt: skip
    data = {"regex_features": [{"name": "zip"}], "common_examples": examples}
    return json.dumps({"rasa_nlu_data": data}, indent=1)


def rasa_yaml(items: Sequence[Sample]) -> str:
    return 'version: "3.1"\nnlu:\n- lookup: city\n  examples: |\n    - Oslo\n' + "".join(
        f"- intent: {i.label}\n  examples: |\n    - {markup(i, '[{text}]({label})')}\n"
        for i in items
    )


def rasa_markdown(items: Sequence[Sample]) -> str:
    return "## synonym:x\n- y\n\n" + "".join(
        f"## intent:{i.label}\n- {markup(i, '[{text}]({label}:x)')}\n\n" for i in items
    )


def snips(items: Sequence[Sample]) -> str:
    return json.dumps(
        {
            intent: [
                {"data": [{"text": t} | ({"entity": e} if e else {}) for t, e in i.pieces()]}
                for i in some
            ]
            for intent, some in by_intent(items).items()
        }
    )


def luis(items: Sequence[Sample]) -> str:
    utterances = [
        {"text": i.text, "intent": i.label, "entities": [
            {"entity": e["label"], "startPos": e["start"], "endPos": e["end"] - 1}
            for e in i.entities]}
        for i in items
    ]  # fmt: skip
    return json.dumps({"luis_schema_version": "7.0.0", "intents": [], "utterances": utterances})


def massive(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"id": "1", "partition": "train", "intent": i.label, "utt": i.text,
             "annot_utt": markup(i, "[{label} : {text}]")}
            for i in items
        ]
    )  # fmt: skip


def hwu(items: Sequence[Sample]) -> str:
    return "userid;scenario;intent;answer_annotation;answer\n" + "".join(
        f"1;alarm;{i.label};{markup(i, '[{label} : {text}]')};{i.text}\n" for i in items
    )


WITH_BOTH: dict[str, tuple[str, Callable[[Sequence[Sample]], str]]] = {
    "label-studio": ("x.json", label_studio),
    "prodigy": ("x.jsonl", prodigy),
    "doccano": ("x.jsonl", doccano),
    "spacy": ("x.json", spacy_pairs),
    "rasa-json": ("x.json", rasa_json),
    "rasa": ("nlu.yml", rasa_yaml),
    "rasa-markdown": ("nlu.md", rasa_markdown),
    "snips": ("x.json", snips),
    "luis": ("x.json", luis),
    "massive": ("x.jsonl", massive),
    "hwu": ("x.csv", hwu),
}


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in read_rows(path, layout=Layout(**options))]


def unread(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in read_rows(path, on_unread=counts.update):
        pass
    return counts


def message(path: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        for _ in read_rows(path, layout=Layout(**options)):
            pass
    return str(caught.value)


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
    assert unread(path) == {"relations": 1, "notes": 1}


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


# CoNLL columns that are not the token first and its tag last.


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


# Annotations that are not accepted, and classes that are one or several.


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


def test_classes_with_a_score_of_at_least_a_half_apply(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        lines(
            [{"text": "a", "cats": {"X": 1, "Y": 0.0}}, {"text": "b", "cats": {"X": 0, "Y": 0.7}}]
        )
    )
    assert read(path) == [{"text": "a", "label": "X"}, {"text": "b", "label": "Y"}]
    path.write_text(lines([{"text": "a", "cats": {"X": 1, "Y": 1}}]))
    assert read(path) == [{"text": "a", "labels": ["X", "Y"]}]


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


# Tables.


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
    assert "by number: --text-field 1 --map 2=label" in text
    assert read(path, names={"2": "text", "3": "label"}) == [
        {"1": "12", "text": "my card is lost", "label": "card"},
        {"1": "13", "text": "hello", "label": "greet"},
    ]


def test_a_number_before_a_text_and_a_number_is_an_id_and_not_a_scored_pair(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("12,my card is lost,0\n")
    assert "only: 12, my card is lost, 0" in message(path)
    path.write_text("a dog runs,a cat runs,0\n")
    assert read(path) == [{"text": "a dog runs", "text2": "a cat runs", "score": "0"}]


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


def test_semicolons_separate_cells_if_they_do_so_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text;label\n"a; b, c";x\n')
    assert read(path) == [{"text": "a; b, c", "label": "x"}]
    path.write_text("body;label\na;x\n")
    assert read(path, names={"body": "text"}) == [{"text": "a", "label": "x"}]


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


@given(st.lists(st.tuples(words, st.none() | words), min_size=1, max_size=5))
@settings(deadline=None, max_examples=10)
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


# Compressed and binary files.


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl.gz", b'{"text": "a"}\n'),
        ("x.csv.gz", b"text\na\n"),
        ("x.json.gz", b'[{"text": "a"}]'),
    ],
)
def test_gzip_is_unpacked_while_reading(name: str, content: bytes, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / name
    packed = gzip.compress(content, mtime=0)
    path.write_bytes(packed)
    assert read(path) == [{"text": "a"}]
    path.write_bytes(packed[:-12])
    assert "not a sound gzip file" in message(path)
    path.write_bytes(content)
    assert "not a sound gzip file" in message(path)


@given(st.lists(words, min_size=1, max_size=5))
@settings(deadline=None, max_examples=10)
def test_saved_data_sets_round_trip(folder: Path, texts: list[str]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    table = {"text": texts, "label": [i % 2 for i in range(len(texts))]}
    data = datasets.Dataset.from_dict(table, features=features)
    expected = [{"text": t, "label": ["no", "yes"][i % 2]} for i, t in enumerate(texts)]
    path = folder / f"saved{len(texts)}"
    data.save_to_disk(path)
    assert read(path) == expected
    (file,) = path.glob("*.arrow")
    assert read(file) == expected
    several = folder / f"splits{len(texts)}"
    datasets.DatasetDict(train=data, test=data).save_to_disk(several)
    assert read(Path(f"{several}@test")) == expected
    assert "several splits; expected one of: " in message(several)


def test_an_invalid_arrow_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.arrow"
    path.write_bytes(b"ARROW1 and no more")
    assert "not a sound Arrow file after 0 rows" in message(path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text("{}")
    assert "expected names of files in the folder" in message(tmp_path)


# A generated case: a footer with statistics that do not fit its column's type.
_DAMAGED_PARQUET = (
    "c-n1}%}&BV5XWarZP0K4;x@ZU4?RfZ0Y5N-7{kFqQB+V$VvNVqG^jyAK*hv^2ag^+_)tEEPvP0w7WoLyVP^WDncq"
    "&cTgOI@>s)ZFN&(UUiEIo2JiEy#_#Aken^~$Qxxo#q0ISRwF)F80RA00;@;YNNjartu_@gYXsPUn4&;K!=1sl#2W"
    "HArI==)c}t;coX@r)+)K`<O-plVSYPmr+C_L@O^q?o$2WYz(TCuAOsq>TExX6oh}GvArB>%?cbmTD8=8jwp;D4KC"
    ";NC$MnO@pFyLedMdoG<2lvgzgLLHZbEzS5i%H$OCxmPlZuadxp2{h0V>8_Ei(%*Dt~5TCHr!UMz>?zKX#R6?w&WD"
    "oHu6eba)G|EDMdPC4{O3DZ2Pz)hu9NW1P`<EBT?WX#yh5as;T*W^`^l^U#8xOhX;eM5wRY&Jl8ttIs;$&n}2Vr-;"
    "-u*)`So6ExHLus}JlT&yuYcXSv$qQCo9j85rR!5S_(N}`POtD6MyPj("
)


def test_a_footer_at_which_pyarrow_ends_the_process_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(_DAMAGED_PARQUET)))
    assert "not a sound Parquet file after 0 rows" in message(path)


def test_the_sizes_in_a_footer_are_those_that_pyarrow_reads(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    nested = {"text": ["a b"] * 50, "n": range(50), "l": [[1, 2]] * 50, "s": [{"a": 1.5}] * 50}
    pq.write_table(pa.table(nested), path, row_group_size=20)
    metadata = pq.ParquetFile(path).metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = [(group, group.column(i)) for group in groups for i in range(group.num_columns)]
    assert list(column_sizes(path)) == [
        ColumnSize(
            column.path_in_schema, group.num_rows, column.num_values,
            column.total_uncompressed_size, column.total_compressed_size,
        )
        for group, column in columns
    ]  # fmt: skip


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("form", ["new_file", "new_stream"])
def test_a_small_arrow_file_does_not_fill_the_memory(
    form: str, codec: str | None, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    path = tmp_path / "x.arrow"

    def save(texts: list[str]) -> None:
        table = pa.table({"text": pa.array(texts).dictionary_encode()})
        options = ipc.IpcWriteOptions(compression=codec)
        with getattr(ipc, form)(path, table.schema, options=options) as writer:
            writer.write_table(table)

    save(["a b", "c"])
    assert read(path) == [{"text": "a b"}, {"text": "c"}]
    if codec == "zstd":
        save(["a" * 2**27])
        assert "a batch unpacks from " in message(path)


def test_a_small_parquet_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    large = ["a" * 20_000_000, "b" * 20_000_000]
    pq.write_table(pa.table({"text": large}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    assert "the column 'text' unpacks from " in message(path)
    repeated = pa.array(["b" * 100_000] * 200)
    pq.write_table(pa.table({"text": repeated}), path, compression="zstd")
    read_one_by_one = read_rows(path, limit_bytes=200_000)
    assert sum(len(row.fields["text"]) for row in read_one_by_one) == 20_000_000
    with pytest.raises(DataError, match="a text of 100,000 bytes; expected at most 50,000"):
        list(read_rows(path, limit_bytes=50_000))


def test_documents_of_spacy_are_read(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import DocBin

    nlp, path = spacy.blank("en"), tmp_path / "x.spacy"
    document = nlp("Ada lives in Oslo")
    document.ents = [document.char_span(0, 3, label="PER")]
    document.cats = {"A": 1.0, "B": 0.0}
    DocBin(docs=[document]).to_disk(path)
    entity = {"start": 0, "end": 3, "label": "PER"}
    assert read(path)[0]["entities"] == [entity]
    path.write_bytes(b"broken")
    assert "not a sound .spacy file after 0 documents" in message(path)


def test_every_format_has_a_name_and_is_described() -> None:
    assert all(name == name.lower() and form.description for name, form in FORMATS.items())
