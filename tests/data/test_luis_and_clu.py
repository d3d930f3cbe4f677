"""Files of LUIS and CLU: positions, utterances for testing, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from files import message, read, unread


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("unit", ["Utf16CodeUnit", "UnicodeCodePoint"])
def test_entities_of_clu_are_counted_in_the_units_of_the_file(
    tmp_path: Path, unit: str, is_last: bool
) -> None:
    path = tmp_path / "x.json"
    offset = 10 if unit == "Utf16CodeUnit" else 9
    entity = {"category": "city", "offset": offset, "length": 4}
    assets = {"utterances": [{"text": "🎉 fly to Oslo", "intent": "fly", "entities": [entity]}]}
    parts = {"stringIndexType": unit, "assets": assets}
    parts = dict(reversed(parts.items())) if is_last else parts
    path.write_text(json.dumps({"projectFileVersion": "1", **parts}))
    oslo = {"start": 9, "end": 13, "label": "city"}
    assert read(path) == [{"text": "🎉 fly to Oslo", "label": "fly", "entities": [oslo]}]


def test_utterances_of_clu_for_training_and_testing_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "clu.json"

    def save(*datasets: str | None) -> None:
        utterances = [
            {"text": f"a{i}", "intent": "b"} | ({"dataset": name} if name != "missing" else {})
            for i, name in enumerate(datasets)
        ]
        path.write_text(
            json.dumps({"projectFileVersion": "1", "assets": {"utterances": utterances}})
        )

    save("Train", "Test", None, "missing")
    assert [row["text"] for row in read(f"{path}@Train")] == ["a0", "a2", "a3"]
    assert [row["text"] for row in read(f"{path}@Test")] == ["a1"]
    assert "clu.json: several splits; expected one of: Train, Test" in message(path)
    save("Test", "Test")
    assert len(read(path)) == 2


@pytest.mark.parametrize("name", ["luis", "clu"])
def test_positions_in_utf16_units_become_characters_and_stay_outside_the_text(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "x.json"

    def positions(start: int, end: int) -> tuple[int, int]:
        entity = (
            {"startPos": start, "endPos": end - 1, "entity": "city"}
            if name == "luis"
            else {"offset": start, "length": end - start, "category": "city"}
        )
        data = {"utterances": [{"text": "🎉 fly to Oslo", "intent": "fly", "entities": [entity]}]}
        path.write_text(
            json.dumps(
                {"luis_schema_version": "7", **data}
                if name == "luis"
                else {"projectFileVersion": "1", "assets": data}
            )
        )
        (found,) = read(path)[0]["entities"]
        return found["start"], found["end"]

    assert positions(10, 14) == (9, 13)
    assert positions(0, 2) == (0, 1)
    assert positions(10, 15) == (9, 14)
    assert positions(-1, 2) == (-1, 1)


def test_what_luis_knows_beyond_entities_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    part = {"startPos": 3, "endPos": 6, "entity": "city"}
    entity = {"startPos": 0, "endPos": 6, "entity": "leg", "role": "first", "children": [part]}
    utterance = {"text": "to Oslo", "intent": "fly", "entities": [entity]}
    path.write_text(
        json.dumps(
            {"luis_schema_version": "7", "utterances": [utterance, utterance],
             "patterns": [{"pattern": "to {city}", "intent": "fly"}]}
        )
    )  # fmt: skip
    leg = {"start": 0, "end": 7, "label": "leg"}
    assert read(path) == [{"text": "to Oslo", "label": "fly", "entities": [leg]}] * 2
    told = next(iter(unread(path)))
    assert told.startswith("roles and groups of entities, which ")
    assert unread(path) == {"parts of entities": 2, told: 2, "patterns": 1}
