"""Error messages: their parts, and pickling between processes."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.errors import (
    CheckFailed,
    ConfigError,
    DataError,
    ManyheadsError,
    at,
    counted,
    listing,
    nearest,
    option,
    shorten,
    worded_for_command,
)


def test_a_message_says_where_what_was_found_what_was_expected_and_what_to_do() -> None:
    error = DataError(
        "4 tags for 5 tokens",
        where=at("train.json", 12),
        expected="a tag for each token",
        fix="Add the missing tag.",
    )
    assert str(error) == (
        "train.json:12: 4 tags for 5 tokens; expected a tag for each token. Add the missing tag."
    )


def test_a_message_leaves_out_the_parts_it_does_not_have() -> None:
    assert str(DataError("no records")) == "no records"
    assert str(DataError("no records", where="a.csv")) == "a.csv: no records"
    assert str(DataError("no records", fix="Add some.")) == "no records. Add some."


@pytest.mark.parametrize("kind", [ManyheadsError, ConfigError, CheckFailed])
def test_an_error_of_a_worker_process_arrives_whole(kind: type[ManyheadsError]) -> None:
    error = kind("found", expected="expected", fix="Fix.", where="here")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (kind, str(error))
    assert (copy.found, copy.expected, copy.fix, copy.where) == (
        "found",
        "expected",
        "Fix.",
        "here",
    )


def test_a_failed_check_exits_with_1_and_other_errors_with_2() -> None:
    assert CheckFailed("x").exit_status == 1
    assert {kind.exit_status for kind in (ManyheadsError, ConfigError, DataError)} == {2}


def test_a_place_is_a_line_or_a_counted_unit_of_a_file() -> None:
    assert at("a.csv") == "a.csv"
    assert at("a.csv", 3) == "a.csv:3"
    assert at("a.json", 3, "record") == "a.json record 3"


def test_the_nearest_known_word_is_offered_only_if_it_is_near() -> None:
    assert nearest("learnin_rate", ["batch_size", "learning_rate"]) == (
        ' (did you mean "learning_rate"?)'
    )
    assert nearest("zzz", ["batch_size", "learning_rate"]) == ""


@given(st.one_of(st.text(), st.binary(), st.lists(st.text())), st.integers(10, 100))
def test_a_shortened_value_fits_a_message_whatever_its_size(value: object, limit: int) -> None:
    # A character can take up to ten in a repr, such as \U0001f600.
    assert len(shorten(value, limit)) <= 10 * limit + 40


def test_a_shortened_text_says_how_long_it_was() -> None:
    assert shorten("x" * 1_000_000, 5) == "'xxxxx'... (1000000 characters)"
    assert shorten("short") == "'short'"


def test_a_listing_shows_the_first_names_and_counts_the_rest() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing(range(100), 3) == "0, 1, 2, ... (100 in all)"
    assert len(listing(["x" * 1_000_000])) < 150


def test_a_listing_quotes_names_that_would_drive_a_terminal_or_are_no_unicode() -> None:
    assert listing(["a", "\x1b[31m", "\ud800"]) == "a, '\\x1b[31m', '\\ud800'"


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 entities"), (1, "1 entity"), (1200, "1,200 entities")]
)
def test_a_number_has_its_noun_in_the_singular_or_plural(number: int, expected: str) -> None:
    assert counted(number, "entity", "entities") == expected


@pytest.mark.parametrize(
    ("command", "python"),
    [
        ("--save-dir DIR", "`save_dir`"),
        ("--backend torch", '`backend="torch"`'),
        ("--resume", "`resume=True`"),
    ],
)
def test_an_option_is_named_as_the_reader_writes_it(command: str, python: str) -> None:
    assert option(command) == python
    with worded_for_command():
        assert option(command) == command
    assert option(command) == python


def test_an_option_of_another_name_in_python_says_so_there_alone() -> None:
    assert option("--file FILE", "`data`") == "`data`"
    with worded_for_command():
        assert option("--file FILE", "`data`") == "--file FILE"


def test_messages_of_other_threads_are_worded_for_the_command_too() -> None:
    with worded_for_command(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(option, "--resume").result() == "--resume"


def test_wording_for_the_command_ends_with_an_error_in_it() -> None:
    with pytest.raises(ValueError, match="x"), worded_for_command():
        raise ValueError("x")
    assert option("--resume") == "`resume=True`"
