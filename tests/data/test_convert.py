"""Conversion: records of any format become JSON lines or a labelling tool's file without loss."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manyheads
from files import read, write
from manyheads.data.convert import convert
from manyheads.data.readers import Layout
from manyheads.errors import DataError, RequestError, worded_for_command

words = st.text(alphabet="abcé中", min_size=1, max_size=5)


records = st.builds(
    lambda one, two, label: {
        "text": f"{one} {two}",
        "label": label,
        "entities": [{"start": 0, "end": len(one), "label": "city"}],
    },
    words,
    words,
    st.sampled_from(["greet", "bye"]),
)


@given(st.lists(records, min_size=1, max_size=4))
@pytest.mark.parametrize("tool", ["doccano", "label-studio", "manyheads"])
@settings(max_examples=30)
def test_files_written_for_a_tool_are_read_back(
    folder: Path, tool: str, items: list[dict[str, Any]]
) -> None:
    source = write(folder / "ours.jsonl", *items)
    target = folder / ("x.json" if tool == "label-studio" else "x.jsonl")
    assert convert(source, target, to=tool) == len(items)
    for row, item in zip(read(target), items, strict=True):
        entities = [{k: e[k] for k in ("start", "end", "label")} for e in row["entities"]]
        assert {**row, "entities": entities} == item


def test_records_without_entities_keep_their_classes_on_the_way_through_doccano(
    tmp_path: Path,
) -> None:
    items: list[dict[str, Any]] = [
        {"text": text, "label": "greet", "entities": []} for text in ("hi", "hello")
    ]
    target = tmp_path / "x.jsonl"
    convert(write(tmp_path / "ours.jsonl", *items), target, to="doccano")
    assert read(target) == items
    # Without the comments that doccano writes, `cats` is a field of the user's own.
    ours = [{**items[0], "cats": ["a"]}, {"text": "hi", "cats": [], "entities": []}]
    assert read(write(tmp_path / "cats.jsonl", *ours)) == ours
    # Records without classes have no field more than before.
    plain = [{"text": "hi", "entities": []}]
    convert(write(tmp_path / "ours.jsonl", *plain), target, to="doccano")
    assert read(target) == plain


def test_tags_become_entities_for_a_tool(tmp_path: Path) -> None:
    source = write(
        tmp_path / "x.jsonl", {"tokens": ["to", "New", "York"], "ner": ["O", "B-c", "I-c"]}
    )
    target = tmp_path / "out.jsonl"
    convert(source, target, to="doccano")
    assert json.loads(target.read_text()) == {"text": "to New York", "entities": [[3, 11, "c"]]}
    plain = write(tmp_path / "y.jsonl", {"tokens": ["a"], "ner": ["NOUN"]})
    with pytest.raises(DataError, match=r"y\.jsonl:1: `ner` has a class for each word"):
        convert(plain, target, to="doccano")


@pytest.mark.parametrize("tool", ["doccano", "label-studio"])
def test_words_without_a_label_are_counted_for_a_tool(tool: str, tmp_path: Path) -> None:
    tags: list[list[Any]] = [["O", "B-c", None], ["-", "B-c", -100], [None] * 3, ["O"] * 3]
    words = ["to", "Oslo", "now"]
    source = write(tmp_path / "x.jsonl", *({"tokens": words, "ner": one} for one in tags))
    target = tmp_path / "out.json"
    unread: dict[str, int] = {}
    convert(source, target, to=tool, on_unread=unread.update)
    assert unread == {"marks of words without a label, which are outside entities for a tool": 3}
    # A text in which no word has a label is not annotated, so predictions can be.
    rows = read(target, format=tool)
    assert ["entities" in row for row in rows] == [True, True, False, True]


@pytest.mark.parametrize("field", ["label", "labels"])
def test_a_class_for_a_tool_may_be_in_a_list_or_not(tmp_path: Path, field: str) -> None:
    classes: list[Any] = ["ask", ["ask"], 1, ["a", "b"]]
    source = write(tmp_path / "x.jsonl", *({"text": "a", field: value} for value in classes))
    target = tmp_path / "out.jsonl"
    convert(source, target, to="doccano", layout=Layout(format="jsonl"))
    found = [json.loads(line)["label"] for line in target.read_text().splitlines()]
    assert found == [["ask"], ["ask"], ["1"], ["a", "b"]]


SPAN = {"start": 0, "end": 4, "label": "a"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"text": "oak tree", "entities": [SPAN, {**SPAN, "start": 2}]},
             {"text": "fir tree", "entities": [SPAN]}],
            "training would refuse the labels of 1 record, such as {source}:1: `entities` has "
            "overlapping entities, 'oak ' (a, 0 to 4) and 'k ' (a, 2 to 4); "
            "`manyheads.check({target!r})` lists them",
        ),
        (
            [{"text": "a b", "ner": ["O", "LOC"]}] * 2,
            "training would refuse the labels of 2 records, such as {source}:1: the tags of the "
            "task 'ner' are `O` and names without a prefix, such as 'LOC'; "
            "`manyheads.check({target!r})` lists them",
        ),
        ([{"text": f"a {i}", "label": i / 2, "entities": []} for i in range(9)], ""),
        ([{"text": f"a {i}", "label": "p", "labels": "xy"[i % 2]} for i in range(9)], ""),
    ],
)  # fmt: skip
def test_records_that_training_would_refuse_are_written_with_a_warning(
    tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    source, target = write(tmp_path / "x.jsonl", *records), str(tmp_path / "y.jsonl")
    heard: list[str] = []
    assert manyheads.convert(source, target, warn=heard.append) == len(records)
    assert read(target) == records
    assert heard == [message.format(source=source, target=target)] * bool(message)


def test_any_format_is_converted_by_the_layout(tmp_path: Path) -> None:
    source = tmp_path / "x.csv"
    source.write_text("body,topic,note\na b,x,\n")
    target = tmp_path / "out.jsonl"
    layout = Layout(names={"body": "text", "topic": "label"})
    assert manyheads.convert(source, target, layout=layout) == 1
    assert read(target) == [{"text": "a b", "label": "x"}]


class Answers:
    """Predictions that find the first word."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_json(self) -> dict[str, Any]:
        word = self.text.split()[0]
        entity = {"text": word, "label": "x", "start": 0, "end": len(word), "score": 0.75}
        return {
            "text": self.text,
            "ner": {"entities": [entity], "tokens": []},
            "intent": {"label": "greet", "id": 0, "score": 0.5},
        }


def predict(texts: Iterable[str]) -> Iterator[Answers]:
    # In chunks, as the predictor does: all texts are read before the first answer comes.
    return iter([Answers(text) for text in texts])


def test_predictions_are_suggestions_beside_labels_or_replace_missing_ones(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "x.jsonl", {"text": "hi you"}, {"text": "bye", "label": "bye"})
    target = tmp_path / "out.jsonl"
    convert(source, target, to="doccano", predict=predict)
    assert [json.loads(line) for line in target.read_text().splitlines()] == [
        {"text": "hi you", "entities": [[0, 2, "x"]], "cats": ["greet"], "Comments": []},
        {"text": "bye", "entities": [[0, 3, "x"]], "cats": ["bye"], "Comments": []},
    ]
    convert(source, target, to="label-studio", predict=predict)
    first, second = json.loads(target.read_text())
    assert "annotations" not in first
    (suggestion,) = first["predictions"]
    assert suggestion["score"] == 0.5
    assert [item["type"] for item in suggestion["result"]] == ["labels", "choices"]
    assert second["annotations"][0]["result"][0]["value"] == {"choices": ["bye"]}


def test_labels_that_a_tool_file_lacks_are_named_with_the_option_that_writes_them(
    tmp_path: Path,
) -> None:
    slots = [{"start": 0, "end": 2, "label": "who"}]
    source = write(
        tmp_path / "x.jsonl",
        *({"text": f"hi {i}", "intent": "ab"[i % 2], "slots": slots * (i % 2), "id": f"n{i}"}
          for i in range(8)),
    )  # fmt: skip
    target = tmp_path / "out.jsonl"
    heard: list[str] = []
    unread: dict[str, int] = {}
    convert(source, target, to="doccano", warn=heard.append, on_unread=unread.update)
    assert unread == {"the field `intent`": 8, "the field `slots`": 8, "the field `id`": 8}
    names = {"intent": "label", "slots": "entities"}
    (message,) = heard
    assert message.startswith("the labels in `intent`, `slots` are not written: ")
    assert message.endswith(
        f"name one field for each to write it: `layout=Layout(names={json.dumps(names)})`"
    )
    layout = Layout(names=names)
    convert(source, target, to="doccano", layout=layout, warn=heard.append)
    assert len(heard) == 1
    first, second, *_ = map(json.loads, target.read_text().splitlines())
    assert first == {"text": "hi 0", "entities": [], "cats": ["a"], "Comments": []}
    assert second == {**first, "text": "hi 1", "entities": [[0, 2, "who"]], "cats": ["b"]}


LABELS: tuple[tuple[dict[str, list[Any]], str], ...] = (
    ({"label": ["a", "b"], "labels": [["x"], ["y"]]}, ""),
    ({"label": ["a", None], "intent": ["p", "q"]}, ""),
    ({"ner": [["O", "B-X"]], "entities": [[{"start": 0, "end": 1, "label": "Y"}]]}, ""),
    ({"pos": [["N", "N"], ["V", "N"]]}, ""),
    ({"intent": ["a", "b"], "topics": [["x"], ["y"], ["x", "y"]]}, "--map intent=label"),
    ({"main topic": ["a", "b"]}, "--map 'main topic=label'"),
    ({"label": ["a", "b"], "slots": [["O", "B-X"], ["O", "O"]]}, "--map slots=ner"),
)


@pytest.mark.parametrize(("fields", "advised"), LABELS)
def test_for_labels_that_a_tool_file_lacks_at_most_one_field_of_each_is_advised(
    fields: dict[str, list[Any]], advised: str, tmp_path: Path
) -> None:
    records = (
        {"text": f"hi {i}", **{name: value[i % len(value)] for name, value in fields.items()}}
        for i in range(12)
    )
    source = write(tmp_path / "x.jsonl", *records)
    target = tmp_path / "out.jsonl"
    heard: list[str] = []
    with worded_for_command():
        convert(source, target, to="doccano", warn=heard.append)
    (message,) = heard
    assert message.endswith(f"to write it: {advised}" if advised else "`ner`, `entities`")
    names = dict(word.split("=") for word in shlex.split(advised) if "=" in word)
    (ours,) = names.values() or ("",)
    convert(source, target, to="doccano", layout=Layout(names=names))
    written = "entities" if ours == "ner" else "label"
    assert not names or written in json.loads(target.read_text().splitlines()[0])


def test_a_field_that_the_layout_renames_is_advised_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("body,aim\n" + "a b,x\nc d,y\n" * 6, encoding="utf-8")
    names = {"body": "text", "aim": "intent"}
    heard: list[str] = []
    target = tmp_path / "out"
    convert(path, target, to="doccano", layout=Layout(names=names), warn=heard.append)
    assert heard[0].endswith(f"`layout=Layout(names={json.dumps(names | {'aim': 'label'})})`")


@pytest.mark.parametrize(
    ("header", "names", "fix", "first"),
    [
        ("", {}, '{"1": "text"}', {"1": "text"}),
        ("a,b,c\n", {"a": "text", "b": "text2"}, "do not read `b` as `text2`.", {"a": "text"}),
    ],
)
def test_pairs_with_other_names_are_refused_with_how_to_read_the_first_text(
    header: str, names: dict[str, str], fix: str, first: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"{header}a b,c d,1.5\nb c,d e,2.5\n", encoding="utf-8")
    target = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        convert(path, target, to="doccano", layout=Layout(names=names))
    assert fix in (caught.value.fix or "")
    assert convert(path, target, to="doccano", layout=Layout(names=first)) == 2


@pytest.mark.parametrize("tool", ["doccano", "label-studio"])
def test_pairs_are_refused_for_tools_of_single_texts(tmp_path: Path, tool: str) -> None:
    pair = {"text": "a dog", "text2": "an animal", "label": "entailment"}
    source = write(tmp_path / "x.jsonl", {"text": "a cat"}, pair)
    target = tmp_path / "out"
    with pytest.raises(DataError, match=rf"x\.jsonl:2: the record is a pair.* of {tool} holds"):
        convert(source, target, to=tool)
    assert not target.exists()
    layout = Layout(names={"text2": "second"})
    assert convert(source, target, to=tool, layout=layout) == 2


def test_contradictory_requests_are_refused_before_reading(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with pytest.raises(RequestError, match=r"no tool 'docano' .*did you mean \"doccano\""):
        convert("absent.jsonl", target, to="docano")
    with pytest.raises(RequestError, match="predictions cannot be written as labels in Manyheads"):
        convert("absent.jsonl", target, predict=predict)
    assert not target.exists()
