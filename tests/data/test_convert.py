"""Conversion: records of any format become JSON lines or a labelling tool's file without loss."""

from __future__ import annotations

import json
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
from manyheads.errors import DataError, RequestError

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
        {"text": "hi you", "entities": [[0, 2, "x"]], "cats": ["greet"]},
        {"text": "bye", "entities": [[0, 3, "x"]], "cats": ["bye"]},
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
    assert message.endswith(f"name the fields to write: `layout=Layout(names={json.dumps(names)})`")
    layout = Layout(names=names)
    convert(source, target, to="doccano", layout=layout, warn=heard.append)
    assert len(heard) == 1
    first, second, *_ = map(json.loads, target.read_text().splitlines())
    assert first == {"text": "hi 0", "entities": [], "cats": ["a"]}
    assert second == {"text": "hi 1", "entities": [[0, 2, "who"]], "cats": ["b"]}


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
