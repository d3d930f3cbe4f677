"""The discovery of labels: the labels of a task are those that its files have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from files import write
from manyheads.config import TaskConfig
from manyheads.data.records import discover_labels
from manyheads.errors import DataError
from manyheads.tasks import LabelSet, Scheme, Span, TagSet
from one_record import CLASS, MANY, TAGS, label, parse, problem

PLAIN = TaskConfig(kind="tagging", scheme="plain")


def discover(path: Path, task: TaskConfig, *records: Mapping[str, Any]) -> LabelSet:
    texts = [{"text": "a b", **record} for record in records]
    return discover_labels({"t": task}, [write(path / "train.jsonl", *texts)])["t"]


def undiscovered(path: Path, task: TaskConfig, *records: Mapping[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        discover(path, task, *records)
    return str(caught.value)


def classes(*values: Any) -> list[dict[str, Any]]:
    return [{"label": value} for value in values]


def test_names_are_sorted_with_numbers_by_value(tmp_path: Path) -> None:
    names = discover(tmp_path, CLASS, *classes("l 10", "l 2", "b", None, "l 2")).names
    assert names == ("b", "l 2", "l 10")
    assert discover(tmp_path, CLASS, *classes("10", "9", "2")).names == ("2", "9", "10")
    many = discover(tmp_path, MANY, {"labels": ["b"]}, {"labels": []}, {"labels": ["a", "b"]})
    assert many.names == ("a", "b")
    tags = discover(tmp_path, TAGS, {"ner": ["B-x10", "I-x2"]}, {"ner": ["O", "U-b"]})
    assert tags.names == ("O", "B-b", "I-b", "B-x2", "I-x2", "B-x10", "I-x10")
    spans = discover(tmp_path, TAGS, {"entities": [{"start": 0, "end": 1, "label": "y"}]})
    assert spans == TagSet.of_types(["y"])
    plain = discover(tmp_path, PLAIN, {"ner": ["VERB", "O"]})
    assert plain == TagSet(("O", "VERB"), Scheme.PLAIN)


def test_indices_become_names(tmp_path: Path) -> None:
    assert discover(tmp_path, CLASS, *classes(2, 0)).names == ("0", "1", "2")
    three = TaskConfig(kind="classification", num_labels=3)
    assert discover(tmp_path, three, *classes(1, 0)).names == ("0", "1", "2")
    assert discover(tmp_path, three, *classes("1", "0")).names == ("0", "1", "2")
    assert discover(tmp_path, three, *classes("1", "3")).names == ("1", "3")
    five = TaskConfig(kind="tagging", num_labels=5)
    assert discover(tmp_path, five, {"ner": [0, 1]}) == TagSet.of_types("12")
    four = TaskConfig(kind="tagging", num_labels=4)
    assert discover(tmp_path, four, {"ner": [0, 1]}) == TagSet(tuple("0123"), Scheme.PLAIN)


@pytest.mark.parametrize(
    ("options", "known", "read"),
    [
        # An odd number of tags, and names such as B-x, are classes too.
        (
            {"scheme": "plain", "num_labels": 17},
            TagSet(tuple(map(str, range(17))), Scheme.PLAIN),
            (Span(0, 1, "0"), Span(2, 3, "1"), Span(4, 5, "1")),
        ),
        (
            {"scheme": "plain", "labels": ("O", "B-x", "I-x")},
            TagSet(("O", "B-x", "I-x"), Scheme.PLAIN),
            (Span(0, 1, "O"), Span(2, 3, "B-x"), Span(4, 5, "B-x")),
        ),
        (
            {"scheme": "io", "labels": ("O", "PER", "E-mail")},
            TagSet.of_types(["PER", "E-mail"]),
            (Span(2, 5, "PER"),),
        ),
        (
            {"scheme": "io", "labels": ("PER", "LOC")},
            TagSet.of_types(["PER", "LOC"]),
            (Span(0, 1, "PER"), Span(2, 5, "LOC")),
        ),
        ({"scheme": "io", "num_labels": 4}, TagSet.of_types("123"), (Span(2, 5, "1"),)),
        (
            {"scheme": "io", "labels": ("O", "B-x", "I-x")},
            TagSet.of_types("x"),
            (Span(2, 3, "x"), Span(4, 5, "x")),
        ),
    ],
)
def test_the_scheme_applies_to_indices(
    options: dict[str, Any], known: TagSet, read: Any, tmp_path: Path
) -> None:
    task = TaskConfig(kind="tagging", **options)
    fields = {"text": "a b c", "ner": [0, 1, 1]}
    assert discover(tmp_path, task, fields) == known
    for labels in (None, known):
        assert label(task, labels, **fields) == read


def test_models_of_earlier_versions_read_indices_as_they_did() -> None:
    """The scheme `io` had no effect on indices: an odd number of tags had B- and I-."""
    numbered = TaskConfig(kind="tagging", scheme="io", num_labels=5)
    assert label(numbered, TagSet.of_types("12"), text="a", ner=[3]) == (Span(0, 1, "2"),)
    listed = TaskConfig(kind="tagging", scheme="io", labels=("O", "x"))
    classes_of_words = TagSet(("O", "x"), Scheme.PLAIN)
    assert label(listed, classes_of_words, text="a", ner=[1]) == (Span(0, 1, "x"),)


def test_the_number_of_labels_counts_the_tags_of_the_scheme(tmp_path: Path) -> None:
    three = TaskConfig(kind="tagging", scheme="io", num_labels=3)
    assert discover(tmp_path, three, {"ner": ["x", "y"]}) == TagSet.of_types("xy")
    text = undiscovered(tmp_path, three, {"ner": ["x", "y"]}, {"ner": ["z", "O"]})
    assert ":2: the task 't' has 4 labels: O, x, y, z; expected at most 3 labels" in text


def test_listed_names_without_a_prefix_beside_o_are_ambiguous(tmp_path: Path) -> None:
    task = TaskConfig(kind="tagging", labels=("O", "x", "y"))
    for tags in ([0, 1], ["x", "y"]):
        text = undiscovered(tmp_path, task, {"ner": tags})
        assert ":1: the tags of the task 't' are `O` and names without a prefix, such as" in text
        assert "Set `tasks.t.scheme`: io" in text
    types = TagSet.of_types("xy")
    assert discover(tmp_path, task, {"ner": ["B-x", "O"]}) == types
    spans = {"entities": [{"start": 0, "end": 1, "label": "y"}]}
    assert discover(tmp_path, task, spans) == types


def test_the_configured_number_of_labels_is_accepted(tmp_path: Path) -> None:
    two = TaskConfig(kind="classification", num_labels=2)
    assert discover(tmp_path, two, *classes("b", "a")).names == ("a", "b")
    five = TaskConfig(kind="tagging", num_labels=5)
    assert len(discover(tmp_path, five, {"ner": ["B-x", "I-y"]})) == 5


def test_configured_labels_take_precedence(tmp_path: Path) -> None:
    listed = TaskConfig(kind="classification", labels=("z", "a", "m"))
    assert discover(tmp_path, listed, *classes("a", 2)).names == ("z", "a", "m")
    order = ("O", "B-y", "I-y", "B-x", "I-x")
    task = TaskConfig(kind="tagging", labels=order)
    assert discover(tmp_path, task, {"ner": ["B-x", "O"]}).names == order
    iobes = TaskConfig(kind="tagging", labels=("O", "S-y", "B-x", "E-x"))
    assert discover(tmp_path, iobes, {"ner": [2, 3]}) == TagSet.of_types(["y", "x"])
    types = TaskConfig(kind="tagging", labels=("y", "x"))
    assert discover(tmp_path, types, {"ner": ["B-x", "O"]}) == TagSet.of_types(["y", "x"])
    plain = TagSet(("y", "x"), Scheme.PLAIN)
    assert discover(tmp_path, types, {"ner": ["x", "y"]}) == plain
    assert discover(tmp_path, types, {"ner": [1, 0]}) == plain


@pytest.mark.parametrize(
    ("task", "records", "expected"),
    [
        (
            TaskConfig(kind="classification", labels=("neg", "pos")),
            classes("pos", "posi"),
            ":2: 'posi' is not a label of the task 't' (did you mean \"pos\"?); expected one of",
        ),
        (
            TaskConfig(kind="classification", labels=("neg", "pos")),
            classes("pos", 2),
            ":2: the index 2 is beyond the 2 labels of the task 't'; expected 0 to 1",
        ),
        (
            TaskConfig(kind="classification", num_labels=2),
            classes(0, 1, 2),
            ":3: the index 2 is beyond the 2 labels",
        ),
        (
            TaskConfig(kind="classification", num_labels=2),
            classes("c", "a", "b"),
            ":3: the task 't' has 3 labels: a, b, c; expected at most 2 labels",
        ),
        (CLASS, classes("a", 1), "has the name 'a' ("),
        (CLASS, classes(0, 1, 404), ":3: the largest index is 404, but only 3 indices occur"),
        (
            TaskConfig(kind="tagging", num_labels=3),
            [{"ner": ["B-x", "O"]}, {"ner": ["B-y", "O"]}],
            ":2: the task 't' has 2 entity types (5 tags): x, y; expected at most 3 tags",
        ),
        (
            TAGS,
            [{"ner": ["B-x", "O"]}, {"ner": ["y", "O"]}],
            ":2: tags of the task 't': tags y have no prefix while others, such as 'B-x', have",
        ),
        (
            TAGS,
            [{"ner": ["x", "O"]}, {"entities": [{"start": 0, "end": 1, "label": "y"}]}],
            ":2: the task 't' has an entity 'y' here, and elsewhere tags that are classes of",
        ),
        (TAGS, [{"ner": [0, 1]}], ":1: `tags` has indices of tags, and no tags are"),
        (TAGS, [{"ner": ["O", "O"]}], "the task 't' has no label: no entity in 1 record"),
        (
            TaskConfig(kind="tagging", num_labels=5),
            [{"ner": [0, 5]}],
            ":1: the index 5 is beyond the 5 labels of the task 't'",
        ),
        (
            TaskConfig(kind="tagging", labels=("O", "B-x", "I-x")),
            [{"ner": ["B-y", "O"]}],
            ":1: 'y' is not a label of the task 't'; expected one of its `labels`: x",
        ),
        (
            TaskConfig(kind="tagging", labels=("B-x", "y")),
            [{"ner": ["B-x", "O"]}],
            "`labels` of the task 't': tags y have no prefix",
        ),
        (
            TaskConfig(kind="tagging", labels=("O", "B-x", "I-x")),
            [{"ner": ["x", "O"]}],
            ":1: 'x' is not a label of the task 't'",
        ),
        (MANY, [{"labels": []}], "no label: `labels` is empty in all records that have it"),
        (CLASS, classes("a", ""), ":2: `label` is a blank label"),
    ],
)
def test_labels_that_contradict_are_named_with_their_place(
    task: TaskConfig, records: list[dict[str, Any]], expected: str, tmp_path: Path
) -> None:
    assert expected in undiscovered(tmp_path, task, *records)


def test_a_task_without_a_label_is_refused_with_the_fields_of_the_records(tmp_path: Path) -> None:
    text = undiscovered(tmp_path, CLASS, {"category": "x", "id": 1}, {"label": None})
    assert "train.jsonl: the task 't' has no label: none of 2 records has `label`" in text
    assert "in one of the records' fields: text, category, id, label" in text
    assert "Set `tasks.t.field` to the field that has them" in text


def test_each_task_learns_from_its_own_files_in_one_pass(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"text": "a", "label": "x", "ner": ["B-p"]})
    two = write(tmp_path / "b.jsonl", {"text": "a", "label": "y", "ner": ["B-q"]})
    tasks = {"c": CLASS, "t": TAGS}
    assert discover_labels(tasks, {one: ["c"], two: ["t"]}) == {
        "c": LabelSet(("x",)),
        "t": TagSet.of_types(["q"]),
    }
    assert discover_labels(tasks, [one, two])["t"] == TagSet.of_types(["p", "q"])


def test_too_many_different_labels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.tasks.found.MAX_LABELS", 3)
    text = undiscovered(tmp_path, CLASS, *classes(*"abcd"))
    assert ":4: the task 't' has more than 3 different labels" in text
    assert "Is `label` the field of its labels?" in text


def test_a_broken_record_stops_discovery_at_its_line(tmp_path: Path) -> None:
    assert "train.jsonl:2: the text is empty" in undiscovered(tmp_path, CLASS, {}, {"text": ""})


# Labels that could be misread.


def test_labels_that_count_from_1_are_as_many_as_occur(tmp_path: Path) -> None:
    stars = discover(tmp_path, CLASS, *classes(1, 5, 2, 3, 4))
    assert stars.names == ("1", "2", "3", "4", "5")
    assert label(CLASS, stars, label=5) == "5"
    assert "`label` is '0', which is not a label" in problem(CLASS, stars, text="a", label=0)
    five = TaskConfig(kind="classification", num_labels=5)
    assert discover(tmp_path, five, *classes(1, 5, 2, 3, 4)) == stars
    assert discover(tmp_path, CLASS, *classes(0, 2, 1)).names == ("0", "1", "2")
    assert discover(tmp_path, CLASS, *classes(1, 3)).names == ("0", "1", "2", "3")


def test_listed_numerals_are_the_names_that_records_have(tmp_path: Path) -> None:
    listed = TaskConfig(kind="classification", labels=("3", "4", "5"))
    assert discover(tmp_path, listed, *classes(3, 4, 5)).names == ("3", "4", "5")
    assert discover(tmp_path, listed, *classes("3", "5")).names == ("3", "4", "5")
    for wrong in (0, "0"):
        text = undiscovered(tmp_path, listed, *classes(3, wrong))
        assert ":2: '0' is not a label of the task 't'; expected one of its `labels`: 3" in text


def test_vectors_of_two_classes_are_refused(tmp_path: Path) -> None:
    text = undiscovered(tmp_path, MANY, {"labels": [0, 1]}, {"labels": [1, 0]})
    assert "all lists of the task 't' are [0, 1] or [1, 0]" in text
    sorted_lists = discover(tmp_path, MANY, {"labels": [0, 1]}, {"labels": [0, 1]})
    assert sorted_lists.names == ("0", "1")
    mixed = discover(tmp_path, MANY, {"labels": [0, 1]}, {"labels": [1, 0]}, {"labels": [1]})
    assert mixed.names == ("0", "1")


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["B_x", "I_x", "O"], (Span(0, 3, "x"),)),
        (["B", "I", "O"], (Span(0, 3, "ENTITY"),)),
        (["B-x", "M-x", "E-x"], (Span(0, 5, "x"),)),
        (["W-x", "B-x", "E-x"], (Span(0, 1, "x"), Span(2, 5, "x"))),
    ],
)
def test_tags_of_other_forms_are_read(tags: list[str], spans: Any, tmp_path: Path) -> None:
    record = {"tokens": ["a", "b", "c"], "ner": tags}
    known = discover(tmp_path, TAGS, {**record, "text": "a b c"})
    assert isinstance(known, TagSet)
    assert known.scheme is Scheme.BIO
    assert label(TAGS, known, **{"text": None, **record}) == spans
    assert label(TAGS, **{"text": None, **record}) == spans


def test_names_without_a_prefix_beside_o_are_ambiguous(tmp_path: Path) -> None:
    record = {"text": "a b c", "ner": ["x", "x", "O"]}
    text = undiscovered(tmp_path, TAGS, record)
    assert "the tags of the task 't' are `O` and names without a prefix, such as 'x'" in text
    assert "Set `tasks.t.scheme`: io, if they are types of entities" in text
    types = TaskConfig(kind="tagging", scheme="io")
    known = discover(tmp_path, types, record)
    assert known == TagSet.of_types(["x"])
    assert label(types, known, **record) == (Span(0, 3, "x"),)
    assert discover(tmp_path, PLAIN, record) == TagSet(("O", "x"), Scheme.PLAIN)
    assert undiscovered(tmp_path, TAGS, {**record, "ner": ["B_x", "NOUN", "O"]})


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "O"],
        ["B-PER", "O", "B-LOC"],
        ["O", "S-LOC", "I-PER"],
        ["B-PER", "I-PER", "LOC"],
        ["O", "B_PER", "I_PER"],
        ["O", "B", "I"],
    ],
)
@pytest.mark.parametrize("labels", [None, ("O", "B-PER", "I-PER")])
def test_tags_with_prefixes_are_not_types(
    tags: list[str], labels: tuple[str, ...] | None, tmp_path: Path
) -> None:
    task = TaskConfig(kind="tagging", scheme="io", labels=labels)
    text = undiscovered(tmp_path, task, {"text": "a b c", "ner": tags})
    assert ":1: the tags of the task 't' have prefixes, such as " in text
    assert "and its `scheme` is io; expected types of entities without prefixes" in text
    assert "Leave out `tasks.t.scheme`" in text


def test_a_type_may_begin_like_a_tag(tmp_path: Path) -> None:
    task = TaskConfig(kind="tagging", scheme="io")
    for types in (["B-cell", "T-cell"], ["E-mail", "U-Bahn"], ["B", "C"]):
        assert discover(tmp_path, task, {"ner": types}) == TagSet.of_types(types)


def test_types_that_look_like_tags_are_types(tmp_path: Path) -> None:
    task = TaskConfig(kind="tagging", labels=("E-mail", "Phone", "U-Bahn"))
    record = {"entities": [{"start": 0, "end": 1, "label": "E-mail"}]}
    known = discover(tmp_path, task, record)
    assert known == TagSet.of_types(["E-mail", "Phone", "U-Bahn"])
    two = TaskConfig(kind="tagging", labels=("E-mail", "U-Bahn"))
    assert discover(tmp_path, two, record) == TagSet.of_types(["E-mail", "U-Bahn"])


def test_a_task_finds_its_labels_under_its_own_name_first(tmp_path: Path) -> None:
    record = parse(CLASS, t="x", label="y", text="a")
    assert record.labels == {"t": "x"}
    assert parse(CLASS, label="y", text="a").labels == {"t": "y"}
    named = TaskConfig(kind="classification", field="label")
    assert parse(named, t="x", label="y", text="a").labels == {"t": "y"}
    assert discover(tmp_path, CLASS, {"t": "x"}, {"t": "y"}).names == ("x", "y")
