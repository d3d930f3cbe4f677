"""Soft labels and embeddings of files, from which students learn as from a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import manyheads
from manyheads.config import TaskConfig
from manyheads.errors import ConfigError, DataError
from manyheads.tasks import EMBEDDING, LabelSet, Scheme, TagSet, kind_of
from manyheads.training import TrainResult
from manyheads.training.teaching import sources
from manyheads.training.teaching.soft_labels import SoftLabels
from manyheads.training.teaching.targets import Lesson
from teachers import texts_file
from training_setup import Spy, config, prepared, run, sentences, write_records

TAGS = TagSet.of_types(("LOC", "PER"))


def test_soft_labels_of_a_file_are_learned_on_its_texts(
    tmp_path: Path,
) -> None:
    lines: list[dict[str, Any]] = [
        {"text": "john eats", "classification": {"question": 0.9}, "ner": []},
        {
            "text": "mary lives in rome",
            "classification": {"label": "statement", "id": 1, "score": 0.8},
            "ner": {"entities": [{"start": 0, "end": 4, "label": "PER", "score": 0.7}]},
        },
    ]
    soft = write_records(tmp_path / "soft.jsonl", lines)
    result, spy = run(tmp_path, teacher=str(soft))
    assert spy.said(f"The soft labels of {soft} cover 2 of 16 sentences, for classification, ner.")
    assert all(e["loss"]["from teacher"] > 0 for e in result.history)
    # The file has none of the training sentences, but a CRF still needs a column for each tag.
    write_records(soft, [lines[1]])
    tasks = {"ner": {"kind": "tagging", "decoder": "crf"}}
    result, _ = run(tmp_path / "crf", teacher=str(soft), tasks=tasks)
    assert all(e["loss"]["from teacher"] > 0 for e in result.history)
    for value, message in (
        ({"classification": {"answer": 0.9}}, r"soft.jsonl:1: there is no label .*answer"),
        ({"classification": {"question": 2}}, r"probability of .*question.* is 2; .*from 0 to 1"),
        ({"classification": 3}, r"soft labels are 3; expected an object such as"),
        ({"ner": {"PER": 0.5}}, r"soft labels are .*; expected a list of entities"),
        ({"ner": [{"start": 0, "end": 99, "label": "PER"}]}, r"soft.jsonl:1: .*99"),
        ({"topic": 1}, r"no field of a task's name; .*classification, ner.*topic"),
    ):
        write_records(soft, [{"text": "john eats", **value}])
        with pytest.raises((DataError, ConfigError), match=message):
            run(tmp_path / "bad", teacher=str(soft))


def test_a_probability_near_one_stays_what_the_teacher_said(tmp_path: Path) -> None:
    records = [{"text": "john eats", "topics": ["a"]}, {"text": "it was bad", "topics": ["b"]}]
    file = str(write_records(tmp_path / "topics.jsonl", records))
    likely = {"text": "john eats", "topics": {"a": 0.9998, "b": 0.0003}}
    soft = str(write_records(tmp_path / "soft.jsonl", [likely]))
    made = config(
        tmp_path, tasks={"topics": {"kind": "multilabel"}}, train_file=file, valid_file=file,
        teacher=soft,
    )  # fmt: skip
    one, told = prepared(made), Spy()
    source = SoftLabels(soft, made.tasks, embed=False, report=told.message)
    lesson = Lesson.of([source], made.tasks, one.data.label_sets, embed=False)
    targets = lesson.targets(one.data.datasets[0], one.tokenizer, one.max_length, told.message)
    [[given, other]] = targets.batch("topics", np.array([0]), 1).tolist()
    assert given == pytest.approx(0.9998, abs=1e-6)
    assert other == pytest.approx(0.0003, abs=1e-6)


def test_predicted_classes_of_words_are_read_as_soft_labels() -> None:
    classes = TagSet(("ADJ", "NOUN", "VERB"), Scheme.PLAIN)
    text = "dogs can't bark"
    words = np.array([(0, 4), (5, 8), (8, 9), (9, 10), (11, 15)])
    tokens = [
        {"text": "dogs", "tag": "NOUN", "id": 1, "start": 0, "end": 4},
        {"text": "can't", "tag": "VERB", "id": 2, "start": 5, "end": 10},
        {"tag": "VERB", "start": 11, "end": 15, "score": 0.5},
    ]

    def read(value: Any) -> Any:
        return kind_of("tagging").read_soft(value, classes, text, words, "soft.jsonl:1")

    noun, verb, half = [0, 1, 0], [0, 0, 1], [0.25, 0.25, 0.5]
    for value in ({"entities": [], "tokens": tokens}, tokens):
        np.testing.assert_allclose(read(value), [noun, verb, verb, verb, half])
    # No class is made up for a word without one.
    unread = {"text": "bark", "tag": "O", "id": -1, "start": 11, "end": 15}
    for some in (tokens[:2], [*tokens[:2], unread], []):
        assert np.isnan(read(some)).all()
    for wrong, message in (
        ({"entities": []}, "soft labels are .*; expected a list of tokens with start, end and tag"),
        ([{"start": 0, "end": 4}], r"soft\.jsonl:1: `tokens\[0\]` of soft labels is"),
        ([{**tokens[0], "end": 99}], r"`tokens\[0\]` goes from 0 to 99; expected .* <= 15"),
        ([{**tokens[0], "tag": "DET"}], "there is no label 'DET'; expected one of: ADJ, NOUN"),
        ([{**tokens[0], "score": 2}], "probability of 'NOUN' is 2"),
    ):
        with pytest.raises(DataError, match=message):
            read(wrong)


def test_a_student_learns_the_predicted_classes_of_words(tmp_path: Path) -> None:
    records = [
        {"tokens": [name, "can't", "eat"], "ner": ["NOUN", "VERB", "VERB"]}
        for name in ("john", "mary", "anna", "peter")
    ]
    each = write_records(tmp_path / "each.jsonl", records)
    file = str(write_records(tmp_path / "pos.jsonl", records * 6))
    values: dict[str, Any] = {
        "train_file": file, "valid_file": file, "num_epochs": 4,
        "tasks": {"ner": {"kind": "tagging"}},
    }  # fmt: skip
    first, _ = run(tmp_path / "first", **values)
    predicted = tmp_path / "predicted.jsonl"
    manyheads.load(first.best).predict_file(each, predicted)
    result, spy = run(tmp_path / "second", teacher=str(predicted), **values)
    assert spy.said("cover 28 of 28 sentences, for ner.")
    # The teacher says what the labels say, so they do not pull against each other.
    assert result.history[-1]["loss"]["ner"] < 0.1 * result.history[0]["loss"]["ner"]


def test_the_texts_of_all_files_of_soft_labels_are_learned_from(
    teacher: TrainResult, tmp_path: Path
) -> None:
    known = " ".join(sentences(14, 1)[0]["tokens"])
    texts = {"one": ["john eats", "mary eats"], "two": ["mary eats", "paul eats", known]}
    files = [
        str(
            write_records(
                tmp_path / f"{name}.jsonl",
                [{"text": text, "classification": {"question": 0.9}} for text in some],
            )
        )
        for name, some in texts.items()
    ]
    _, spy = run(tmp_path / "both", teacher=files)
    assert spy.said("one.jsonl cover 2 of 17 sentences, for classification.")
    # As unlabelled sentences of a model, too.
    _, spy = run(tmp_path / "model", teacher=[files[0], str(teacher.best), files[1]])
    assert spy.said("on 17 sentences, for classification, ner.")
    _, spy = run(tmp_path / "own", teacher={"sources": files, "texts": texts_file(tmp_path)})
    assert spy.said("one.jsonl cover 0 of 17 sentences, for classification.")


def test_fields_of_soft_labels_that_no_task_reads_are_reported(
    teacher: TrainResult, tmp_path: Path
) -> None:
    lines = [
        {"text": text, "classification": {"question": 0.9}, "nre": [], "source": None}
        for text in ("john eats", "mary eats")
    ]
    soft = str(write_records(tmp_path / "soft.jsonl", lines))
    _, spy = run(tmp_path, teacher=soft)
    found = "no task reads the field 'nre', found in 2 records"
    assert f'warning: {soft}: {found} (did you mean "ner"?)' in spy.messages

    # Predictions of a file with labels have all further fields.
    model = manyheads.load(teacher.best)
    long = {"text": "john eats in london " * 40, "ner": [], "windows": "?"}
    source = write_records(tmp_path / "source.jsonl", [long, {"text": "\u200b"}])
    predicted = tmp_path / "predicted.jsonl"
    model.predict_file(source, predicted, embed=True)
    written = [json.loads(line) for line in predicted.read_text("utf-8").splitlines()]
    assert written[0].keys() > {"embedding", "windows", "input_ner", "input_windows"}
    assert written[1].keys() > {"empty"}
    _, spy = run(tmp_path / "predicted", teacher=str(predicted))
    assert not spy.said("no task reads")


def test_embeddings_of_a_file_are_learned_as_those_of_a_model(
    teacher: TrainResult, tmp_path: Path
) -> None:
    texts = list(dict.fromkeys(" ".join(r["tokens"]) for r in sentences(14, 1)))
    model = manyheads.load(teacher.best)
    wanted = model.encode(texts)
    predicted = tmp_path / "predicted.jsonl"
    model.predict_file(texts_file(tmp_path), predicted, embed=True)
    soft = write_records(
        tmp_path / "soft.jsonl",
        [{"text": t, "embedding": v.tolist()} for t, v in zip(texts, wanted, strict=True)][:-1],
    )

    def similarity(**changes: Any) -> float:
        result, spy = run(tmp_path / str(len(changes)), num_epochs=4, **changes)
        assert not changes or spy.said("of 17 sentences, for the embedding.")
        return float((manyheads.load(result.best).encode(texts) * wanted).sum(axis=1).mean())

    taught = {"sources": [str(soft), str(predicted)], "embedding": 100.0}
    assert similarity(teacher=taught) > similarity() + 0.2

    # Vectors of another length, and no labels.
    long = [{"text": t, "embedding": [*v.tolist(), 1]} for t, v in zip(texts, wanted, strict=True)]
    write_records(soft, long)
    result, spy = run(tmp_path / "long", teacher={"sources": [str(soft)], "embedding": 1.0})
    assert spy.said("for the embedding.")
    assert all(e["loss"]["from teacher"] > 0 for e in result.history)


def test_the_loss_of_few_embeddings_adds_up_over_the_parts_of_a_batch(tmp_path: Path) -> None:
    texts = list(dict.fromkeys(" ".join(r["tokens"]) for r in sentences(14, 1)))
    soft = [
        {"text": text, "embedding": vector}
        for text, vector in zip(texts[:5], torch.randn(5, 32).tolist(), strict=True)
    ]
    write_records(tmp_path / "soft.jsonl", soft)
    teacher = {"sources": [str(tmp_path / "soft.jsonl")], "embedding": 1.0}
    made = prepared(config(tmp_path, teacher=teacher))
    (term,) = made.terms
    found = torch.randn(14, 32)

    def loss(rows: Any) -> float:
        return float(term.loss(made.model, 0, rows, {EMBEDDING: found[rows]}))

    rows = np.arange(14)
    for cut in (2, 5, 9):
        parts = sum(len(part) / 14 * loss(part) for part in (rows[:cut], rows[cut:]))
        assert parts == pytest.approx(loss(rows), rel=1e-5)
    assert loss(rows[:5]) > 0


def test_embeddings_of_a_file_that_are_not_valid_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "soft.jsonl"
    for vector, message in (
        ("[1, 2, 3]", "`embedding` has 3 numbers; expected 2, as in the records before"),
        ('[1, "2"]', r"`embedding` is \[1, '2'\]; expected a list of numbers"),
        ("[]", r"`embedding` is \[\]; expected a list of numbers"),
        ("[1, 1e300]", r"`embedding` has the number 1e\+300; expected finite numbers, not all 0"),
        ("[0, 0.0]", "`embedding` is all 0; expected finite numbers"),
    ):
        path.write_text(
            '{"text": "a", "embedding": [1, 2.5]}\n{"text": "b", "embedding": null}\n'
            f'{{"text": "c", "embedding": {vector}}}\n'
        )
        with pytest.raises(DataError, match=rf"soft\.jsonl:3: {message}"):
            run(tmp_path / "run", teacher={"sources": [str(path)], "embedding": 1.0})


def test_both_texts_of_a_pair_have_an_embedding(tmp_path: Path) -> None:
    record = {"text": "a", "text2": "b", "embedding": [1, 2], "embedding2": [3, 4]}
    path = write_records(tmp_path / "soft.jsonl", [record, {"text": "c"}])
    teacher = SoftLabels(str(path), {}, embed=True, report=print)
    given = sources.Sentences(["a", "b", "c"], ["b", None, None], [np.zeros((0, 2), int)] * 3)
    found = teacher.answers(given, {}, embed=True).embedding
    np.testing.assert_array_equal(found, [[1, 2], [3, 4], [np.nan, np.nan]])


def pair_tasks(folder: Path) -> dict[str, Any]:
    """A task for pairs whose first text is always the same."""
    records = [
        {"text": "john is here", "text2": second, "same": "yn"[i % 2]}
        for i, second in enumerate(["who is here ?", "mary eats", "paul eats", "anna eats"])
    ]
    file = str(write_records(folder / "pairs.jsonl", records))
    return {"same": {"kind": "pair", "train_file": file, "valid_file": file}}


def test_soft_labels_of_pairs_belong_to_both_texts(tmp_path: Path) -> None:
    tasks = pair_tasks(tmp_path)

    def loss(*seconds: str) -> float:
        soft = write_records(
            tmp_path / "soft.jsonl",
            [{"text": "john is here", "text2": one, "same": {"y": 0.9}} for one in seconds],
        )
        result, _ = run(tmp_path / str(len(seconds)), tasks=tasks, teacher=str(soft))
        return float(result.history[-1]["loss"]["from teacher"])

    assert loss("never trained on") == 0
    assert loss("never trained on", "mary eats", "paul eats") > 0


def test_several_soft_labels_of_a_text_have_their_mean(
    tmp_path: Path,
) -> None:
    tasks = {"same": TaskConfig(kind="pair"), "topic": TaskConfig(kind="classification")}
    path = write_records(
        tmp_path / "soft.jsonl",
        [
            {"text": "a", "text2": "b", "same": "y"},
            {"text": "a", "text2": "b", "same": {"y": 0.5}},
            {"text": "a", "text2": "c", "same": "n", "topic": "sport"},
            {"text": "a", "topic": {"sport": 0.6}},
        ],
    )
    teacher = SoftLabels(str(path), tasks, embed=False, report=print)
    labels = {"same": LabelSet(("n", "y")), "topic": LabelSet(("film", "sport"))}
    assert teacher.tasks(tasks, labels) == ["same", "topic"]
    words = np.array([[0, 1]])
    given = sources.Sentences(["a"] * 4, ["b", "c", "d", None], [words] * 4)
    found = teacher.answers(given, labels, embed=False).tasks
    assert [None if one is None else one.tolist() for one in found["same"]] == [
        [0.25, 0.75], [1, 0], None, None,
    ]  # fmt: skip
    for one in found["topic"]:
        np.testing.assert_allclose(one, [0.2, 0.8], rtol=1e-6)
    write_records(path, [{"text": "a", "same": "y"}])
    with pytest.raises(DataError, match=r"soft.jsonl:1: soft labels of .*'same', but no `text2`"):
        SoftLabels(str(path), tasks, embed=False, report=print)


def test_soft_labels_of_each_kind_become_targets() -> None:
    words = np.array([[0, 4], [5, 9]])
    labels = LabelSet(("a", "b", "c"))

    def read(kind: str, value: Any, known: LabelSet) -> list[Any]:
        found = kind_of(kind).read_soft(value, known, "john eats", words, "here")
        return [round(x, 4) for x in found.ravel().tolist()]

    assert read("classification", {"b": 0.5}, labels) == [0.25, 0.5, 0.25]
    assert read("classification", "b", labels) == [0, 1, 0]
    assert read("multilabel", {"b": 0.5}, labels) == [0, 0.5, 0]
    entity = {"start": 0, "end": 4, "label": "PER", "score": 0.75}
    found = read("tagging", [entity], TAGS)
    wanted = np.zeros((2, len(TAGS)))
    wanted[0, TAGS.index("B-PER")], wanted[0, TAGS.index("O")] = 0.75, 0.25
    wanted[1, TAGS.index("O")] = 1
    assert found == wanted.ravel().tolist()


def read_classes(kind: str, value: Any) -> list[float]:
    labels = LabelSet(("a", "b"))
    found = kind_of(kind).read_soft(value, labels, "john eats", np.array([[0, 4], [5, 9]]), "here")
    return [round(x, 4) for x in found.tolist()]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"labels": ["a", "b"]}, [1, 1]),
        ({"labels": [{"label": "a"}, {"label": "b", "score": 0.25}]}, [1, 0.25]),
        ({"labels": []}, [0, 0]),
        # A prediction with a threshold that one class does not reach.
        ({"labels": ["b"], "candidates": [{"label": "a", "score": 0.4}]}, [0.4, 1]),
        ({"label": None, "score": 0.4, "candidates": [{"label": "a", "score": 0.4}]}, [0.4, 0]),
    ],
)
def test_lists_of_soft_labels_hold_names_or_objects(value: Any, wanted: list[float]) -> None:
    assert read_classes("multilabel", value) == wanted


def test_an_undecided_prediction_teaches_its_candidates() -> None:
    scores = [{"label": "b", "id": 1, "score": 0.6}, {"label": "a", "id": 0, "score": 0.4}]
    undecided = {"label": None, "id": None, "score": 0.6, "candidates": scores}
    assert read_classes("classification", undecided) == [0.4, 0.6]
    undecided["candidates"] = scores[:1]
    assert read_classes("classification", undecided) == [0.4, 0.6]
    without_words = {"label": None, "id": None, "score": None}
    assert np.isnan(read_classes("classification", without_words)).all()


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
@pytest.mark.parametrize(
    "value",
    [
        {"labels": [1]},
        {"labels": [{"label": ["a"], "score": 1}]},
        {"labels": [{"score": 1}]},
        {"labels": [None, "a"]},
        {"labels": [{"label": None}]},
        {"label": None, "candidates": [1]},
        {"label": None, "candidates": {"a": 0.5}},
        {"labels": ["a"], "candidates": "a"},
        ["a"],
        1,
    ],
)
def test_other_forms_of_soft_labels_are_refused(kind: str, value: Any) -> None:
    with pytest.raises(DataError, match=r'here.*soft labels are .*\{"NAME": 0.9\}'):
        read_classes(kind, value)


def test_a_soft_label_without_a_probability_is_refused() -> None:
    for score in (None, "0.5", True, 1.5):
        with pytest.raises(DataError, match="the probability of 'a' is"):
            read_classes("multilabel", {"labels": [{"label": "a", "score": score}]})
