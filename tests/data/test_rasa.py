"""Rasa's files: YAML, Markdown and JSON, with roles, values and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from files import message, read, unread
from manyheads.data.readers import Layout, read_rows
from manyheads.errors import DataError, worded_for_command


@pytest.mark.parametrize("value", ["=", "010", "1:30", "yes", "1.0"])
def test_values_that_yaml_takes_for_others_than_texts_are_texts_in_rasa(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(
        f"nlu:\n- intent: {value}\n  examples: |\n    - at [{value}](time)\n"
        f"- intent: bye\n  examples:\n  - text: {value}\n"
    )
    item = {"start": 3, "end": 3 + len(value), "label": "time"}
    assert read(path) == [
        {"text": f"at {value}", "entities": [item], "label": value},
        {"text": value, "entities": [], "label": "bye"},
    ]


def test_roles_and_groups_in_rasas_json_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    city = {"start": 3, "end": 7, "value": "Oslo", "entity": "city"}
    examples = [
        {"text": "to Oslo", "intent": "fly", "entities": [city | more]}
        for more in ({}, {"role": "to"}, {"group": "1"}, {"role": "to", "group": "1"})
    ]
    path.write_text(json.dumps({"rasa_nlu_data": {"common_examples": examples}}))
    oslo = {"start": 3, "end": 7, "label": "city"}
    assert read(path) == [{"text": "to Oslo", "label": "fly", "entities": [oslo]}] * 4
    joined = '`layout=Layout(role_separator="_")`'
    told = f"roles and groups of entities, which {joined} joins to their types"
    assert unread(path) == {told: 3}
    with worded_for_command():
        assert [*unread(path)] == [told.replace(joined, "--role-separator _")]


@pytest.mark.parametrize("name", ["nlu.yml", "nlu.md", "rasa.json", "luis.json"])
def test_roles_and_groups_are_joined_to_the_types_by_the_layout(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    attributes = [{"role": "to"}, {"role": "to", "group": "1"}, {}, {"group": ""}]
    given = [{"entity": "city", **more} for more in attributes]
    written = [f"- to [Oslo]{json.dumps(one)}" for one in given]
    if name == "nlu.yml":
        path.write_text("nlu:\n- intent: fly\n  examples: |\n    " + "\n    ".join(written))
    elif name == "nlu.md":
        path.write_text("## intent:fly\n" + "\n".join(written))
    else:
        first, last = ("start", 7) if name == "rasa.json" else ("startPos", 6)
        at = {first: 3, first.replace("start", "end"): last}
        examples = [{"text": "to Oslo", "intent": "fly", "entities": [one | at]} for one in given]
        luis = {"luis_schema_version": "7", "utterances": examples}
        rasa = {"rasa_nlu_data": {"common_examples": examples}}
        path.write_text(json.dumps(rasa if name == "rasa.json" else luis))
    types = [
        row.fields["entities"][0]["label"]
        for row in read_rows(path, layout=Layout(role_separator="_"))
    ]
    assert types == ["city_to", "city_to_1", "city", "city"]
    counts: dict[str, int] = {}
    layout = Layout(role_separator=":")
    rows = [*read_rows(path, layout=layout, on_unread=counts.update)]
    assert (counts, rows[1].fields["entities"][0]["label"]) == ({}, "city:to:1")
    assert {row["entities"][0]["label"] for row in read(path)} == {"city"}


def test_the_number_0_is_a_role_or_group_too(tmp_path: Path) -> None:
    path = tmp_path / "nlu.md"
    path.write_text(
        "## intent:fly\n"
        '- [Oslo]{"entity": "city", "group": 0} [Rome]{"entity": "city", "role": 0}\n'
    )
    assert list(unread(path).values()) == [2]
    (row,) = read_rows(path, layout=Layout(role_separator="_"))
    assert [one["label"] for one in row.fields["entities"]] == ["city_0"] * 2


@pytest.mark.parametrize("label", [None, ["a"], "", " "])
def test_what_is_no_type_is_not_made_one_by_a_role(tmp_path: Path, label: Any) -> None:
    path = tmp_path / "rasa.json"
    city = {"start": 3, "end": 7, "entity": label, "role": "to"}
    example = {"text": "to Oslo", "intent": "fly", "entities": [city]}
    path.write_text(json.dumps({"rasa_nlu_data": {"common_examples": [example]}}))
    (row,) = read_rows(path, layout=Layout(role_separator="_"))
    assert row.fields["entities"][0]["label"] == label


@pytest.mark.parametrize("name", ["nlu.md", "rasa.json"])
@pytest.mark.parametrize("role", [["to"], 1.5, True])
def test_roles_that_cannot_be_joined_are_refused(tmp_path: Path, name: str, role: Any) -> None:
    path = tmp_path / name
    city = {"entity": "city", "role": role}
    example = {"text": "to Oslo", "intent": "fly", "entities": [{**city, "start": 3, "end": 7}]}
    path.write_text(
        f"## intent:fly\n- to [Oslo]{json.dumps(city)}\n"
        if name == "nlu.md"
        else json.dumps({"rasa_nlu_data": {"common_examples": [example]}})
    )
    with pytest.raises(DataError, match=r"the role of an entity is .*; expected a text or a whole"):
        list(read_rows(path, layout=Layout(role_separator="_")))
    assert list(unread(path).values()) == [1]


def test_attributes_of_rasas_entities_that_are_not_known_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "nlu.md"
    path.write_text('## intent:fly\n- to [Oslo]{"entity": "city", "extractor": "x"}\n')
    assert unread(path) == {"other attributes of entities": 1}


@pytest.mark.parametrize("name", ["nlu.yml", "nlu.md", "nlu.json"])
def test_values_of_rasas_entities_other_than_their_texts_are_counted(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    values = ["Oslo", "OSL", ""]
    if name == "nlu.json":
        city = {"start": 3, "end": 7, "entity": "city"}
        examples = [
            {"text": "to Oslo", "intent": "fly", "entities": [city | {"value": value}]}
            for value in values
        ]
        path.write_text(json.dumps({"rasa_nlu_data": {"common_examples": examples}}))
    elif name == "nlu.yml":
        examples = [f'- to [Oslo]{{"entity": "city", "value": "{value}"}}' for value in values]
        path.write_text("nlu:\n- intent: fly\n  examples: |\n    " + "\n    ".join(examples))
    else:
        path.write_text("## intent:fly\n" + "".join(f"- to [Oslo](city:{v})\n" for v in values))
    oslo = {"start": 3, "end": 7, "label": "city"}
    assert read(path) == [{"text": "to Oslo", "entities": [oslo], "label": "fly"}] * 3
    assert unread(path) == {"values of entities that differ from their texts": 1}


def test_an_entity_of_rasa_may_be_in_a_list_and_lines_without_a_dash_are_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nlu.yml"
    start = "nlu:\n- intent: fly\n  examples: |\n    - to [Oslo]"
    path.write_text(f'{start}[{{"entity": "city"}}] now\n    * to Rome\n\n')
    oslo = {"start": 3, "end": 7, "label": "city"}
    assert read(path) == [{"text": "to Oslo now", "entities": [oslo], "label": "fly"}]
    assert unread(path) == {"lines of examples without `-`": 1}
    path.write_text(f'{start}[{{"entity": "city"}}, {{"entity": "town"}}]\n')
    assert 'nlu.yml:4: an entity has \'[{"entity": "city"}, ' in message(path)
    assert 'expected one {"entity": "city"}' in message(path)


def test_examples_of_rasa_may_be_a_list_of_texts_each_of_which_is_kept_whole(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(
        "nlu:\n- intent: order\n  examples:\n  - see you\n  - text: |\n      to\n"
        "      [Oslo](city)\n  - text: |\n      - 2 apples\n      - 3 pears\n"
        "  - |\n    - please bring\n    two apples\n"
    )
    assert [(row.line, row.fields["text"], row.fields["label"]) for row in read_rows(path)] == [
        (4, "see you", "order"), (5, "to\nOslo", "order"), (8, "- 2 apples\n- 3 pears", "order"),
        (11, "- please bring\ntwo apples", "order"),
    ]  # fmt: skip
    assert unread(path) == {}


@pytest.mark.parametrize("null", ["", " ~", " null"])
def test_nulls_in_lists_of_rasa_are_left_out(tmp_path: Path, null: str) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(
        f"nlu:\n-{null}\n- intent: a\n  examples:\n  -{null}\n  - text: hi\n  - 'null'\n"
        f"- intent: b\n  examples:{null}\n"
    )
    assert [(row["text"], row["label"]) for row in read(path)] == [("hi", "a"), ("null", "a")]
    assert unread(path) == {"intents without `examples`": 1}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("nlu:\n- intent: a\n  examples: |\n    - x\nnlu:\n- intent: b\n  examples: |\n    - y\n",
         "nlu.yml:5: the key 'nlu' twice; expected each key once"),
        ("nlu:\n- intent: a\n  examples: |\n    - x\n  examples: |\n    - y\n",
         "nlu.yml:5: the key 'examples' twice"),
        ("nlu:\n- intent: a\n  examples:\n  - text: x\n    text: y\n",
         "nlu.yml:5: the key 'text' twice"),
        ("nlu:\n- intent: a\n  examples:\n  - example: x\n",
         "nlu.yml:4: keys example; expected an example with `text`"),
        ("nlu:\n- intent: a\n  examples:\n  - text: ~\n",
         "nlu.yml:4: an example whose `text` has no value"),
        ("nlu:\n- intent: a\n  examples:\n  - [Oslo]\n", "nlu.yml:4: a sequence; expected an exam"),
        ("nlu:\n- intent: a\n  examples:\n    x: y\n", "nlu.yml:4: a mapping; expected lines that"),
        ("nlu:\n- intent: [a]\n  examples: |\n    - x\n",
         "nlu.yml:2: a sequence; expected the name of an intent"),
        ("nlu:\n- hello\n- intent: a\n", "nlu.yml:2: a scalar; expected an intent with `examples`"),
    ],
)  # fmt: skip
def test_what_rasas_yaml_may_not_hold_is_named(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(content)
    assert found in message(path)


def test_intents_of_rasa_without_examples_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "nlu.yml"
    path.write_text(
        "nlu:\n- intent: a\n  example: |\n    - x\n- intent: b\n  examples:\n"
        "- intent: c\n  examples: |\n    - y\n"
    )
    assert read(path) == [{"text": "y", "entities": [], "label": "c"}]
    assert unread(path) == {"intents without `examples`": 2}


@pytest.mark.parametrize(
    "heading", ["## bye", "### intent:bye", "#### bye: formal", "## Intent: bye", "##"]
)
def test_an_example_under_another_heading_of_rasas_markdown_has_no_intent(
    tmp_path: Path, heading: str
) -> None:
    path = tmp_path / "nlu.md"
    path.write_text(f"# Talk\n\n## intent:greet\n- hi\n{heading}\n\n## lookup:x\n- a\n")
    assert [row["text"] for row in read(path)] == ["hi"]
    path.write_text(f"## intent:greet\n- hi\n\n{heading}\n- see you\n## intent:a\n- b\n")
    assert (
        f"nlu.md:5: an example under the heading '{heading}'; expected a heading such as "
        "`## intent:greet`"
    ) in message(path)
    errors: list[DataError] = []
    rows = list(read_rows(path, on_error=errors.append))
    assert ([row.fields["label"] for row in rows], len(errors)) == (["greet", "a"], 1)


def test_lines_of_rasas_markdown_without_a_dash_are_counted_and_comments_are_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nlu.md"
    path.write_text(
        "Talk\n## intent:greet\n- hi\n# - hello\n<!-- more -->\ngood day\n* hey\n-\n"
        "## lookup:city\ncities.txt\n- Oslo\n"
    )
    assert [(row["text"], row["label"]) for row in read(path)] == [
        ("hi", "greet"), ("hey", "greet"),
    ]  # fmt: skip
    assert unread(path) == {"lines of examples without `-`": 1, "sections `lookup`": 1}


def test_comments_and_the_text_before_the_first_section_of_rasas_markdown_are_not_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "nlu.md"
    path.write_text(
        "# Talk\nAuthors:\n- Tom\n<!--\n## intent:old\n- old one\n-->\n"
        "## intent:bye <!-- end -->\n- see <!-- a --> you <!-- b -->\n"
        "<!-- moved\n- hey\n-->- ciao\n### formal\n- good day\n<!-- - so long -->\n"
    )
    assert [(row.line, row.fields["text"], row.fields["label"]) for row in read_rows(path)] == [
        (9, "see  you", "bye"), (12, "ciao", "bye"), (14, "good day", "bye"),
    ]  # fmt: skip
    assert unread(path) == {}
    path.write_text("## intent:bye\n- bye\n- ciao <!-- more\n- see you\n")
    assert "nlu.md:3: a comment that does not end; expected `-->`" in message(path)
    rows = list(read_rows(path, on_error=lambda _: None))
    assert [row.fields["text"] for row in rows] == ["bye", "ciao"]
