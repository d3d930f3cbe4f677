"""Label Studio's exports: several questions, answers about parts of a text, the short forms."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from files import message, read, unread
from manyheads.config import TaskConfig
from manyheads.data.infer_tasks import infer_tasks
from manyheads.data.readers import Layout, read_rows
from manyheads.data.records import read_records
from manyheads.errors import DataError

OSLO = {"start": 3, "end": 7, "text": "Oslo"}
CITY = OSLO | {"label": "city"}


def task(text: str, *results: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A task with one annotation, of results by the names of their questions."""
    result = [
        {"from_name": name, "type": "labels" if "labels" in value else "choices", "value": value}
        for name, value in results
    ]
    return {"data": {"text": text}, "annotations": [{"result": result}]}


def choice(*classes: str, **part: Any) -> dict[str, Any]:
    return {"choices": [*classes], **part}


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write records as JSON, or as a table whose cells hold what is not text as JSON."""
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
        return path
    with path.open("w", newline="") as file:
        columns = {name: None for record in records for name in record}
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(columns)
        for record in records:
            cells = [record.get(name, "") for name in columns]
            writer.writerow([c if type(c) is str else json.dumps(c) for c in cells])
    return path


def test_choices_about_a_part_of_a_text_are_no_class_of_the_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        [task("to Oslo", ("ner", {**OSLO, "labels": ["city"]}), ("tone", choice("good", **OSLO)))],
    )
    assert read(path) == [{"text": "to Oslo", "entities": [CITY]}]
    assert unread(path) == {"choices about a part of a text": 1}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"annotations": 12}, "`annotations` is 12"),
        ({"completions": "x", "annotations": "x"}, "`annotations` is 'x'"),
        ({"annotations": [{"result": 12}]}, "`result` is 12"),
        ({"annotations": [{"result": {"type": "labels"}}]}, "`result` is {'type': 'labels'}"),
    ],
)
def test_a_task_whose_annotations_are_no_list_is_refused(
    fields: dict[str, Any], found: str, tmp_path: Path
) -> None:
    sound = task("to Oslo", ("ner", {**OSLO, "labels": ["city"]}))
    path = write(tmp_path / "x.json", [sound, {"data": {"text": "a"}, **fields}])
    assert f"(record 2): {found}; expected a list" in message(path)
    # Predictions need the text alone.
    assert [row.fields["text"] for row in read_rows(path, needs_labels=False)] == ["to Oslo", "a"]


@pytest.mark.parametrize("ending", ["json", "csv"])
@pytest.mark.parametrize("name", ["annotations", "completions"])
def test_a_column_of_the_short_form_may_have_a_name_of_the_long_form(
    name: str, ending: str, tmp_path: Path
) -> None:
    told = {"annotation_id": 1, "lead_time": 3.5}
    records = [{"text": text, name: "some answer", **told} for text in ("hi", "ho")]
    assert [row[name] for row in read(write(tmp_path / f"x.{ending}", records))] == [
        "some answer", "some answer",
    ]  # fmt: skip


def test_a_question_with_several_classes_has_lists_in_all_records(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        [
            task("a", ("intent", choice("ask")), ("topics", choice("x"))),
            task("b", ("intent", choice("tell")), ("topics", choice("x", "y"))),
            task("c", ("topics", choice())),
        ],
    )
    assert read(path) == [
        {"text": "a", "intent": "ask", "topics": ["x"]},
        {"text": "b", "intent": "tell", "topics": ["x", "y"]},
        {"text": "c", "topics": []},
    ]


def test_a_text_without_spans_in_one_of_several_layers_has_no_entities_there(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path / "x.json",
        [
            task("to Oslo", ("places", {**OSLO, "labels": ["city"]})),
            task("Ada", ("people", {"start": 0, "end": 3, "labels": ["PER"]})),
            {"data": {"text": "not annotated"}, "annotations": []},
        ],
    )
    assert read(path) == [
        {"text": "to Oslo", "places": [CITY], "people": []},
        {"text": "Ada", "places": [], "people": [{"start": 0, "end": 3, "label": "PER"}]},
        {"text": "not annotated"},
    ]


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.tsv"])
def test_the_short_forms_write_one_class_of_several_as_a_text(name: str, tmp_path: Path) -> None:
    own = {"annotator": 1, "annotation_id": 2, "lead_time": 3.5}
    spans = [{**OSLO, "labels": ["city"]}]
    path = write(
        tmp_path / name,
        [
            {"text": "to Oslo", "ner": spans, "topics": "x", "intent": "go", **own},
            {"text": "hello, you", "topics": {"choices": ["x", "y"]}, "intent": "greet", **own},
            {"text": "bye", "topics": "y", "intent": "end", **own},
        ],
    )
    assert read(path) == [
        {"text": "to Oslo", "intent": "go", "entities": [CITY], "labels": ["x"]},
        {"text": "hello, you", "intent": "greet", "labels": ["x", "y"], "entities": []},
        {"text": "bye", "intent": "end", "labels": ["y"], "entities": []},
    ]


@pytest.mark.parametrize("is_short", [False, True])
def test_a_question_that_a_multilabel_task_reads_has_lists_in_every_file(
    tmp_path: Path, is_short: bool
) -> None:
    def answer(name: str, *classes: str) -> tuple[str, Any]:
        one = choice(*classes)
        return name, (one if len(classes) > 1 else classes[0]) if is_short else one

    def file(name: str, *answers: list[tuple[str, Any]]) -> str:
        own = {"annotation_id": 2, "lead_time": 3.5}
        items = [{"text": "a", **dict(some), **own} if is_short else task("a", *some)
                 for some in answers]  # fmt: skip
        return str(write(tmp_path / name, items))

    two = [answer("intent", "ask"), answer("topics", "x", "y")]
    if is_short:
        two.append(answer("places", "o", "p"))
    several = file("several.json", two, two, two)
    tell = [answer("intent", "tell"), answer("topics", "x")]
    single = file("single.json", tell, tell, [answer("intent", "ask"), answer("topics", "y")])
    for files in ([several, single], [single, several]):
        kinds = {task.name: task.kind for task in infer_tasks(files).tasks}
        assert kinds.items() >= {"intent": "classification", "topics": "multilabel"}.items()
    tasks = {"topics": TaskConfig(kind="multilabel", field="topics")}
    found = [record.labels["topics"] for record in read_records(single, tasks, {})]
    assert found == [("x",), ("x",), ("y",)]


def answers(*classes: str, **facts: bool) -> dict[str, Any]:
    """An annotation with a class, and what Label Studio says about it."""
    return {**task("", ("intent", choice(*classes)))["annotations"][0], **facts}


@pytest.mark.parametrize(
    ("annotations", "label", "counts"),
    [
        (
            [answers("first"), answers("right", ground_truth=True), answers("last")],
            "right",
            {"annotations of a task beside its ground truth": 2},
        ),
        (
            [answers("first", was_cancelled=True, ground_truth=True), answers("right")],
            "right",
            {"cancelled annotations": 1},
        ),
        (
            [answers("x", was_cancelled=True), answers("right"), answers("z", ground_truth=False)],
            "right",
            {"cancelled annotations": 1, "second and further annotations of a task": 1},
        ),
        (
            [answers("x", was_cancelled=True)],
            None,
            {
                "cancelled annotations": 1,
                "tasks without an annotation (their texts are read)": 1,
            },
        ),
    ],
)
def test_the_ground_truth_counts_before_the_first_annotation_unless_it_is_cancelled(
    annotations: list[dict[str, Any]], label: str | None, counts: dict[str, int], tmp_path: Path
) -> None:
    path = write(tmp_path / "x.json", [{"data": {"text": "hi"}, "annotations": annotations}])
    assert [row.get("label") for row in read(path)] == [label]
    assert unread(path) == counts


@pytest.mark.parametrize(
    ("covered", "shown"),
    [
        ("New\nYork", r"New\nYork"),
        ("New\r\nYork", r"New\r\nYork"),
        ("New\r\nYork", "New\nYork"),
        ("New  \tYork", "New York"),
    ],
)
@pytest.mark.parametrize("name", ["text", "body"])
@pytest.mark.parametrize("is_short", [False, True])
def test_the_text_of_a_span_may_differ_in_white_space_as_the_page_shows_it(
    covered: str, shown: str, name: str, is_short: bool, tmp_path: Path
) -> None:
    def read_with(shown: str) -> Any:
        span = {"start": 3, "end": 3 + len(covered), "text": shown, "labels": ["city"]}
        text = f"to {covered}"
        long = {**task("", ("ner", span)), "data": {name: text}}
        short = {name: text, "ner": [span], "annotation_id": 2, "lead_time": 3.5}
        path = str(write(tmp_path / "x.json", [short if is_short else long]))
        layout = Layout(names={} if name == "text" else {name: "text"})
        tasks = {"ner": TaskConfig(kind="tagging")}
        return next(iter(read_records(path, tasks, {}, layout=layout))).spans("ner")

    (span,) = read_with(shown)
    assert (span.start, span.end, span.label) == (3, 3 + len(covered), "city")
    with pytest.raises(DataError, match="but has the text 'New Yor'"):
        read_with("New Yor")
