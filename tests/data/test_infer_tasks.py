"""Tasks are worked out from data files without a configuration."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from files import write
from manyheads.config import TaskConfig
from manyheads.data.check import Kind, Severity, check_data
from manyheads.data.infer_tasks import InferredTasks, infer_tasks
from manyheads.data.readers import Layout
from manyheads.data.records import read_records
from manyheads.errors import RequestError, worded_for_command


def inferred(folder: Path, records: Sequence[dict[str, Any]], **given: Any) -> InferredTasks:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return infer_tasks([str(path)], **given)


def records(count: int = 12, **fields: Sequence[Any]) -> list[dict[str, Any]]:
    """Records of three words each; a field cycles through its values, and None omits it."""
    return [
        {"text": f"sentence number {i}"}
        | {name: values[i % len(values)] for name, values in fields.items()}
        for i in range(count)
    ]


SPAN = [{"start": 0, "end": 8, "label": "THING"}]
CLASSES = {
    "kind": "classification", "start": "fitted", "pooling": ["embedding", "middle"],
    "label_smoothing": 0.1,
}  # fmt: skip
PAIR = {"text2": ["another sentence"]}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"topic": ["a", "b"]}, {"topic": CLASSES}),
        ({"label": [0, 1, 2]}, {"classification": CLASSES}),
        ({"urgent": [True, False]}, {"urgent": CLASSES}),
        ({"tones": [["a"], ["a", "b"], []]}, {"tones": {"kind": "multilabel"}}),
        ({"labels": [["a"], ["b", "c"]]}, {"multilabel": {"kind": "multilabel"}}),
        ({"price": [1.5, 2.25, 9]}, {"price": {"kind": "regression"}}),
        ({"value": [1, 2]}, {"value": {"kind": "regression"}}),
        (
            {"entities": [SPAN, []]},
            {"ner": {"kind": "tagging", "decoder": "crf", "neck": "bilstm"}},
        ),
        (
            {"tags": [["B-X", "I-X", "O"], ["O", "O", "O"]]},
            {"tags": {"kind": "tagging", "decoder": "crf", "neck": "bilstm"}},
        ),
        (
            {"ner": ["B-X O O", "O O B-Y"]},
            {"ner": {"kind": "tagging", "decoder": "crf", "neck": "bilstm"}},
        ),
        ({**PAIR, "label": ["same", "other"]}, {"label": {"kind": "pair"}}),
        ({**PAIR, "score": [0.0, 0.5]}, {"score": {"kind": "similarity"}}),
        (
            {**PAIR, "score": [0.0, 4.5]},
            {"score": {"kind": "similarity", "score_range": (0.0, 5)}},
        ),
    ],
)
def test_each_kind_is_recognised_by_the_values_of_a_field(
    tmp_path: Path, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    assert inferred(tmp_path, records(**fields)).options() == options


def test_several_fields_are_several_tasks_with_their_counts(tmp_path: Path) -> None:
    found = inferred(tmp_path, records(topic=["a", "b"], entities=[SPAN, None, []]))
    assert [(t.name, t.values.records) for t in found.tasks] == [("topic", 12), ("ner", 8)]
    assert found.tasks[0].values.distinct == {"a": 6, "b": 6}
    assert (found.records, found.complete) == (12, False)


@pytest.mark.parametrize(
    ("field", "values", "kind"),
    [("label", ["same", "other"], "pair"), ("score", [0.0, 0.25, 1.0], "similarity")],
)
@pytest.mark.parametrize("blank", [0, 7])
def test_a_table_of_pairs_is_one_also_where_a_second_text_is_blank(
    tmp_path: Path, field: str, values: list[Any], kind: str, blank: int
) -> None:
    rows = [
        f"text {i},{'' if i == blank else f'other {i}'},{values[i % len(values)]}"
        for i in range(12)
    ]
    path = write(tmp_path / "x.csv", "\n".join([f"text,text2,{field}", *rows, ""]))
    found = infer_tasks([str(path)])
    assert found.options() == {field: {"kind": kind}}
    report = check_data([str(path)], found.configs())
    assert [finding.where for finding in report.findings] == [f"{path}:{blank + 2}"]
    assert "`text2` is empty" in report.findings[0].message


@pytest.mark.parametrize(
    ("values", "kind"), [(["ask", "tell"], "classification"), ([0.5, 0.25], "regression")]
)
def test_a_stray_second_text_makes_no_pairs_of_the_other_records(
    tmp_path: Path, values: list[Any], kind: str
) -> None:
    some = records(value=values)
    some[7]["text2"] = "a comment"
    (task,) = inferred(tmp_path, some).tasks
    assert task.kind == kind
    report = check_data([str(tmp_path / "data.jsonl")])
    assert [finding.where for finding in report.findings] == [f"{tmp_path / 'data.jsonl'}:8"]
    assert "has a second text, `text2`, which no task reads" in report.findings[0].message


@pytest.mark.parametrize(("paired", "kind"), [(6, "classification"), (7, "pair")])
def test_classes_are_of_pairs_where_more_than_half_of_the_records_have_two_texts(
    tmp_path: Path, paired: int, kind: str
) -> None:
    some = records(topic=["ask", "tell"])
    for record in some[:paired]:
        record["text2"] = "another sentence"
    (task,) = inferred(tmp_path, some).tasks
    assert task.kind == kind


TAGGER = {"kind": "tagging", "decoder": "crf", "neck": "bilstm"}
TAGGED = ["O", "B-X", "O"]


@pytest.mark.parametrize("order", [("ner", "entities"), ("entities", "ner")])
def test_tags_and_entities_of_one_record_are_two_tasks_with_a_field_each(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    values = {"ner": [TAGGED], "entities": [SPAN]}
    found = inferred(tmp_path, records(**{name: values[name] for name in order}))
    assert [task.options["field"] for task in found.tasks] == [*order]
    assert len(found.options()) == 2


def test_tags_of_some_records_and_entities_of_others_are_one_task(tmp_path: Path) -> None:
    found = inferred(tmp_path, records(ner=[TAGGED, None], entities=[None, SPAN]))
    assert found.options() == {"ner": TAGGER}
    assert found.complete
    assert found.tasks[0].values.distinct == {"O": 12, "B-X": 6, "THING": 6}


def test_identifiers_texts_and_constants_are_left_out_and_named(tmp_path: Path) -> None:
    extra = {
        "id": range(12), "comment": [f"a text {i}" for i in range(12)], "lang": ["en"],
        "meta": [{"a": 1}, {"a": 2}],
    }  # fmt: skip
    found = inferred(tmp_path, records(topic=["a", "b"], **extra))
    assert [task.name for task in found.tasks] == ["topic"]
    assert {name: values.describe() for name, values in found.unused.items()} == {
        "id": "12 different whole numbers in 12 records",
        "comment": "12 different texts in 12 records",
        "lang": "the same value in all 12 records",
        "meta": "objects or lists in 12 records",
    }


def test_of_long_texts_only_the_beginning_is_held(tmp_path: Path) -> None:
    found = inferred(
        tmp_path, records(topic=["a", "b"], essay=[f"{i:02} " * 999 for i in range(12)])
    )
    assert len(found.unused["essay"].distinct) == 12
    assert max(map(len, found.unused["essay"].distinct)) == 257


def test_numbers_of_texts_and_pairs_and_unused_columns_are_not_labels(tmp_path: Path) -> None:
    many = inferred(tmp_path, records(6000, id=range(6000), topic=["a", "b"]))
    assert [task.name for task in many.tasks] == ["topic"]
    pairs = inferred(tmp_path, records(**PAIR, label=["a", "b"], qid=[*range(10), 0]))
    assert [task.name for task in pairs.tasks] == ["label"]
    dashes = inferred(tmp_path, records(ner=[["O", "B-X", "O"]], pos=[["_", "_", "_"]]))
    assert [task.name for task in dashes.tasks] == ["ner"]


def test_an_ambiguous_field_is_refused_with_the_options_that_name_its_task(tmp_path: Path) -> None:
    with worded_for_command(), pytest.raises(RequestError) as caught:
        inferred(tmp_path, records(stars=[1, 2, 3], topic=["a", "b"]))
    message = str(caught.value)
    assert "`stars`" in message
    assert "3 different whole numbers in 12 records, which could be classification or" in message
    assert "--task stars=classification:stars or --task stars=regression:stars" in message
    assert "`topic` (2 different texts in 12 records)" in message


def table(path: Path, records: Sequence[dict[str, Any]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    return str(path)


@pytest.mark.parametrize(
    ("field", "names", "mapped"),
    [
        ("labels", {}, ""),
        ("topics", {}, "--map topics=labels "),
        ("main topic", {}, "--map 'main topic=labels' "),
        ("aim", {"aim": "topic"}, "--map aim=labels "),
    ],
)
def test_classes_that_seem_joined_are_named_with_the_options_that_split_them(
    field: str, names: dict[str, str], mapped: str, tmp_path: Path
) -> None:
    several = {field: ["a", "b", "a|b"], "one": ["p|q", "r"]}
    path = table(tmp_path / "x.csv", records(**several))
    with worded_for_command():
        (hint,) = infer_tasks([path], Layout(names=names)).hints
    assert hint == (
        f"`{names.get(field, field)}` has the class 'a|b', whose parts are classes too; for "
        f"several classes in a cell: {mapped}--label-separator '|'"
    )
    (hint,) = infer_tasks([path], Layout(names=names)).hints
    named = names if field == "labels" else {field: "labels"}
    shown = f"names={named!r}, " if named else ""
    assert hint.endswith(f": `layout=Layout({shown}separator='|')`")
    advised = Layout(names=named, separator="|")
    assert infer_tasks([path], advised).options()["multilabel"] == {"kind": "multilabel"}


def test_the_data_check_names_joined_classes_as_training_does(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", records(topics=["a", "b", "a|b"]))
    (hint,) = infer_tasks([path]).hints
    (finding,) = check_data([path]).findings
    assert (finding.kind, finding.where, finding.message) == (Kind.JOINED, path, hint)
    assert finding.severity is Severity.WARNING


def test_joined_classes_are_not_named_where_no_option_splits_them(tmp_path: Path) -> None:
    joined: dict[str, Any] = {"topics": ["a", "b", "a|b"]}
    assert inferred(tmp_path, records(**joined)).hints == ()
    path = tmp_path / "x.csv"
    for more in (PAIR, {"labels": ["p", "q"]}):
        assert infer_tasks([table(path, records(**joined, **more))]).hints == ()
    assert (
        infer_tasks(
            [table(path, records(**joined))], tasks={"topics": TaskConfig(kind="classification")}
        ).hints
        == ()
    )


def test_several_columns_of_0_and_1_are_refused_with_the_format_that_reads_them(
    tmp_path: Path,
) -> None:
    columns: dict[str, Any] = {"rude": ["0", "1", "1"], "kind": ["1", "0", "1"]}
    path = table(tmp_path / "x.csv", records(**columns, stars=[1, 2, 3]))
    with worded_for_command(), pytest.raises(RequestError) as caught:
        infer_tasks([path])
    end = "If `rude`, `kind` are the labels of a table: --format indicators."
    assert str(caught.value).endswith(end)
    found = infer_tasks(
        [path], Layout(format="indicators"), {"labels": TaskConfig(kind="multilabel")}
    )
    assert found.tasks[0].values.lists == 12


def test_columns_of_0_and_1_of_other_files_and_of_pairs_are_not_advised_as_labels(
    tmp_path: Path,
) -> None:
    columns: dict[str, Any] = {"rude": [0, 1, 1], "kind": [1, 0, 1], "stars": [1, 2, 3]}
    lines = write(tmp_path / "x.jsonl", *records(**columns))
    for path in (lines, table(tmp_path / "x.csv", records(**columns, **PAIR))):
        with pytest.raises(RequestError, match="could be") as caught:
            infer_tasks([str(path)])
        assert "indicators" not in str(caught.value)


def test_a_file_without_labels_is_refused_with_the_fields_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no field of .* has labels of a task: `note` \(12 "):
        inferred(tmp_path, records(note=[f"text {i}" for i in range(12)]))
    with pytest.raises(RequestError, match=r"cell of `labels`: `layout=Layout\(separator=','\)`"):
        inferred(tmp_path, records(labels=[f"{i},{i + 1}" for i in range(12)]))


def test_missing_values_that_pandas_wrote_as_nan_are_named_with_what_to_do(tmp_path: Path) -> None:
    labels = ["a", "b", "a", math.nan]
    with pytest.raises(RequestError) as caught:
        inferred(tmp_path, records(label=labels))
    assert "labels of a task: `label` (NaN in 3 of 12 records); expected" in str(caught.value)
    assert caught.value.fix == "Remove the values NaN of `label`, or write null in their place."
    nulls = inferred(tmp_path, records(label=["a", "b", "a", None]))
    assert nulls.options() == {"classification": CLASSES}


def test_named_tasks_are_the_only_ones(tmp_path: Path) -> None:
    tasks = {"rating": TaskConfig(kind="classification", field="stars")}
    found = inferred(tmp_path, records(stars=[1, 2, 3], topic=["a", "b"]), tasks=tasks)
    assert found.options() == {"rating": {**CLASSES, "field": "stars"}}
    assert list(found.unused) == ["topic"]


def test_a_head_with_options_of_the_user_keeps_them(tmp_path: Path) -> None:
    given = {"kind": "classification", "hidden": 8}
    found = inferred(tmp_path, records(stars=["a", "b"]), tasks={"stars": TaskConfig(**given)})
    assert found.options() == {"stars": given}


def test_a_named_task_without_labels_is_refused(tmp_path: Path) -> None:
    tasks = {"rating": TaskConfig(kind="classification", field="start")}
    with pytest.raises(RequestError, match=r"has `start`, the label of task 'rating'.*`stars`"):
        inferred(tmp_path, records(stars=[1, 2, 3]), tasks=tasks)


def test_task_names_follow_the_rules_of_the_configuration(tmp_path: Path) -> None:
    found = inferred(tmp_path, records(**{"2nd topic": ["a", "b"], "mean": ["c", "d"]}))
    assert found.options() == {
        "nd_topic": {**CLASSES, "field": "2nd topic"},
        "task_2": {**CLASSES, "field": "mean"},
    }


def test_no_task_is_named_after_a_column_of_anothers_results(tmp_path: Path) -> None:
    found = inferred(tmp_path, records(topic=["a", "b"], topic_score=["c", "d"]))
    assert found.options() == {"topic": CLASSES, "task_2": {**CLASSES, "field": "topic_score"}}


def test_records_that_are_not_read_are_counted_over_all_files(tmp_path: Path) -> None:
    files = []
    for i, ignored in enumerate((5, 1)):
        answers = ["accept"] * 6 + ["ignore"] * ignored
        rows = [
            {"text": f"{i} {j}", "label": "xy"[j % 2], "answer": a} for j, a in enumerate(answers)
        ]
        files.append(write(tmp_path / f"{i}.jsonl", *rows))
    assert infer_tasks(files).unread["records whose answer is 'ignore'"] == 6


def answered(tool: str, *texts: tuple[str, list[str]]) -> str:
    """The file of a tool in which texts have classes."""
    if tool == "fastText":
        marked = [(text, [f"__label__{name}" for name in some]) for text, some in texts]
        return "".join(" ".join([*some, text]) + "\n" for text, some in marked)
    if tool == "Prodigy":
        rows = [{"text": text, "accept": some, "answer": "accept"} for text, some in texts]
        return "".join(json.dumps(row) + "\n" for row in rows)
    if tool == "doccano":
        return "".join(json.dumps({"text": text, "label": some}) + "\n" for text, some in texts)
    answers = [
        [{"from_name": "topics", "type": "choices", "value": {"choices": some}}] if some else []
        for _, some in texts
    ]
    return json.dumps(
        [
            {"data": {"text": text}, "annotations": [{"result": result}]}
            for (text, _), result in zip(texts, answers, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("tool", "ending"),
    [("fastText", "txt"), ("Prodigy", "jsonl"), ("doccano", "jsonl"), ("Label Studio", "json")],
)
def test_lists_of_a_tool_have_one_form_in_all_files(tmp_path: Path, tool: str, ending: str) -> None:
    """The second file has one label a line, and would be read as classes by itself."""
    several, single = tmp_path / f"several.{ending}", tmp_path / f"single.{ending}"
    several.write_text(answered(tool, ("one", ["a", "b"]), ("two", ["a"]), ("three", ["b"])))
    single.write_text(answered(tool, ("four", ["a"]), ("five", ["b"]), ("six", [])))
    labelled = 5 if tool == "Label Studio" else 6
    for files in ([several, single], [single, several]):
        [task] = infer_tasks([str(path) for path in files]).tasks
        assert (task.kind, task.values.records) == ("multilabel", labelled)
    [task] = infer_tasks([str(single)]).tasks
    assert task.kind == "classification"
    found = read_records(str(single), {"multilabel": TaskConfig(kind="multilabel")}, {})
    none = None if tool == "Label Studio" else ()
    assert [record.labels.get("multilabel") for record in found] == [("a",), ("b",), none]
    findings = check_data([str(several), str(single)]).findings
    kinds = {one.kind for one in findings} - ({Kind.UNLABELLED} if none is None else set())
    assert kinds.isdisjoint([Kind.UNREAD, Kind.UNLABELLED])
