"""Records: labels by name for all valid fields, and errors for all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import write
from manyheads.config import TaskConfig
from manyheads.data.readers import Row
from manyheads.data.records import RecordParser, label_names, read_records, unseen_labels
from manyheads.errors import DataError
from manyheads.tasks import LabelSet, Scheme, Span, TagSet, TaskSpec, tags_of
from one_record import CLASS, MANY, TAGS, label, parse, problem, row

QUICK = settings(max_examples=60)


PEOPLE = TagSet.of_types(["LOC", "PER"])


# Texts and tokens.


def test_tokens_make_the_text() -> None:
    record = parse(tokens=["John", "lives", "."])
    assert record.text == "John lives ."
    assert record.tokens == ((0, 4), (5, 10), (11, 12))
    assert record.where == "x.jsonl:7"
    assert parse(text=" Jöhn\n").text == " Jöhn\n"
    assert parse(text="a").tokens is None


def test_tokens_beside_a_text_are_found_in_it() -> None:
    record = parse(text='"Hi,  Jöhn."', tokens=['"', "Hi", ",", "Jöhn", ".", '"'])
    assert record.tokens == ((0, 1), (1, 3), (3, 4), (6, 10), (10, 11), (11, 12))
    assert parse(text="a b", tokens=["a", "b"]).tokens == ((0, 1), (2, 3))
    text = problem(text="banana a", tokens=["a"])
    assert "token 0, 'a', does not come next in the text, which continues with 'banana a'" in text
    assert "the text continues after the last token: 'c'" in problem(text="a c", tokens=["a"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"txt": "a"}, 'neither `text` nor `tokens` among the fields txt (did you mean "text"?)'),
        ({"intent": "a", "q": "b"}, "nor `tokens` among the fields intent, q; expected `text`"),
        ({}, "neither `text` nor `tokens` among the fields (none)"),
        ({"text": 5}, "`text` is 5; expected a string"),
        ({"text": ""}, "the text is empty; expected a sentence. Remove the record."),
        ({"text": " \u00a0\n"}, "the text is only white space"),
        ({"text": "a\ud800"}, "`text` has half a character (an unpaired surrogate)"),
        ({"tokens": "a b"}, "`tokens` is 'a b'; expected a list of words"),
        ({"tokens": []}, "`tokens` is an empty list; expected the words of a sentence"),
        ({"tokens": ["a", ""]}, "token 1 is empty; expected a word"),
        ({"tokens": ["\u3000", " "]}, "the text is only white space"),
        ({"tokens": ["a", 1]}, "token 1 is 1; expected a word"),
        ({"tokens": [None]}, "token 0 is None; expected a word"),
        ({"tokens": ["a", "\udfff"]}, "`tokens[1]` has half a character"),
        ({"text": "a", "tokens": []}, "`tokens` is an empty list"),
    ],
)
def test_invalid_texts_are_errors(fields: dict[str, Any], expected: str) -> None:
    assert expected in problem(**fields)


# Classes.


def test_classes_are_names_or_indices() -> None:
    known = LabelSet(("neg", "pos"))
    assert label(CLASS, known, label="pos") == "pos"
    assert label(CLASS, known, label=1) == "pos"
    assert label(CLASS, known, label=0.0) == "neg"
    assert label(CLASS, known, label="1") == "pos"
    assert label(CLASS, LabelSet(("false", "true")), label=True) == "true"
    assert label(CLASS, label=3) == "3"
    assert label(CLASS, label="größer als") == "größer als"
    assert label(TaskConfig(kind="classification", field="intent"), known, intent="pos") == "pos"


def test_a_numeral_is_a_name_where_names_are_numerals() -> None:
    stars = LabelSet(("1", "2", "3"))
    assert label(CLASS, stars, label="1") == "1"
    assert "which is not a label of the task 't'" in problem(CLASS, stars, text="a", label="0")


@pytest.mark.parametrize("names", [("3", "4", "5"), ("5", "3", "4"), ("3", "4", "none")])
def test_a_whole_number_is_no_index_where_names_are_numerals(names: tuple[str, ...]) -> None:
    known = LabelSet(names)
    assert label(CLASS, known, label=3) == "3"
    assert label(CLASS, known, label="3") == "3"
    assert label(MANY, known, labels=[4, "3"]) == ("4", "3")
    for value in (0, 1, 7, "0", "7"):
        text = problem(CLASS, known, text="a", label=value)
        assert f"`label` is '{value}', which is not a label of the task 't'" in text


def test_indices_in_another_order_are_the_names_that_they_spell() -> None:
    known = LabelSet(("2", "0", "1"))
    assert [label(CLASS, known, label=i) for i in range(3)] == ["0", "1", "2"]
    assert "`label` is 3, beyond the 3 labels" in problem(CLASS, known, text="a", label=3)


@pytest.mark.parametrize("task", [CLASS, MANY, TAGS])
def test_a_record_without_a_label_says_nothing_about_the_task(task: TaskConfig) -> None:
    assert label(task) is None
    assert label(task, label=None, labels=None, ner=None, entities=None) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("pso", "`label` is 'pso', which is not a label of the task 't' (did you mean \"pos\"?)"),
        (2, "`label` is 2, beyond the 2 labels of the task 't'; expected 0 to 1"),
        ("2", "`label` is 2, beyond the 2 labels"),
        (-1, "`label` is -1; expected the name of a class, or its index"),
        (0.5, "`label` is 0.5; expected the name of a class"),
        (float("nan"), "`label` is nan; expected"),
        (float("inf"), "`label` is inf; expected"),
        (["pos"], "`label` is ['pos']; expected the name of a class"),
        ("", "`label` is a blank label; expected a name"),
        ("x" * 2**20, "`label` is a label of 1,048,576 characters"),
        ("x\ud800", "with half a character"),
    ],
)
def test_values_that_are_not_a_class_are_errors(value: Any, expected: str) -> None:
    text = problem(CLASS, LabelSet(("neg", "pos")), text="a", label=value)
    assert expected in text
    assert len(text) < 1000


def test_the_classes_that_apply_are_a_list() -> None:
    known = LabelSet(("a", "b", "c"))
    assert label(MANY, known, labels=["c", 0]) == ("c", "a")
    assert label(MANY, known, labels=[]) == ()
    assert "`labels` is 'a'; expected a list" in problem(MANY, known, text="a", labels="a")
    assert "`labels` has the class 0 twice" in problem(MANY, known, text="a", labels=[0, 1, 0])
    assert "`labels[1]` is 'd', which is no" in problem(MANY, known, text="a", labels=["a", "d"])


# Tags and spans.

JOHN = ["John", "Smith", "lives", "in", "Paris"]
SPANS = (Span(0, 10, "PER"), Span(20, 25, "LOC"))


@pytest.mark.parametrize(
    "tags",
    [
        ["B-PER", "I-PER", "O", "O", "B-LOC"],
        ["I-PER", "I-PER", "O", "O", "I-LOC"],
        ["B-PER", "E-PER", "O", "O", "S-LOC"],
        ["B-PER", "L-PER", "O", "O", "U-LOC"],
        [3, 4, 0, 0, 1],
        "B-PER I-PER O O B-LOC",
    ],
)
def test_tags_of_every_scheme_and_indices_are_the_same_spans(tags: Any) -> None:
    assert label(TAGS, PEOPLE, text=None, tokens=JOHN, ner=tags) == SPANS
    assert label(TAGS, PEOPLE, text=" ".join(JOHN), ner=tags) == SPANS
    if tags[0] != 3:
        assert label(TAGS, None, text=None, tokens=JOHN, ner=tags) == SPANS


@pytest.mark.parametrize(
    "tags",
    [["B-PER", -100, "O", "O", "B-LOC"], [3, -100, 0, 0, 1], ["B-PER", None, "O", "O", "S-LOC"]],
)
def test_a_word_with_the_tag_minus_100_or_null_has_no_label(tags: list[Any]) -> None:
    found = label(TAGS, PEOPLE, text=None, tokens=JOHN, ner=tags)
    assert found == (Span(0, 4, "PER"), Span(20, 25, "LOC"))
    assert found.unlabelled == ((5, 10),)
    # Inside an entity, the entity implies the word's tag.
    found = label(TAGS, PEOPLE, text=None, tokens=JOHN[:3], ner=["B-PER", -100, "I-PER"])
    assert (found, found.unlabelled) == ((Span(0, 16, "PER"),), ())


def test_minus_100_is_a_tag_neither_as_text_nor_as_another_number() -> None:
    given = {"text": "John Smith"}
    assert "tags -100 have no prefix" in problem(TAGS, None, **given, ner=["B-PER", "-100"])
    assert "`ner[1]` is -1; expected tags" in problem(TAGS, PEOPLE, **given, ner=[3, -1])
    found = label(TAGS, PEOPLE, **given, ner=[-100, -100])
    assert (found, found.unlabelled) == ((), ((0, 4), (5, 10)))


def test_spans_are_characters_of_the_text_or_of_the_joined_tokens() -> None:
    entities = [
        {"start": 20, "end": 25, "label": "LOC", "text": "Paris"},
        {"start": 0, "end": 10, "label": "PER"},
    ]
    assert label(TAGS, PEOPLE, text=None, tokens=JOHN, entities=entities) == SPANS
    assert label(TAGS, PEOPLE, text=" ".join(JOHN), ner=entities) == SPANS
    assert label(TAGS, PEOPLE, text="a", entities=[]) == ()
    assert label(TAGS, PEOPLE, text=None, tokens=["a"], ner=["O"]) == ()


def test_entities_beside_tags_are_not_read_and_said_so(tmp_path: Path) -> None:
    entities = [{"start": 2, "end": 3, "label": "LOC"}]
    both = {"text": "a b", "ner": ["B-PER", "O"], "entities": entities}
    path = write(tmp_path / "x.jsonl", both, {"text": "a b", "entities": entities}, both)
    said: list[str] = []
    found = list(read_records(path, {"t": TAGS}, {"t": PEOPLE}, on_unread=said.append))
    assert [record.spans("t")[0].label for record in found] == ["PER", "LOC", "PER"]
    assert said == [
        "the task 't' reads the field 'ner' and not 'entities', which 2 records have beside it"
    ]
    other = {"o": TaskConfig(kind="tagging", field="entities")}
    list(read_records(path, {"t": TAGS}, {}, read_elsewhere=other, on_unread=said.append))
    assert len(said) == 1


def test_tags_take_precedence_over_entities_unless_they_are_missing() -> None:
    entities = [{"start": 0, "end": 4, "label": "LOC"}]
    both = {"tokens": ["John"], "ner": ["B-PER"], "entities": entities}
    assert label(TAGS, PEOPLE, text=None, **both) == (Span(0, 4, "PER"),)
    assert label(TAGS, PEOPLE, text=None, **{**both, "ner": None}) == (Span(0, 4, "LOC"),)


def test_tags_of_a_text_are_for_its_words_between_white_space() -> None:
    text = "  John\u00a0lives\n"
    assert label(TAGS, PEOPLE, text=text, ner=["B-PER", "O"]) == (Span(2, 6, "PER"),)
    found = problem(TAGS, PEOPLE, text="Paris.", ner=["B-LOC", "O"])
    assert "`ner` has 2 tags for 1 word between white space; expected one tag a token. " in found
    assert "Give the sentence as `tokens`." in found


def test_plain_classes_are_a_span_a_token() -> None:
    known = TagSet(("NOUN", "VERB"), Scheme.PLAIN)
    spans = (Span(0, 1, "VERB"), Span(2, 3, "NOUN"))
    assert label(TAGS, known, text=None, tokens=["a", "b"], ner=["VERB", "NOUN"]) == spans
    assert label(TAGS, known, text=None, tokens=["a", "b"], ner=[1, 0]) == spans
    with_o = TagSet(("O", "VERB"), Scheme.PLAIN)
    assert label(TAGS, with_o, text=None, tokens=["a"], ner=["O"]) == (Span(0, 1, "O"),)


def test_indices_count_the_tags_as_the_configuration_lists_them() -> None:
    order = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    task = TaskConfig(kind="tagging", labels=order)
    for known in (None, TagSet.of_types(["LOC", "PER"])):
        assert label(task, known, text=None, tokens=JOHN, ner=[1, 2, 0, 0, 3]) == SPANS
    numbered = TaskConfig(kind="tagging", num_labels=5)
    assert label(numbered, text=None, tokens=["a"], ner=[3]) == (Span(0, 1, "2"),)
    plain = TaskConfig(kind="tagging", num_labels=4)
    assert label(plain, text=None, tokens=["a"], ner=[3]) == (Span(0, 1, "3"),)
    assert "no tags are listed for them" in problem(TAGS, tokens=["a"], ner=[0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["O"], "`ner` has 1 tag for 2 tokens; expected one tag a token. Correct the tags."),
        ([], "`ner` has 0 tags for 2 tokens"),
        (["O", "B-PRE"], "`ner[1]` is 'B-PRE', which is not a label of the task 't' (did you mean"),
        (["O", "PER"], "`ner[1]` is 'PER', which is not a label"),
        (["O", 1], "`ner[1]` is 1; expected tags such as B-PER and O, or only indices"),
        ([0, 5], "`ner[1]` is 5, beyond the 5 labels of the task 't'"),
        ([True, False], "`ner[0]` is True; expected tags"),
        (["O", ""], "`ner` is a blank label"),
        (["O", "B-" + "x" * 300], "`ner` is a label of 302 characters"),
        ({"a": 1}, "`ner` is {'a': 1}; expected a list of tags, one a token, or a list of ent"),
        (5, "`ner` is 5; expected a list of tags"),
    ],
)
def test_invalid_tags_are_errors(value: Any, expected: str) -> None:
    assert expected in problem(TAGS, PEOPLE, tokens=["John", "lives"], ner=value)


@pytest.mark.parametrize(
    ("entities", "expected"),
    [
        ([{"start": 0, "end": 4}], "`entities[0]` is {'start': 0, 'end': 4}; expected an object"),
        ([{"start": 0, "end": 4, "label": "PER"}, 5], "`entities[1]` is 5; expected an object"),
        ([{"start": 4, "end": 4, "label": "PER"}], "`entities[0]` goes from 4 to 4; expected 0"),
        ([{"start": -1, "end": 4, "label": "PER"}], "goes from -1 to 4"),
        ([{"start": 0, "end": 12, "label": "PER"}], "goes from 0 to 12; expected 0 <= start < "),
        ([{"start": 0.0, "end": 4, "label": "PER"}], "goes from 0.0 to 4"),
        ([{"start": True, "end": 4, "label": "PER"}], "goes from True to 4"),
        ([{"start": 0, "end": 4, "label": 1}], "`entities[0].label` is 1; expected the name of"),
        ([{"start": 0, "end": 4, "label": "O"}], "`entities[0].label` is 'O'"),
        ([{"start": 0, "end": 4, "label": "PRE"}], "is 'PRE', which is not a label"),
        ([{"start": 4, "end": 5, "label": "PER"}], "`entities[0]` covers only white space"),
        (
            [{"start": 1, "end": 5, "label": "PER", "text": "John"}],
            "`entities[0]` covers 'ohn ' but has the text 'John'",
        ),
        (
            [{"start": 3, "end": 6, "label": "LOC"}, {"start": 0, "end": 4, "label": "PER"}],
            "overlapping entities, 'John' (PER, 0 to 4) and 'n l' (LOC, 3 to 6)",
        ),
    ],
)
def test_invalid_entities_are_errors(entities: Any, expected: str) -> None:
    assert expected in problem(TAGS, PEOPLE, text="John lives", entities=entities)


token = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(
    lambda t: t.split() == [t]
)
bio = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=8)


def written_as(tags: list[str], scheme: str) -> list[str]:
    """Rewrite valid BIO in another scheme."""
    result = []
    for i, tag in enumerate(tags):
        after = tags[i + 1] if i + 1 < len(tags) else "O"
        before = tags[i - 1] if i else "O"
        last = tag != "O" and after != f"I-{tag[2:]}"
        if tag == "O":
            result.append(tag)
        elif scheme == "IOB1":
            needs_b = tag[0] == "B" and before[2:] == tag[2:]
            result.append(("B" if needs_b else "I") + tag[1:])
        else:
            single, end = ("S", "E") if scheme == "IOBES" else ("U", "L")
            prefix = (single if last else "B") if tag[0] == "B" else (end if last else "I")
            result.append(prefix + tag[1:])
    return result


@given(bio, st.data(), st.sampled_from(["BIO", "IOB1", "IOBES", "BILOU"]))
@QUICK
def test_every_scheme_leads_to_the_same_spans_and_back(
    tags: list[str], data: st.DataObject, scheme: str
) -> None:
    valid: list[str] = []
    for tag in tags:
        inside = tag[0] == "I" and bool(valid) and valid[-1][2:] == tag[2:]
        valid.append(tag if tag[0] != "I" or inside else f"B{tag[1:]}")
    tokens = data.draw(st.lists(token, min_size=len(valid), max_size=len(valid)))
    written = valid if scheme == "BIO" else written_as(valid, scheme)
    record = parse(TAGS, TagSet.of_types(["x", "y"]), tokens=tokens, ner=written)
    spans = [s for s in record.labels["t"] if isinstance(s, Span)]
    assert record.tokens is not None
    assert tags_of(spans, record.tokens) == valid
    entities = [{"start": s.start, "end": s.end, "label": s.label} for s in spans]
    assert parse(TAGS, text=record.text, entities=entities).labels == record.labels


json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(
        ["O", "B-x", "a b", "", " ", "\ud800", "start"]
    ),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["start", "end", "label", "text"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "text": st.just("a b") | json_value,
            "tokens": st.just(["a", "b"]) | json_value,
            **dict.fromkeys(["label", "labels", "ner", "entities"], json_value),
        },
    ),
    st.booleans(),
)
@settings(max_examples=100)
def test_any_record_is_read_or_refused_with_a_data_error(
    fields: dict[str, Any], known: bool
) -> None:
    tasks = {"c": CLASS, "m": MANY, "t": TAGS, "n": TaskConfig(kind="tagging", num_labels=5)}
    names = LabelSet(("a", "b"))
    sets = {"c": names, "m": names, "t": TagSet.of_types("x"), "n": TagSet.of_types("12")}
    try:
        record = RecordParser(tasks, sets if known else {})(row(**fields))
    except DataError as error:
        record = None
        str(error).encode()
    assert record is None or record.text.strip()


# Reading, and labels that training never saw.


def test_records_are_read_with_their_labels_and_places(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a", "label": 1}, {"text": "b"})
    records = list(read_records(path, {"t": CLASS}, {"t": LabelSet(("n", "p"))}))
    assert [record.labels for record in records] == [{"t": "p"}, {}]
    assert [record.where for record in records] == [f"{path}:1", f"{path}:2"]
    assert [record.text for record in read_records(path, {}, {})] == ["a", "b"]


def test_reading_continues_if_a_callback_takes_the_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a"}, {"text": ""}, {"text": "b"})
    with Path(path).open("a") as file:
        file.write("{\n")
    errors: list[DataError] = []
    records = list(read_records(path, {}, {}, on_error=errors.append))
    assert [record.text for record in records] == ["a", "b"]
    assert [error.where for error in errors] == [f"{path}:2", f"{path}:4"]
    with pytest.raises(DataError, match=r"x.jsonl:2: the text is empty"):
        list(read_records(path, {}, {}))


def test_unseen_labels_are_kept_on_request_and_counted(tmp_path: Path) -> None:
    entity = {"start": 0, "end": 1, "label": "q"}
    path = write(
        tmp_path / "x.jsonl",
        {"text": "a b", "label": "new", "labels": ["a", "z"], "ner": ["B-q", "B-q"]},
        {"text": "a b", "label": "old", "entities": [entity]},
        {"text": "a b"},
    )
    tasks = {"c": CLASS, "m": MANY, "t": TAGS}
    sets = {"c": LabelSet(("old",)), "m": LabelSet(("a",)), "t": TagSet.of_types(["p"])}
    with pytest.raises(DataError, match=r"x.jsonl:1: `label` is 'new', which is not a label"):
        list(read_records(path, tasks, sets))
    records = list(read_records(path, tasks, sets, allow_unseen=True))
    assert unseen_labels(records, "c", sets["c"]) == {"new": 1}
    assert unseen_labels(records, "m", sets["m"]) == {"z": 1}
    assert unseen_labels(records, "t", sets["t"]) == {"q": 3}
    assert not unseen_labels(records, "c", LabelSet(("old", "new")))


@pytest.mark.parametrize(
    ("task", "known", "fields"),
    [
        (TaskConfig(kind="classification", labels=("a",)), LabelSet(("a",)), {"label": "b"}),
        (CLASS, LabelSet(("a",)), {"label": 1}),
        (TAGS, TagSet.of_types("x"), {"ner": ["x"]}),
        (TAGS, TagSet.of_types("x"), {"ner": [3]}),
        (
            TaskConfig(kind="tagging", labels=("x",)),
            TagSet.of_types("x"),
            {"entities": [{"start": 0, "end": 1, "label": "y"}]},
        ),
    ],
)
def test_errors_other_than_unseen_labels_stay_errors(
    task: TaskConfig, known: LabelSet, fields: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"x.jsonl:7: .* the task 't'"):
        parse(task, known, allow_unseen=True, text="a", **fields)


# What could be misread.


def test_a_repeated_entity_counts_once() -> None:
    item = {"start": 0, "end": 1, "label": "PER"}
    assert label(TAGS, PEOPLE, entities=[item, item]) == (Span(0, 1, "PER"),)


@pytest.mark.parametrize("token", ["New York", "10\u00a0000", "\u3000", "a "])
def test_tokens_may_have_white_space_in_them(token: str) -> None:
    record = parse(TAGS, PEOPLE, tokens=["a", token], ner=["O", "B-LOC"])
    assert record.text == f"a {token}"
    assert record.tokens == ((0, 1), (2, 2 + len(token)))
    assert record.labels["t"] == (Span(2, 2 + len(token), "LOC"),)


def test_a_second_text_that_no_task_reads_is_refused() -> None:
    text = problem(CLASS, text="a", text2="b", label="x")
    assert "the record has a second text, `text2`, which no task reads" in text
    assert parse(CLASS, text="a", text2="b").labels == {}
    number = TaskConfig(kind="regression", field="score")
    assert "which no task reads" in problem(number, text="a", text2="b", score=1)
    assert parse(CLASS, text="a", text2="b", label="x", score=0.5).labels == {"t": "x"}


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("a b", "a b\t "), ("caf\u00e9", "caf\u00e9\u00a0")],
)
def test_a_name_is_one_label_however_its_accents_and_ends_are_written(one: str, other: str) -> None:
    tokens = {"text": "a b", "tokens": ["a", "b"]}
    rows = [
        {"text": "a b", "label": other},
        {"text": "a b", "labels": [other]},
        {**tokens, "ner": [f"B-{other}", "O"]},
        {"text": "a b", "entities": [{"start": 0, "end": 1, "label": other}]},
    ]
    for fields, task in zip(rows, (CLASS, MANY, TAGS, TAGS), strict=True):
        record = RecordParser({"t": task}, {})(Row("x", 1, "line", fields))
        assert label_names(record.labels["t"]) == [one]
    assert TaskConfig(kind="classification", labels=[other, "b"]).labels == (one, "b")
    stored = {"name": "t", "kind": "classification", "labels": [other, "b"]}
    assert TaskSpec.from_json(stored).labels == (one, "b")
