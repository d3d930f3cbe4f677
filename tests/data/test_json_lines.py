"""Records are written as lines of JSON without loss, or refused by field and place."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import write
from manyheads.data.convert import convert
from manyheads.data.json_lines import json_line, json_list
from manyheads.data.readers import in_memory, read_rows
from manyheads.errors import DataError

# Every code point by itself: half characters too, other than two that would make a whole one.
texts = st.text(st.characters(exclude_categories=[])).filter(
    lambda text: not any("\ud800" <= a < "\udc00" <= b < "\ue000" for a, b in pairwise(text))
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_what_json_has_is_read_back_as_it_was(record: dict[str, Any]) -> None:
    line = json_line(record)
    assert line.count(b"\n") == 1
    assert json.loads(line.decode()) == record


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_decimal_becomes_an_equal_number_or_its_digits(value: Decimal) -> None:
    written = json_line({"x": value}).decode()
    assert json.loads(written, parse_float=Decimal)["x"] in (value, str(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("3.00"), "3"),
        (Decimal("0.10"), "0.1"),
        (Decimal("0.1000000000000000000001"), '"0.1000000000000000000001"'),
        (Decimal(2**64 - 1), str(2**64 - 1)),
        (Decimal("1E+400"), '"1E+400"'),
        (Decimal("NaN"), '"NaN"'),
        (2**200, str(2**200)),
        (date(2024, 1, 2), '"2024-01-02"'),
        (datetime(2024, 1, 2, 3, tzinfo=timezone.utc), '"2024-01-02T03:00:00+00:00"'),
        (time(3, 4), '"03:04:00"'),
        (timedelta(days=1, hours=2), '"1 day, 2:00:00"'),
        (UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (["é", {"day": date(2024, 1, 2)}], '["é", {"day": "2024-01-02"}]'),
        ("\ud800", r'"\ud800"'),
    ],
)
def test_values_that_json_lacks_have_one_form(value: Any, expected: str) -> None:
    assert json_line({"x": value}).decode() == f'{{"x": {expected}}}\n'


@pytest.mark.parametrize(
    ("value", "problem"),
    [(b"x", "type bytes"), ([{1, 2}], "type set"), ([10**5000], "digits"), ({(1, 2): 3}, "tuple")],
)
def test_other_values_are_refused_by_field_and_place(value: Any, problem: str) -> None:
    with pytest.raises(
        DataError, match=rf"a\.parquet row 3: `scan` cannot .*{problem}.*; expected"
    ):
        json_line({"text": "a", "scan": value}, "a.parquet row 3")


@pytest.mark.parametrize("records", [[], [{"x": 1}], [{"x": 1}, {"x": "a\nb"}]])
def test_lines_make_a_list(records: list[dict[str, Any]]) -> None:
    parts = list(json_list(map(json_line, records)))
    assert json.loads(b"".join(parts)) == records
    assert len(parts) == len(records) + 1


def test_converted_records_have_their_dates_and_half_characters(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with in_memory([{"text": "a b", "day": date(2024, 1, 2), "note": "\ud800"}], "dated") as name:
        assert convert(name, target) == 1
    [row] = read_rows(target)
    assert dict(row.fields) == {"text": "a b", "day": "2024-01-02", "note": "\ud800"}
    again = tmp_path / "again.jsonl"
    assert convert(target, again) == 1
    assert again.read_bytes() == target.read_bytes()


def test_a_record_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "first.jsonl", {"text": "a"})
    scanned = [{"text": "a b"}, {"text": "c", "scan": b"\0"}]
    with (
        in_memory(scanned, "scanned") as name,
        pytest.raises(
            DataError, match="records:scanned record 2: `scan` cannot be written as JSON"
        ),
    ):
        convert(name, first)
    assert json.loads(Path(first).read_text()) == {"text": "a"}
