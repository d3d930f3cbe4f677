"""New records from exchanged entities: offsets, counts, and records that are left alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manyheads
from files import read, write
from manyheads.data.augment import augment, entity_values, exchange, is_exchangeable
from manyheads.data.readers import in_memory
from manyheads.errors import DataError, RequestError
from manyheads.tasks import Span


def song(before: str, name: str, label: str = "play") -> dict[str, Any]:
    start = len(before) + 1
    entity = {"start": start, "end": start + len(name), "label": "SONG"}
    return {"text": f"{before} {name} now", "label": label, "entities": [entity]}


@st.composite
def labelled(draw: st.DrawFn) -> tuple[str, list[Span]]:
    """A sentence of words, some of them runs that are entities."""
    text, spans = "", []
    for words in draw(st.lists(st.lists(st.text("aé中😀.", min_size=1), min_size=1), min_size=1)):
        run = " ".join(words)
        text += " " if text else ""
        if label := draw(st.sampled_from(["", "A", "B"])):
            spans.append(Span(len(text), len(text) + len(run), label))
        text += run
    return text, spans


@given(st.lists(labelled(), min_size=1, max_size=4), st.integers())
@settings(max_examples=30)
def test_offsets_are_right_and_the_rest_of_the_text_stays(
    sentences: list[tuple[str, list[Span]]], seed: int
) -> None:
    values = entity_values((text, spans, None) for text, spans in sentences)
    for text, spans in sentences:
        if not is_exchangeable(text, spans):
            continue
        new, found = exchange(text, spans, None, values, random.Random(seed))
        assert [span.label for span in found] == [span.label for span in spans]
        assert all(new[s.start : s.end] in values[None, s.label] for s in found)
        assert outside(new, found) == outside(text, spans)


def outside(text: str, spans: Any) -> list[str]:
    ends = [0, *(span.end for span in spans)]
    starts = [*(span.start for span in spans), len(text)]
    return [text[a:b] for a, b in zip(ends, starts, strict=True)]


def test_entities_are_exchanged_within_a_class_and_other_fields_stay(tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        {**song("play", "Yesterday"), "id": 7},
        song("put on", "Thriller"),
        song("rate", "Dune", "rate"),
        {"tokens": ["skip", "Help"], "ner": ["O", "B-SONG"], "label": "play"},
        {"text": "stop", "label": "play"},
    )
    done = augment(source, tmp_path / "out.jsonl", copies=20, seed=1)
    written = read(tmp_path / "out.jsonl")
    tagged = {"tokens": ["skip", "Help"], "label": "play"}
    entities = [{"start": 5, "end": 9, "label": "SONG"}]
    # Tags become entities, as new records have them: a task reads one field of a file.
    assert written[:5] == [*read(source)[:3], {**tagged, "entities": entities}, read(source)[4]]
    new = written[5:]
    assert (done.records, done.new, done.fixed) == (5, len(new), 1)
    assert done.new + done.repeated == 4 * 20
    assert {r["text"] for r in new} == {
        "play Thriller now", "play Help now", "put on Yesterday now", "put on Help now",
        "skip Yesterday", "skip Thriller",
    }  # fmt: skip
    assert all(r["id"] == 7 for r in new if r["text"].startswith("play"))
    for record in new:
        [entity] = record["entities"]
        assert record["text"][entity["start"] : entity["end"]] in ("Yesterday", "Thriller", "Help")


def test_the_order_of_several_classes_makes_no_other_group(tmp_path: Path) -> None:
    records = [
        {**song(way, name, "x"), "label": None, "labels": labels}
        for way, name, labels in (("play", "Yesterday", ["a", "b"]), ("hear", "Help", ["b", "a"]))
    ]
    target = tmp_path / "out.jsonl"
    manyheads.augment(records, target, copies=9)
    new = [record["text"] for record in read(target)[2:]]
    assert sorted(new) == ["hear Yesterday now", "play Help now"]


def test_new_records_lack_what_is_about_the_words_of_the_old_text(tmp_path: Path) -> None:
    words = {"tokens": ["skip", "Let", "it", "be"], "ner": ["O", "B-SONG", "I-SONG", "I-SONG"]}
    source = write(
        tmp_path / "in.jsonl",
        {
            **song("play", "Yesterday"), "n": 1, "topics": ["pop", "old"],
            "aspects": [{"start": 5, "end": 14, "label": "x"}], "scores": {"a": 0.5},
            "spans": {"sc": [[0, 4]]}, "place": [5, 14], "labels": [1, 2],
        },
        {**words, "label": "play", "upos": ["V", "V", "P", "V"], "topics": ["a", "b", "c", "d"]},
    )  # fmt: skip
    done = augment(source, tmp_path / "out.jsonl", copies=9)
    first, second, *new = read(tmp_path / "out.jsonl")
    assert {"aspects", "spans"} <= set(first)
    assert "upos" in second
    assert done.left_out == ("aspects", "place", "spans", "upos")
    play = {"label", "labels", "n", "topics", "scores", "text", "entities"}
    assert {tuple(sorted(record)) for record in new} == {
        tuple(sorted(play)), ("entities", "label", "text", "topics")
    }  # fmt: skip


def test_a_record_with_words_without_a_label_stays_as_it_is(tmp_path: Path) -> None:
    def skip(name: str, *tags: Any) -> dict[str, Any]:
        return {"tokens": ["skip", name, "now"], "ner": [*tags]}

    partly = [skip("Help", "O", "B-SONG", mark) for mark in (None, -100, "-")]
    unknown = skip("Dune", None, None, None)
    source = write(
        tmp_path / "in.jsonl", song("play", "Yesterday"), *partly, song("on", "Hello"), unknown
    )
    done = augment(source, tmp_path / "out.jsonl", copies=9)
    written = read(tmp_path / "out.jsonl")
    assert [written[i] for i in (1, 2, 3, 5)] == [*partly, unknown]
    assert (done.records, done.fixed) == (6, 4)
    # What may be a part of a longer entity is no value for others.
    assert {record["text"] for record in written[6:]} == {"play Hello now", "on Yesterday now"}
    source = write(tmp_path / "in.jsonl", *partly)
    with pytest.raises(DataError, match=r"or has words without a label; expected .* for each word"):
        augment(source, tmp_path / "out.jsonl")


def test_the_seed_determines_the_file(tmp_path: Path) -> None:
    records = [song(f"{way} play", f"Song {way}") for way in "ABCDEFGHI"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        manyheads.augment(records, tmp_path / name, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("play it", []),
        ("replay it", [Span(2, 6, "VERB")]),
        ("in 25C", [Span(3, 5, "N"), Span(5, 6, "UNIT")]),
        ("Oslo Fjord", [Span(0, 4, "CITY"), Span(0, 10, "WATER")]),
        ("a  b", [Span(1, 2, "X")]),
    ],
)
def test_entities_that_do_not_stand_alone_are_left(text: str, spans: list[Span]) -> None:
    assert not is_exchangeable(text, spans)


def test_texts_without_spaces_are_augmented(tmp_path: Path) -> None:
    def trip(before: str, place: str, after: str) -> dict[str, Any]:
        ends = {"start": len(before), "end": len(before + place), "label": "LOC"}
        return {"text": before + place + after, "entities": [ends]}

    source = write(
        tmp_path / "zh.jsonl",
        trip("我想去", "北京", "旅游"),
        trip("去", "上海", ""),
        trip("去", "NYC", "玩"),
    )
    done = augment(source, tmp_path / "out.jsonl", copies=3)
    texts = [record["text"] for record in read(tmp_path / "out.jsonl")]
    assert done.new > 3
    assert set(texts[3:]) <= {
        f"{a}{place}{b}"
        for a, b in (("我想去", "旅游"), ("去", ""), ("去", "玩"))
        for place in ("北京", "上海", "NYC")
    }
    # Beside Latin letters, a value in Latin letters would be part of another word.
    mixed = write(tmp_path / "mixed.jsonl", trip("", "東京", "Tower"), trip("at ", "NYC", ""))
    augment(mixed, tmp_path / "out.jsonl", copies=3)
    assert "NYCTower" not in (tmp_path / "out.jsonl").read_text()


def test_pairs_are_left_and_errors_tell_what_to_do(tmp_path: Path) -> None:
    pair = {**song("play", "Help"), "text2": "play Help then"}
    source = write(tmp_path / "pairs.jsonl", song("put on", "Yesterday"), pair)
    done = augment(source, tmp_path / "out.jsonl")
    assert (done.records, done.new, done.fixed) == (2, 1, 1)
    plain = write(tmp_path / "plain.jsonl", {"text": "hello", "label": "greet"})
    with pytest.raises(DataError, match=r"no record has entities.*names={FIELD: \"ner\"}"):
        augment(plain, tmp_path / "out.jsonl")
    inside = {"text": "playing", "entities": [{"start": 0, "end": 4, "label": "X"}]}
    cut = write(tmp_path / "cut.jsonl", inside)
    with pytest.raises(DataError, match=r"part of a word.*manyheads.check lists"):
        augment(cut, tmp_path / "out.jsonl")
    with pytest.raises(RequestError, match="written over itself"):
        augment(plain, plain)
    scanned = [{**song("play", "Help"), "scan": b"\0"}]
    with in_memory(scanned, "scanned") as name, pytest.raises(DataError, match="written as JSON"):
        augment(name, tmp_path / "out.jsonl")
