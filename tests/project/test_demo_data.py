"""The demonstration data equal the generator's output and are too varied to memorise."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "src" / "data"
TAGS = {"O", "B-PERSON", "I-PERSON", "B-PLACE", "I-PLACE"}

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def splits() -> dict[str, Records]:
    return {name: json.loads((DATA / f"{name}.json").read_text()) for name in ("train", "valid")}


def entities(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The words of each entity, in lower case."""
    found: list[list[str]] = []
    for token, tag in zip(record["tokens"], record["ner"], strict=True):
        if tag[0] == "B":
            found.append([token.lower()])
        elif tag[0] == "I":
            found[-1].append(token.lower())
    return [tuple(words) for words in found]


def shape(record: dict[str, Any]) -> str:
    """A sentence with its entities cut out: what is left of it if only names change."""
    return " ".join(
        token.lower() if tag == "O" else tag[0]
        for token, tag in zip(record["tokens"], record["ner"], strict=True)
        if tag[0] != "I"
    )


def test_the_generator_writes_the_same_bytes_again(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "scripts" / "make_demo_data.py"))["main"](tmp_path)
    for name in ("train.json", "valid.json"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name


def test_there_are_enough_sentences_of_both_classes(splits: dict[str, Records]) -> None:
    for name, least in (("train", 800), ("valid", 200)):
        classes = Counter(record["label"] for record in splits[name])
        assert set(classes) == {"question", "statement"}
        assert classes.total() >= least
        assert min(classes.values()) > 0.4 * classes.total()


def test_every_token_has_one_of_the_five_tags(splits: dict[str, Records]) -> None:
    for records in splits.values():
        assert {tag for record in records for tag in record["ner"]} == TAGS
        for record in records:
            before = "O"
            assert len(record["tokens"]) == len(record["ner"])
            for tag in record["ner"]:
                assert tag[0] != "I" or before[1:] == tag[1:], record
                before = tag


def test_no_word_of_an_entity_is_shared_between_training_and_validation(
    splits: dict[str, Records],
) -> None:
    train, valid = (
        {word for record in records for words in entities(record) for word in words}
        for records in splits.values()
    )
    assert len(valid) > 80
    assert not train & valid


def test_no_sentence_occurs_twice(splits: dict[str, Records]) -> None:
    both = [" ".join(r["tokens"]).lower().rstrip(" .?!") for rs in splits.values() for r in rs]
    assert not [text for text, times in Counter(both).items() if times > 1]


def test_validation_has_many_sentences_whose_form_was_never_trained(
    splits: dict[str, Records],
) -> None:
    known = {shape(record) for record in splits["train"]}
    new = [record for record in splits["valid"] if shape(record) not in known]
    assert len(new) > len(splits["valid"]) / 2


def test_the_class_cannot_be_read_off_the_mark_or_the_first_word(
    splits: dict[str, Records],
) -> None:
    records = splits["train"]
    questions = [record for record in records if record["label"] == "question"]
    unmarked = [record for record in questions if "?" not in record["tokens"]]
    assert 0.2 < len(unmarked) / len(questions) < 0.6
    asking = ("what", "where", "who", "when", "why", "how")
    statements = [r for r in records if r["label"] == "statement"]
    assert sum(any(t.lower() in asking for t in r["tokens"]) for r in statements) > 50


def test_names_have_several_words_and_sentences_several_names(splits: dict[str, Records]) -> None:
    for records in splits.values():
        sizes = Counter(len(words) for record in records for words in entities(record))
        assert {1, 2, 3} <= set(sizes)
        assert sizes[1] < 0.7 * sizes.total()
        assert {len(entities(record)) for record in records} >= {0, 1, 2, 3, 4}


def test_some_sentences_are_all_lower_or_all_upper_case(splits: dict[str, Records]) -> None:
    for records in splits.values():
        texts = [" ".join(record["tokens"]) for record in records]
        assert sum(text.islower() for text in texts) > 0.1 * len(texts)
        assert sum(text.isupper() for text in texts) > 0.05 * len(texts)


def test_the_sentence_shown_in_the_readme_uses_names_that_were_never_seen(
    splits: dict[str, Records],
) -> None:
    words = {token.lower() for records in splits.values() for r in records for token in r["tokens"]}
    assert not words & {"john", "paris"}
