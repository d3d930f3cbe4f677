"""Fields whose values look like labels, and may be meant otherwise, are named and not trained."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from files import write
from manyheads.config import TaskConfig
from manyheads.data.check import Kind, Severity, check_data
from manyheads.data.infer_tasks import InferredTasks, infer_tasks
from manyheads.errors import RequestError, worded_for_command


def rows(count: int = 12, **fields: Sequence[Any]) -> list[dict[str, Any]]:
    """Records in which each field cycles through its values, and None omits it."""
    return [
        {"text": f"sentence number {i}"}
        | {name: values[i % len(values)] for name, values in fields.items()}
        for i in range(count)
    ]


def lines(folder: Path, count: int = 12, **fields: Sequence[Any]) -> str:
    return write(folder / "x.jsonl", *rows(count, **fields))


def table(folder: Path, count: int = 12, **fields: Sequence[Any]) -> str:
    path = folder / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", *fields])
        writer.writeheader()
        writer.writerows(rows(count, **fields))
    return str(path)


def names(found: InferredTasks) -> list[str]:
    return [task.values.name for task in found.tasks]


def fix(path: str) -> str:
    with pytest.raises(RequestError) as caught:
        infer_tasks([path])
    return caught.value.fix


# Identifiers.


@pytest.mark.parametrize("field", ["id", "user_id", "sentenceId", "IDX", "Unnamed: 0", "uid"])
@pytest.mark.parametrize("values", [range(6), [*range(11), 0]])
def test_whole_numbers_in_a_field_named_like_numbering_are_no_labels(
    tmp_path: Path, field: str, values: Sequence[int]
) -> None:
    found = infer_tasks([lines(tmp_path, **{field: values, "label": ["a", "b", "c", "a"]})])
    assert names(found) == ["label"]
    described = found.unused[field].describe()
    assert described.endswith("whole numbers in 12 records, identifiers by the field's name")


def test_numbers_of_classes_and_names_in_such_a_field_stay_usable_as_labels(
    tmp_path: Path,
) -> None:
    assert names(infer_tasks([lines(tmp_path, intent_id=["greet", "bye"])])) == ["intent_id"]
    for field in ("label_id", "intentId", "class_idx"):
        path = lines(tmp_path, **{field: [0, 1, 2]})
        with worded_for_command():
            assert f"--task {field}=classification:{field} or" in fix(path)
        tasks = {"goal": TaskConfig(kind="classification", field=field)}
        assert names(infer_tasks([path], tasks=tasks)) == [field]


def test_a_file_with_identifiers_alone_has_no_labels(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no field of .* `id` \(6 .*, identifiers by"):
        infer_tasks([lines(tmp_path, id=range(6))])


def test_the_advice_about_a_question_keeps_the_tasks_that_were_found(tmp_path: Path) -> None:
    path = lines(tmp_path, stars=[1, 2, 3], label=["a", "b"], the_topic=["p", "q", "q", "r"])
    with worded_for_command():
        assert fix(path) == (
            "Name every task that should be learned: --task classification=classification "
            "--task the_topic=classification:the_topic, and --task stars=classification:stars or "
            "--task stars=regression:stars."
        )
    classes = {"kind": "classification"}
    found = {"classification": classes, "the_topic": {**classes, "field": "the_topic"}}
    for kind in ("classification", "regression"):
        tasks = {**found, "stars": {"kind": kind, "field": "stars"}}
        assert f"`tasks={tasks}`" in fix(path)
        configs = {name: TaskConfig(**options) for name, options in tasks.items()}
        assert len(infer_tasks([path], tasks=configs).tasks) == 3


# Several classes in one cell.


@pytest.mark.parametrize(
    ("values", "cell"),
    [
        (["Play", "Play, Urgent", "Play, Late", "Urgent, Late"], "'Play, Urgent', whose part"),
        (["Play#Urgent", "Urgent#Late", "Play#Late"], "'Play#Urgent', whose part 'Play' occurs"),
        (["Play", "Urgent", "Play|Urgent"], "'Play|Urgent', whose parts are classes too"),
    ],
)
def test_cells_whose_parts_occur_in_other_classes_seem_to_hold_several(
    tmp_path: Path, values: list[str], cell: str
) -> None:
    (hint,) = infer_tasks([table(tmp_path, topic=values)]).hints
    assert hint.startswith(f"`topic` has the class {cell}")


@pytest.mark.parametrize(
    "values",
    [
        ["Books, Films & Music", "Books", "Food"],
        ["Salem, OR", "Portland, OR", "Portland, ME", "Salem, ME"],
        ["C#", "F#", "C"],
        ["Food|Fruit", "Food|Bread", "Home|Garden", "Home|Kitchen"],
        [
            "Payday loan, title loan, or personal loan", "Payday loan",
            "Credit reporting, repair services, or other reports", "Credit reporting",
            "Money transfer, virtual currency, or money service", "Mortgage",
        ],
        # A single record of many.
        [*["Play", "Book"] * 20, "Play, Urgent"],
    ],
)  # fmt: skip
def test_names_that_contain_a_mark_by_chance_are_single_classes(
    tmp_path: Path, values: list[str]
) -> None:
    path = table(tmp_path, 2 * len(values), topic=values)
    found = infer_tasks([path])
    assert (names(found), found.hints) == (["topic"], ())


# Fields that say the same.


@pytest.mark.parametrize("number", ["label", "label_id", "labelIdx"])
def test_of_the_numbers_of_classes_and_their_names_the_names_are_learned(
    tmp_path: Path, number: str
) -> None:
    fields = {number: [0, 1, 2], "label_text": ["a", "b", "c"]}
    for path in (lines(tmp_path, **fields), table(tmp_path, **fields)):
        found = infer_tasks([path])
        assert names(found) == ["label_text"]
        assert found.unused[number].describe() == (
            "3 different whole numbers in 12 records, one for each of the names in `label_text`"
        )
        report = check_data([path])
        assert list(report.files[0].tasks) == ["label_text"]
        (finding,) = report.findings
        assert (finding.kind, finding.severity) == (Kind.UNREAD, Severity.NOTE)
        assert f"the field `{number}` is not used: 3 different" in finding.message


@pytest.mark.parametrize(
    "label_text",
    [
        ["a", "b", "a"],
        ["a", "b", "c", "b", "a", "c"],
        ["a", "b", "c", None, "b", "c"],
    ],
)
def test_numbers_that_say_more_than_the_names_are_learned_too(
    tmp_path: Path, label_text: list[str | None]
) -> None:
    found = infer_tasks([lines(tmp_path, label=[0, 1, 2], label_text=label_text)])
    assert names(found) == ["label", "label_text"]
    assert bool(found.hints) == (None in label_text)


def test_names_that_say_the_same_are_both_learned_and_noted(tmp_path: Path) -> None:
    fields = {"goal": ["a", "b"], "aim": ["x", "y", None, "y"], "tone": ["p", "p", "q"]}
    path = lines(tmp_path, **fields)
    with worded_for_command():
        found = infer_tasks([path])
        assert names(found) == ["goal", "aim", "tone"]
        assert found.hints == (
            "`goal`, `aim` say the same, where a record has both: each class of one goes with one "
            "of the other; to learn `goal` alone of these: "
            "--task goal=classification --task tone=classification",
        )
        finding = next(one for one in check_data([path]).findings if one.kind is Kind.DOUBLED)
    assert (finding.severity, finding.message) == (Severity.WARNING, *found.hints)


def test_labels_are_learned_beside_a_field_that_agrees_with_them_by_chance(tmp_path: Path) -> None:
    found = infer_tasks([lines(tmp_path, label=[0, 1], platform=["ios", "web"])])
    assert names(found) == ["label", "platform"]
    assert found.hints[0].startswith("`label`, `platform` say the same, where a record has both")


def test_a_few_records_with_two_fields_do_not_make_them_the_same(tmp_path: Path) -> None:
    some = [*rows(6, goal=["a", "b"]), *rows(6, aim=["x", "y"])]
    some[0]["aim"], some[1]["aim"] = "x", "y"
    assert infer_tasks([write(tmp_path / "x.jsonl", *some)]).hints == ()


# Decimal commas.


@pytest.mark.parametrize("values", [["0,5", "1,5", "-2,25"], ["0,5", "1", "1,5"]])
def test_numbers_with_a_decimal_comma_are_a_question(tmp_path: Path, values: list[str]) -> None:
    path = table(tmp_path, price=values, topic=["a", "b"])
    with worded_for_command(), pytest.raises(RequestError) as caught:
        infer_tasks([path])
    assert "`price` in" in caught.value.found
    assert "has 3 different numbers with a comma in 12 records" in caught.value.found
    assert caught.value.fix == (
        "Write the numbers of `price` without commas, with a decimal point, or name every task "
        "that should be learned: --task topic=classification, and --task "
        "price=classification:price. If a cell holds several classes: --map price=labels "
        "--label-separator ','."
    )
    finding = next(one for one in check_data([path]).findings if one.kind is Kind.AMBIGUOUS)
    assert finding.fix == fix(path)
    tasks = {"price": TaskConfig(kind="classification")}
    assert names(infer_tasks([path], tasks=tasks)) == ["price"]


def test_many_numbers_with_a_decimal_comma_are_named_where_they_are_left_out(
    tmp_path: Path,
) -> None:
    many = [f"{i},5" for i in range(12)]
    found = infer_tasks([table(tmp_path, price=many, topic=["a", "b"])])
    assert found.unused["price"].describe() == ("12 different numbers with a comma in 12 records")
    assert fix(table(tmp_path, price=many)).startswith(
        "Write the numbers of `price` without commas, with a decimal point, or name one: "
    )


def test_texts_beside_numbers_with_a_comma_are_classes(tmp_path: Path) -> None:
    found = infer_tasks([table(tmp_path, size=["0,5", "1,5", "none"])])
    assert (names(found), found.hints) == (["size"], ())


# Empty lists.


def test_empty_lists_beside_labels_are_no_task_of_the_check(tmp_path: Path) -> None:
    report = check_data([lines(tmp_path, label=["a", "b"], entities=[[]])])
    assert report.ok
    assert list(report.files[0].tasks) == ["classification"]
    assert "'entities', found in 12 records" in report.findings[0].message
    assert not check_data([lines(tmp_path, entities=[[]])]).ok
