"""YAML files: the line of every key, bounded memory, and one kind of error for any content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyheads.config.yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_scalar, read_yaml
from manyheads.errors import ConfigError

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "c.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_values_come_with_the_line_of_each_key(write: Write) -> None:
    path = write("# comment\na: 1\ntasks:\n  ner:\n    labels: [x,\n      y]\n")
    document = read_yaml(path)
    assert document.values == {"a": 1, "tasks": {"ner": {"labels": ["x", "y"]}}}
    assert document.where(("a",)) == f"{path}:2"
    assert document.where(("tasks", "ner", "labels", 1)) == f"{path}:5"
    assert document.where(("tasks", "ner", "kind")) == f"{path}:4"
    assert document.where(()) == str(path)


def test_a_replaced_key_has_no_place_in_the_file(write: Write) -> None:
    document = read_yaml(write("a: 1\nb: {c: 1}\n")).without(("b", "c"))
    assert document.where(("b", "c")) == ""
    assert document.where(("b",)).endswith(":2")


@pytest.mark.parametrize("content", ["", "# only a comment\n", "---\n", b"\xef\xbb\xbf"])
def test_a_file_without_values_is_an_empty_mapping(write: Write, content: str | bytes) -> None:
    assert read_yaml(write(content)).values == {}


def test_words_that_yaml_1_1_reads_as_booleans_or_dates_stay_text(write: Write) -> None:
    path = write("labels: [no, yes, on, off, true, 2024-05-01, '1', 1, ~]")
    labels = ["no", "yes", "on", "off", True, "2024-05-01", "1", 1, None]
    assert read_yaml(path).values == {"labels": labels}


def test_an_anchor_stands_for_its_value(write: Write) -> None:
    path = write("tasks:\n  a: &a {weight: 2}\n  b: {<<: *a, dropout: 0}\n")
    assert read_yaml(path).values["tasks"]["b"] == {"weight": 2, "dropout": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: [1\nc: 2", r"c\.yaml:3: not YAML \(expected ',' or '\]'"),
        ("a: 1\nb:\t- 1\n - 2", r"c\.yaml:\d: not YAML"),
        ("a: *nowhere", r"c\.yaml:1: not YAML \(found undefined alias"),
        ("a: 1\n---\nb: 2", r"c\.yaml:2: not YAML \(but found another document"),
        ("a: 1\nb: 2\na: 3", r"c\.yaml:3: key 'a' is repeated here. Keep one"),
        ("- 1", r"c\.yaml:1: the file is a list; expected keys and values"),
        ("just words", r"c\.yaml:1: the file is a text; expected keys and values"),
        ("a: 1\n2: b", r"c\.yaml:2: key '2' is a number; expected a text. Put it in quotes"),
        ("? [a, b]\n: 1", r"c\.yaml:1: a key is a list; expected a text"),
        ("a: !!python/object/apply:os.system [id]", r"c\.yaml:1: not YAML \(a tag .* not allowed"),
        ("a: !!bool x", "a tag .* is not allowed"),
        ("a: " + "9" * 5000, r"c\.yaml: .*digits.*; expected plain YAML values"),
        ("a: {<<: 3}", "not YAML"),
        (b"a: 1\nb: \xff", r"c\.yaml:2: byte 0xff is not UTF-8.*Save the file as UTF-8"),
        (b"a: \x00", "not YAML"),
        ("a: " + "[" * 10_000, f"more than {MAX_NODES} values or {MAX_DEPTH} levels"),
        ("a: [" + "1," * MAX_NODES, f"more than {MAX_NODES} values or {MAX_DEPTH} levels"),
        ("a: &a [*a]", "expands to more than"),
        ("# " + "x" * MAX_BYTES, "larger than 1 MiB"),
    ],
)
def test_an_invalid_file_is_refused_with_its_line(
    write: Write, content: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_yaml(write(content))


def test_a_small_file_cannot_become_a_large_value(write: Write) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    with pytest.raises(ConfigError, match=r"expands to more than.*Remove the repeated aliases"):
        read_yaml(write("\n".join(lines)))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such configuration file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[a, b]", ["a", "b"]),
        ("{a: 1}", {"a": 1}),
        ("", None),
        ("# x", "# x"),
        ("[a", "[a"),
        ("!!bool x", "!!bool x"),
        ("&a [*a]", "&a [*a]"),
    ],
)
def test_command_line_values_are_read_as_yaml_if_they_are_yaml(text: str, value: Any) -> None:
    assert parse_scalar(text) == value


# Pieces of YAML that have broken parsers before, mixed with any text.
SYNTAX = (
    "a|- |: |? |\n|\n  |&a |*a|<<: |{|}|[|]|, |~|'|\"|>-\n|---\n|%YAML 9|\t|\\|true|tasks|="
    "|!!int |!!set |!!timestamp |!x |1:2:3|0x_|0b|1e999|.nan|2024-13-45"
)
PIECES = st.one_of(st.sampled_from(SYNTAX.split("|")), st.text(max_size=5))


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=st.one_of(st.lists(PIECES, max_size=12).map("".join), st.binary(max_size=40)))
def test_a_file_raises_nothing_but_configuration_errors(write: Write, content: str | bytes) -> None:
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    with contextlib.suppress(ConfigError):
        assert isinstance(read_yaml(write(data)).values, dict)


@settings(max_examples=300)
@given(st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text()))
def test_any_command_line_text_has_a_value(text: str) -> None:
    parse_scalar(text)
