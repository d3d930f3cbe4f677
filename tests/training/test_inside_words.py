"""Entities that begin or end inside words: reported, learned, and scored by their characters."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import manyheads
from manyheads.data.records import Reach, read_records
from manyheads.evaluation import evaluate
from manyheads.storage import read_manifest
from manyheads.tasks import TagSet, TaskSpec
from manyheads.text import Units
from training_setup import Spy, encoder_folder, run, sentences, settings, write_records

UNITS = ("mg", "ml", "kg", "km")
TASK = {"ner": {"kind": "tagging", "field": "entities", "decoder": "crf", "neck": "bilstm"}}


def doses(count: int, seed: int, space: str = "") -> list[Any]:
    """Sentences with an amount and its unit, in one word unless `space` is one."""
    draw = random.Random(seed)
    records = []
    for _ in range(count):
        number, unit = str(draw.randint(1, 999)), draw.choice(UNITS)
        before = draw.choice(["John will eat ", "in Paris the weather was ", "where is "])
        start, middle = len(before), len(before) + len(number)
        records.append(
            {
                "text": f"{before}{number}{space}{unit} in London",
                "entities": [
                    {"start": start, "end": middle, "label": "NUM"},
                    {
                        "start": middle + len(space),
                        "end": middle + len(space) + len(unit),
                        "label": "UNIT",
                    },
                ],
            }
        )
    return records


def files(folder: Path, train: list[Any], valid: list[Any]) -> dict[str, Any]:
    return settings(
        folder,
        train_file=str(write_records(folder / "train.jsonl", train)),
        valid_file=str(write_records(folder / "valid.jsonl", valid)),
        tasks=TASK,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doses")
    values = files(folder, doses(120, 1), doses(30, 2))
    return manyheads.train({**values, "num_epochs": 8}).best


def test_an_amount_and_its_unit_in_one_word_are_learned(trained: Path) -> None:
    [task] = read_manifest(trained).tasks
    assert task["units"] == "pieces"
    score = manyheads.evaluate(trained, trained.parents[1] / "valid.jsonl")
    assert score.evaluation["tasks"]["ner"]["f1"] > 0.9


def test_words_of_a_prediction_are_cut_only_at_entities(trained: Path) -> None:
    [prediction] = manyheads.load(trained).predict(["where is 885mg in London"])
    assert [token.text for token in prediction.results["ner"].tokens] == [
        "where", "is", "885", "mg", "in", "London",
    ]  # fmt: skip


def test_a_text_and_its_tokens_have_the_same_entities(trained: Path) -> None:
    text = "in Paris the weather was 12kg in London"
    whole, cut = manyheads.load(trained).predict([text, text.split()])
    assert whole.results["ner"].entities == cut.results["ner"].entities


def test_tags_are_on_words_if_no_annotation_cuts_one(tmp_path: Path) -> None:
    best = manyheads.train(files(tmp_path, doses(20, 1, " "), doses(8, 2, " "))).best
    [task] = read_manifest(best).tasks
    assert "units" not in task


def test_a_rare_annotation_inside_a_word_cuts_no_word_and_is_reported(tmp_path: Path) -> None:
    train = [*doses(60, 1, " "), *doses(1, 3)]
    spy = Spy()
    best = manyheads.train(files(tmp_path, train, doses(4, 2)), reporter=spy).best
    [task] = read_manifest(best).tasks
    assert "units" not in task
    told = [message for message in spy.messages if "inside a word" in message]
    assert any("train.jsonl: 2 of 122 entities of task 'ner' begin or end" in m for m in told)
    assert any("valid.jsonl: 8 of 8 entities of task 'ner' begin or end" in m for m in told)
    # Entities that no tag can express count as missed.
    warnings: list[str] = []
    from manyheads.evaluation import evaluate

    found = evaluate(best, data=tmp_path / "valid.jsonl", warn=warnings.append)
    metrics = found.evaluation["tasks"]["ner"]
    assert metrics["f1"] == 0.0
    assert sum(row["support"] for row in metrics["per_type"].values()) == 8
    assert any("8 of 8 entities" in message for message in warnings)


def test_adding_a_task_to_a_trained_model_does_not_change_its_units(tmp_path: Path) -> None:
    first = settings(
        tmp_path / "first",
        tasks={"ner": {"kind": "tagging", "field": "ner"}},
    )
    best = manyheads.train(first).best
    doses_file = write_records(tmp_path / "doses.jsonl", doses(20, 1))
    joined = manyheads.add_head(
        best, "doses", kind="tagging", train_file=doses_file, valid_file=doses_file,
        save_dir=tmp_path / "joined", task_settings={"field": "entities"}, num_epochs=1, threads=1,
    ).best  # fmt: skip
    specs = [TaskSpec.from_json(task).label_set() for task in read_manifest(joined).tasks]
    assert [s.units for s in specs if isinstance(s, TagSet)] == [Units.WORDS, Units.WORDS]
    texts = [" ".join(record["tokens"]) for record in sentences(8, 5)]
    before, after = (manyheads.load(model).predict(texts) for model in (best, joined))
    assert [p.results["ner"] for p in before] == [p.results["ner"] for p in after]


def test_records_with_tokens_need_no_tokenisation_to_be_in_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyheads.config import TaskConfig
    from manyheads.text import TextTokenizer
    from tiny import tiny_tokenizer

    path = write_records(tmp_path / "a.jsonl", sentences(5, 1))
    labels = TagSet.of_types(("LOC", "PER"))
    records = list(read_records(path, {"ner": TaskConfig(kind="tagging")}, {"ner": labels}))
    tokenizer = TextTokenizer(tiny_tokenizer())
    monkeypatch.setattr(tokenizer, "encode_batch", lambda texts: pytest.fail("tokenised"))
    reach = Reach.of({"ner": labels}).add_all(records, tokenizer)
    assert reach.entities["ner"] > 0
    assert reach.messages() == []


@pytest.mark.parametrize("decoder", ["linear", "crf"])
def test_words_without_a_tag_are_reported_and_neither_learned_nor_scored(
    decoder: str, tmp_path: Path
) -> None:
    records = []
    for i in range(40):
        name, last = ("John", "Mary")[i % 2], "B-LOC" if i % 4 else ("-", None)[i % 8 // 4]
        tags = ["B-PER", "O", "O", last]
        records.append({"tokens": [name, "lives", "in", "Paris"], "ner": tags, "entites": []})
    spy = Spy()
    values = files(tmp_path, records, records[:8])
    tasks = {"ner": {"kind": "tagging", "decoder": decoder}}
    result = manyheads.train({**values, "tasks": tasks, "num_epochs": 12}, reporter=spy)
    said = "\n".join(spy.messages)
    assert "train.jsonl: 10 words without a tag of the task 'ner'" in said
    assert said.count("""no task reads the field 'entites', found in""") == 2
    assert """(did you mean "entities"?)""" in said
    # Half of the validation records have no tag for Paris, which is found in all of them.
    heard: list[str] = []
    report = evaluate(result.best, warn=heard.append)
    assert report.evaluation["tasks"]["ner"]["f1"] == 1.0
    assert report.evaluation["tasks"]["ner"]["per_type"]["LOC"]["support"] == 6
    assert any("valid.jsonl: 2 words without a tag" in message for message in heard)
    assert heard[0] in repr(report)
    found = manyheads.load(result.best).predict(["John lives in Paris"])[0]["ner"]
    assert [entity.label for entity in found.entities] == ["PER", "LOC"]


def test_a_vocabulary_without_the_script_of_the_data_is_reported(tmp_path: Path) -> None:
    thai = [{"text": "สวัสดี ครับ ผม", "label": str(i % 2)} for i in range(20)]
    spy = Spy()
    values = settings(
        tmp_path,
        train_file=str(write_records(tmp_path / "train.jsonl", thai)),
        valid_file=str(write_records(tmp_path / "valid.jsonl", thai)),
        tasks={"intent": {"kind": "classification", "field": "label"}},
        model_name=str(encoder_folder()),
    )
    manyheads.train(values, reporter=spy)
    assert any("vocabulary lacks 100% of Thai words" in message for message in spy.messages)


def test_classes_of_tokens_that_are_several_words_are_learned_and_scored(tmp_path: Path) -> None:
    """`can't` and `885-mg` are one token each of the record, and several words of the model."""
    records = [
        {"tokens": [name, "can't", "eat", "885-mg"], "ner": ["NOUN", "VERB", "VERB", "UNIT"]}
        for name in ("john", "mary", "anna", "peter")
    ] * 6
    file = write_records(tmp_path / "pos.jsonl", records)
    result, _ = run(
        tmp_path, train_file=str(file), valid_file=str(file), num_epochs=3,
        tasks={"ner": {"kind": "tagging"}},
    )  # fmt: skip
    report = evaluate(result.best, data=file)
    assert report.evaluation["tasks"]["ner"]["token_accuracy"] == 1.0  # type: ignore[typeddict-item]
    assert [len(gold.tags) for gold in report.outcomes.tasks["ner"].gold] == [4] * len(records)
