"""Heads on a frozen encoder that lower-cases read the shape of words, unless told otherwise."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manyheads.config import Config, make_config
from manyheads.errors import ConfigError, ModelError
from manyheads.inference import Runtime, load_model
from manyheads.storage import read_manifest
from manyheads.tasks import Scheme, TaskSpec
from manyheads.text import TextTokenizer
from manyheads.training import train
from manyheads.training.word_features import decide_word_features
from tiny import tiny_byte_bpe, tiny_tokenizer
from training_setup import ENTITIES, config, run, sentences, write_records

UNCASED, CASED = TextTokenizer(tiny_tokenizer()), TextTokenizer(tiny_byte_bpe())


def configured(freeze: str = "encoder", **options: str) -> Config:
    tasks = {"ner": {"kind": "tagging", **options}, "intent": {"kind": "classification"}}
    return make_config({"tasks": tasks, "freeze": freeze})


def decided(
    config: Config, tokenizer: TextTokenizer, stored: dict[str, Any] | None = None, *trained: str
) -> str:
    found: Any = None if stored is None else SimpleNamespace(config={"tasks": {"ner": stored}})
    made = decide_word_features(config, tokenizer, found, trained)
    assert made.tasks["intent"] == config.tasks["intent"]
    return made.tasks["ner"].word_features


def test_new_heads_read_them_where_the_encoder_lower_cases() -> None:
    assert decided(configured(), UNCASED) == "on"
    assert decided(configured(), CASED) == "off"
    assert decided(configured(freeze="none"), UNCASED) == "on"
    for choice in ("on", "off"):
        assert decided(configured(word_features=choice), UNCASED) == choice
        assert decided(configured(word_features=choice), CASED) == choice


def test_a_run_and_a_trained_head_keep_what_was_decided() -> None:
    auto = configured()
    assert decided(auto, UNCASED, {"word_features": "off"}) == "off"
    assert decided(auto, CASED, {"word_features": "on"}) == "on"
    # Of an earlier version: read by heads as off.
    assert decided(auto, UNCASED, {}) == "auto"
    assert decided(auto, UNCASED, None, "ner") == "auto"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the case of the letters alone tells persons from words."""
    folder = tmp_path_factory.mktemp("cased")
    for name, count, seed in (("train", 60, 1), ("valid", 20, 2)):
        records = sentences(count, seed, fields=["ner"])
        draw = random.Random(seed)
        for record in records:
            record["ner"] = [draw.choice([tag, "O"]) for tag in record["ner"]]
            words = enumerate(zip(record["tokens"], record["ner"], strict=True))
            record["tokens"] = [
                word if tag == "O" and (i or word in ENTITIES) else word.capitalize()
                for i, (word, tag) in words
            ]
        write_records(folder / f"{name}.jsonl", records)
    tasks = {"ner": {"kind": "tagging", "decoder": "crf", "word_features": "auto"}}
    run(folder, tasks=tasks, num_epochs=6, freeze="encoder")
    return folder


def test_a_model_tells_words_apart_that_differ_in_case_alone(trained: Path) -> None:
    manifest = read_manifest(trained / "saved" / "best")
    assert manifest.config["tasks"]["ner"]["word_features"] == "on"
    assert manifest.tasks[0]["word_features"] == 1
    predictor = load_model(trained / "saved", Runtime("torch")).predictor
    texts = [
        "Will Mary eat in york ?",
        "Will mary eat in York ?",
        ["Will", "Mary", "eat", "in", "York", "?"],
    ]
    found = [p.to_json()["ner"]["entities"] for p in predictor.predict(texts)]
    shown = [[(e["text"], e["label"]) for e in entities] for entities in found]
    mary, york = ("Mary", "PER"), ("York", "LOC")
    assert shown == [[mary], [york], [mary, york]]


def test_a_trained_head_is_not_made_to_read_less(trained: Path, tmp_path: Path) -> None:
    def going_on(**options: str) -> Config:
        tasks = {"ner": {"kind": "tagging", **options}}
        values = config(trained, tasks=tasks, save_dir=str(tmp_path / "saved"))
        given = values.model_dump(exclude_unset=True, exclude={"model_name", "max_length"})
        return make_config({**given, "init_from": str(trained / "saved"), "freeze": "encoder"})

    for options in ({}, {"word_features": "auto"}):
        train(going_on(**options), overwrite=True)
        assert read_manifest(tmp_path / "saved" / "best").tasks[0]["word_features"] == 1
    with pytest.raises(ConfigError, match=r"word_features` is off, .* was trained with on"):
        train(going_on(word_features="off"), overwrite=True)


def test_features_of_another_version_are_refused() -> None:
    with pytest.raises(ModelError, match="word_features 2"):
        TaskSpec(
            "ner", "tagging", ("O", "B-x", "I-x"), scheme=Scheme.BIO, decoder="linear",
            details={"word_features": 2},
        )  # fmt: skip
