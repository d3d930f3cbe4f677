"""Distillation: students learn their teachers' outputs, for every kind of head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import manyheads
from equal_runs import assert_resumes
from manyheads.config import TaskConfig, config_text, load_config
from manyheads.errors import ConfigError, DataError, RequestError
from manyheads.inference import Backend, LoadedModel, load_model
from manyheads.modeling.heads.base import divergence
from manyheads.modeling.heads.crf import CRF
from manyheads.tasks import EMBEDDING, LabelSet, Scheme, TagSet, Transitions, kind_of, marginals
from manyheads.tasks.soft_targets import word_of_each
from manyheads.text import Batch
from manyheads.training import TrainResult, distill_config, train
from manyheads.training.teaching import sources
from manyheads.training.teaching.soft_labels import SoftLabels
from manyheads.training.teaching.targets import Lesson
from manyheads.training.teaching.term import embedding_distance
from training_setup import (
    Spy,
    config,
    encoder_folder,
    log_lines,
    prepared,
    run,
    sentences,
    write_records,
)

TAGS = TagSet.of_types(("LOC", "PER"))
CRF_TASKS = {
    "classification": {"kind": "classification"},
    "ner": {"kind": "tagging", "decoder": "crf"},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A teacher with a CRF and an encoder of another family."""
    folder = tmp_path_factory.mktemp("teacher")
    model = str(encoder_folder("roberta"))
    return run(folder, model_name=model, tasks=CRF_TASKS, schedule="joint", num_epochs=3)[0]


class Noted:
    """A backend that notes its name and the number of texts in each batch that it computes."""

    def __init__(self, backend: Backend, runs: list[tuple[str, int]]) -> None:
        self.backend, self.name, self.runs = backend, backend.name, runs

    def run(self, batch: Batch) -> Any:
        self.runs.append((self.name, len(batch.input_ids)))
        return self.backend.run(batch)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The batches that teachers compute: the backend's name and the number of texts."""
    noted: list[tuple[str, int]] = []

    def load(*arguments: Any, **options: Any) -> LoadedModel:
        loaded = load_model(*arguments, **options)
        loaded.predictor.backend = Noted(loaded.predictor.backend, noted)
        return loaded

    monkeypatch.setattr(sources, "load_model", load)
    return noted


def texts_file(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "texts.txt"
    path.write_text("mary lives in rome\nwhere is paul ?\nit was bad\n", encoding="utf-8")
    return str(path)


def spread(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_divergence_is_zero_at_the_teacher_and_positive_elsewhere() -> None:
    logits = spread(3, 4)
    wanted = logits.softmax(dim=1)
    for temperature in (1.0, 2.0):
        assert float(divergence(logits, wanted, temperature)) == pytest.approx(0, abs=1e-6)
        assert float(divergence(logits + spread(3, 4, seed=1), wanted, temperature)) > 0.05
    wanted[1] = torch.nan
    assert float(divergence(logits.index_fill(0, torch.tensor(1), 9.0), wanted, 2)) < 1e-6
    assert float(divergence(logits, torch.full((3, 4), torch.nan), 2)) == 0


def test_a_crf_learns_certain_tags_like_labels_and_has_the_gradient_of_marginals() -> None:
    torch.manual_seed(0)
    crf = CRF(TAGS)
    emissions = spread(2, 3, len(TAGS)).requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    tags = torch.tensor([[1, 2, 0], [0, 3, 0]])
    sure = torch.nn.functional.one_hot(tags, len(TAGS)).float()
    likelihood = crf.log_likelihood(emissions, tags, mask)
    torch.testing.assert_close(crf.divergence(emissions, sure, mask), -likelihood)
    unsure = spread(2, 3, len(TAGS), seed=1).softmax(dim=2)
    crf.divergence(emissions, unsure, mask).sum().backward()  # type: ignore[no-untyped-call]
    transitions = Transitions(*(p.detach().numpy() for p in (crf.start, crf.end, crf.pairwise)))
    own = marginals(
        emissions.detach().numpy(), np.array([3, 2]), TAGS.names, Scheme.BIO, transitions
    )
    assert emissions.grad is not None
    wanted = torch.from_numpy(own).float() - unsure * mask[..., None]
    torch.testing.assert_close(emissions.grad, wanted, rtol=1e-3, atol=1e-4)


def test_answers_refer_to_characters() -> None:
    # The teacher's words of "new york-based" are "new" and "york-based".
    theirs = np.array([[0, 3], [4, 14]])
    words = np.array([[0, 3], [4, 8], [8, 9], [9, 14]])
    numbers, inside = word_of_each(words, theirs)
    assert numbers.tolist() == [0, 1, 1, 1]
    assert inside.tolist() == [False, False, True, True]
    kind = kind_of("tagging")
    other = TagSet.of_types(("PER", "LOC"))
    spec = make_spec(other)
    soft = np.zeros((2, len(other)), np.float32)
    soft[0, other.index("O")] = 1
    soft[1, other.index("B-LOC")] = 1
    adopted = kind.adopted(spec, soft, TAGS, theirs, words)
    assert [TAGS.names[i] for i in adopted.argmax(axis=1)] == ["O", "B-LOC", "I-LOC", "I-LOC"]
    # If a word is not read, nothing is known of the sentence.
    assert np.isnan(kind.adopted(spec, soft, TAGS, theirs, np.array([[0, 3], [20, 22]]))).all()


def make_spec(tags: TagSet) -> Any:
    from manyheads.modeling import EncoderShape
    from manyheads.modeling.heads import make_head

    return make_head(TaskConfig(kind="tagging"), tags, EncoderShape(4, 2, 4)).spec("ner")


def test_a_student_agrees_with_its_teacher_more_than_with_its_labels(
    teacher: TrainResult, tmp_path: Path
) -> None:
    """All labels are the same here; any difference can only come from the teacher."""
    records = [{**record, "label": "question"} for record in sentences(14, 1)]
    records[0]["label"] = "statement"
    files = {
        "train_file": str(write_records(tmp_path / "train.jsonl", records)),
        "tasks": CRF_TASKS, "schedule": "joint", "num_epochs": 4,
    }  # fmt: skip
    wanted = manyheads.load(teacher.best).predict_proba([" ".join(r["tokens"]) for r in records])

    def distance(**changes: Any) -> float:
        result, _ = run(tmp_path / str(len(changes)), **files, **changes)
        texts = [" ".join(record["tokens"]) for record in records]
        found = manyheads.load(result.best).predict_proba(texts)
        return float(np.abs(found - wanted).mean())

    assert distance(teacher={"sources": [str(teacher.best)], "weight": 20}) < distance() - 0.1


def test_every_task_learns_in_every_step_and_the_loss_falls(
    teacher: TrainResult, tmp_path: Path
) -> None:
    result, spy = run(
        tmp_path, schedule="alternate", num_epochs=3, teacher={
            "sources": [str(teacher.best), str(teacher.best)], "texts": texts_file(tmp_path),
            "weight": 3, "embedding": 1, "batch_size": 2,
        },
    )  # fmt: skip
    steps = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    losses = [line["loss"]["from teacher"] for line in steps]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert spy.said("on 17 sentences, for classification, ner, the embedding.")


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": "encoder"},
        {"keep_embeddings": 1, "head_layers": 1},
        {"student_layers": 1, "lora": 2},
        {"schedule": "joint", "balancing": "pcgrad"},
    ],
    ids=str,
)
def test_a_teacher_can_be_combined_with_other_settings(
    changes: dict[str, Any], teacher: TrainResult, tmp_path: Path
) -> None:
    result, _ = run(tmp_path, teacher=str(teacher.best), **changes)
    assert all("from teacher" in e["loss"] for e in result.history)


def test_a_stopped_run_resumes_bit_for_bit_without_its_teacher(
    teacher: TrainResult, tmp_path: Path
) -> None:
    model = tmp_path / "teacher"
    shutil.copytree(teacher.best, model)

    def settings(name: str) -> Any:
        taught = {"sources": [str(model)], "texts": texts_file(tmp_path), "batch_size": 2}
        return config(tmp_path / name, num_epochs=2, checkpoint_every=2, teacher=taught)

    assert_resumes(settings("whole"), settings("stopped"), 5, between=lambda: shutil.rmtree(model))


def test_the_teacher_runs_once_and_damaged_answers_are_recomputed(
    teacher: TrainResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[tuple[str, int]],
) -> None:
    def answered() -> int:
        return sum(texts for _, texts in runs)

    monkeypatch.setattr(sources, "CHUNK", 10)
    monkeypatch.setattr("manyheads.training.teaching.targets.CHUNK", 10)
    taught = {"teacher": str(teacher.best), "save_dir": str(tmp_path / "saved")}
    _, spy = run(tmp_path, **taught)
    assert answered() == 14
    name, cache = f"the teacher ({teacher.best})", tmp_path / "saved" / "teacher"
    assert spy.said(f"Running {name} on 14 sentences, for classification, ner.")
    spy = Spy()
    train(config(tmp_path, **taught), reporter=spy, overwrite=True)
    assert answered() == 14
    assert spy.said(f"Taking the answers of {name} on 14 sentences, for classification, ner, from")
    assert spy.said(f"from the cache in {cache}.")
    assert not spy.said("Running the teacher")
    [first, _] = sorted((tmp_path / "saved" / "teacher").glob("*/*.safetensors"))
    first.write_bytes(first.read_bytes()[:-1])
    train(config(tmp_path, **taught), reporter=spy, overwrite=True)
    again = answered() - 14
    assert again in (10, 4)
    assert spy.said(f"Running {name} on {again} of 14 sentences, for classification, ner; the")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_teacher_runs_in_the_precision_of_the_student(
    precision: str, teacher: TrainResult, tmp_path: Path, runs: list[tuple[str, int]]
) -> None:
    run(tmp_path, teacher=str(teacher.best), precision=precision)
    assert {name for name, _ in runs} == {f"torch ({precision}, cpu)"}


def test_a_run_is_not_resumed_with_another_teacher(teacher: TrainResult, tmp_path: Path) -> None:
    model = tmp_path / "other"
    shutil.copytree(teacher.best, model)
    run(tmp_path, teacher=str(model))
    other, _ = run(tmp_path / "another", tasks=CRF_TASKS, schedule="joint")
    shutil.rmtree(model)
    shutil.copytree(other.best, model)
    with pytest.raises(RequestError, match="because the teacher has changed"):
        train(config(tmp_path, teacher=str(model)), resume=True)


def test_teachers_that_do_not_fit_are_refused(teacher: TrainResult, tmp_path: Path) -> None:
    best = str(teacher.best)
    other = write_records(
        tmp_path / "other.jsonl",
        [{"text": f"text {i}", "label": "ab"[i % 2], "topic": "cd"[i % 2]} for i in range(8)],
    )
    files = {"train_file": str(other), "valid_file": str(other)}
    with pytest.raises(ConfigError, match=r"'classification' of .*lack a, b; expected.* a, b"):
        run(tmp_path, teacher=best, tasks={"classification": {"kind": "classification"}}, **files)
    with pytest.raises(ConfigError, match=r"none of the tasks topic; .*it has classification"):
        run(tmp_path, teacher=best, tasks={"topic": {"kind": "classification"}}, **files)
    task = {"ner": {"kind": "classification", "field": "label"}}
    with pytest.raises(ConfigError, match=r"task 'ner' of .* is of kind tagging; expected class"):
        run(tmp_path, teacher=best, tasks=task, **files)
    with pytest.raises(manyheads.ManyheadsError, match="no such model"):
        run(tmp_path, teacher=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="is 1, but no teacher has an embedding"):
        run(tmp_path, teacher={"sources": [str(other)], "embedding": 1.0})


def test_training_sentences_among_the_texts_are_not_learned_twice(
    teacher: TrainResult, tmp_path: Path
) -> None:
    known = [" ".join(record["tokens"]) for record in sentences(14, 1)]
    texts = tmp_path / "texts.txt"
    # Without others they are learned again, from the same answers.
    for lines, count in (([*known, "it was bad"], "15"), (known, "14 of 28")):
        texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        taught = {"sources": [str(teacher.best)], "texts": str(texts)}
        _, spy = run(tmp_path / count, teacher=taught)
        assert spy.said(f"on {count} sentences, for classification")


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


def test_embeddings_of_different_lengths_are_compared_by_their_cosines() -> None:
    wanted = spread(4, 6)
    turned = torch.linalg.qr(spread(8, 8))[0]
    found = torch.nn.functional.pad(wanted, (0, 2)) @ turned
    assert float(embedding_distance(found, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_distance(spread(4, 8, seed=3), wanted)) > 0.05
    assert float(embedding_distance(2 * wanted, wanted)) == pytest.approx(0, abs=1e-6)
    wanted[2] = torch.nan
    assert float(embedding_distance(wanted.nan_to_num(), wanted)) == pytest.approx(0, abs=1e-6)
    # Nothing is known of any sentence in the batch.
    assert float(embedding_distance(found, wanted[:, :0])) == 0


def test_a_teacher_is_configured_by_its_path_or_by_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("teacher: [a, b]\n", encoding="utf-8")
    several = load_config(path).teacher
    assert several is not None
    assert several.sources == (str(tmp_path / "a"), str(tmp_path / "b"))
    relative = load_config(None, {"teacher": ["a", "b"]})
    assert "sources: [../a, ../b]" in config_text(relative, Path("run/config.yaml"), {})
    more = load_config(path, {"teacher.texts": "t.txt", "teacher.weight": "2"}).teacher
    assert more is not None
    assert (more.sources, more.texts, more.weight) == (several.sources, "t.txt", 2)
    flag = load_config(None, {"teacher": "2024"}).teacher
    assert flag is not None
    assert flag.sources == ("2024",)
    for values, message in (
        ({"teacher": []}, r"`teacher\.sources` is"),
        ({"teacher": 3}, r"`teacher` is 3.*a path, or a list"),
        ({"teacher.texts": "a"}, r"`teacher\.sources` is missing"),
        (
            {"teacher": {"sources": ["a"], "embedding": 1}, "keep_embeddings": 1},
            "`keep_embeddings` and `teacher.embedding` are both set",
        ),
        (
            {"teacher": {"sources": ["a"], "embedding": 1}, "freeze": "encoder"},
            r"`teacher\.embedding` is 1, but with `freeze: encoder`",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, values)


def test_answers_of_pairs_and_numbers_are_learned(tmp_path: Path) -> None:
    pairs = [
        {"text": f"{r['tokens'][0]} is here", "text2": "who is here ?", "label": "yn"[i % 2]}
        for i, r in enumerate(sentences(8, 3))
    ]
    numbers = [{"text": " ".join(r["tokens"]), "value": i} for i, r in enumerate(sentences(8, 4))]
    files = {
        name: str(write_records(tmp_path / f"{name}.jsonl", records))
        for name, records in (("same", pairs), ("price", numbers))
    }
    kinds = {"same": "pair", "price": "regression"}
    tasks = {
        name: {"kind": kind, "train_file": files[name], "valid_file": files[name]}
        for name, kind in kinds.items()
    }
    first, _ = run(tmp_path / "teacher", tasks=tasks)
    result, spy = run(tmp_path / "student", tasks=tasks, teacher=str(first.best))
    assert spy.said("for same, price.")
    assert json.dumps(result.history[-1]["loss"])
    assert all(np.isfinite(e["loss"]["from teacher"]) for e in result.history)


def test_a_students_epochs_are_not_cut_short_by_its_teachers_automatic_stopping(
    tmp_path: Path,
) -> None:
    best = str(run(tmp_path, num_epochs="auto")[0].best)
    assert distill_config([best], None, {}).early_stopping is not None
    for name in ("epochs", "num_epochs", "num-epochs"):
        assert distill_config([best], None, {name: "8"}).early_stopping is None
    made = distill_config([best], None, {"epochs": "8", "early_stopping": "2"})
    assert (made.num_epochs, made.early_stopping) == (8, 2)


def test_settings_of_the_teacher_that_its_student_would_not_read_are_left_out(
    tmp_path: Path,
) -> None:
    data = write_records(tmp_path / "data.jsonl", sentences(30, 3))
    kept = {"weight": 2, "texts": texts_file(tmp_path), "batch_size": 3}
    first, _ = run(
        tmp_path, train_file=None, valid_file=None, files=[str(data)], hold_out=0.2,
        hold_out_seed=4, keep_best_per_task=True, keep_embeddings=kept,
    )  # fmt: skip
    best = [str(first.best)]
    made = distill_config(best, None, {})
    assert made.valid_file is not None
    assert made.keep_best_per_task
    assert made.keep_embeddings is not None
    assert made.keep_embeddings.batch_size == 3
    one: dict[str, Any] = {"tasks": {"ner": {"kind": "tagging"}}, "keep_embeddings.texts": None}
    made = distill_config(best, None, one)
    assert not made.keep_best_per_task
    assert made.keep_embeddings is not None
    assert (made.keep_embeddings.weight, made.keep_embeddings.batch_size) == (2, None)
    own = {**one, "keep_best_per_task": True}
    with pytest.raises(ConfigError, match="`keep_best_per_task` is true, but there is one task"):
        distill_config(best, None, own)
    assert distill_config(best, None, own, resume=True).keep_best_per_task
    with pytest.raises(ConfigError, match=r"`hold_out` is 0\.3, but `valid_file` is set"):
        distill_config(best, None, {"hold_out": "0.3"})


def test_a_student_is_distilled_from_its_teachers_folder_alone(
    teacher: TrainResult, tmp_path: Path
) -> None:
    best = str(teacher.best)
    student = manyheads.distill(
        best, ["mary is in rome", "where is paul ?"], save_dir=tmp_path / "student",
        student_layers=1, num_epochs=1, progress=False,
    )  # fmt: skip
    assert student.module.encoder.shape.num_layers == 1
    tasks = {**CRF_TASKS, "ner": {**CRF_TASKS["ner"], "word_features": "off"}}
    assert student.config.tasks == load_config(None, {"tasks": tasks}).tasks
    assert student.config.teacher is not None
    made = distill_config([best, "soft.jsonl"], "t.txt", {"teacher.weight": "3"})
    assert made.teacher is not None
    assert (made.teacher.sources, made.teacher.texts) == ((best, "soft.jsonl"), "t.txt")
    assert (made.teacher.weight, made.save_dir, made.epochs) == (3, "distilled", 3)
    with pytest.raises(RequestError, match=r"no teacher is a trained model \(soft.jsonl\)"):
        distill_config(["soft.jsonl"], None, {})
    with pytest.raises(RequestError, match="`init_from` is set to 'a'"):
        distill_config([best], None, {"init_from": "a"})
    with pytest.raises(manyheads.ManyheadsError, match="no such model"):
        distill_config([str(tmp_path / "none")], None, {})


def test_tasks_that_the_teacher_inherited_are_named_and_the_student_of_an_added_head_is_not_frozen(
    teacher: TrainResult, tmp_path: Path
) -> None:
    data = write_records(tmp_path / "data.jsonl", sentences(12, 3))
    added = manyheads.add_head(
        teacher.best, "topic", kind="classification", train_file=data, valid_file=data,
        save_dir=tmp_path / "added", num_epochs=1, threads=1, progress=False,
    )  # fmt: skip
    best, student = added.path, {"save_dir": tmp_path / "student"}
    made = distill_config([best], None, student)
    # The teacher's encoder is not the pretrained one, which the student starts from.
    assert ([*made.tasks], made.freeze) == (["topic"], "none")
    spy = Spy()
    prepared(made, spy)
    assert spy.said("that the student will not have, because its configuration names no data for")
    assert spy.said("them: classification, ner. To have one, set")
    both = {"tasks.ner.kind": "tagging", "tasks.ner.train_file": str(data)}
    assert [*distill_config([best], None, student | both).tasks] == ["topic", "ner"]

    assert distill_config([best], None, {"freeze": "encoder"}).freeze == "encoder"


def test_a_frozen_encoder_stays_frozen_where_the_student_starts_from_the_same(
    tmp_path: Path,
) -> None:
    best = run(tmp_path, freeze="encoder")[0].best
    assert distill_config([best], None, {}).freeze == "encoder"
    same = {"model_name": str(encoder_folder())}
    assert distill_config([best], None, same).freeze == "encoder"
    for other in ({"student_layers": 1}, {"model-name": str(tmp_path)}):
        assert distill_config([best], None, other).freeze == "none"
        assert distill_config([best], None, {**other, "freeze": "encoder"}).freeze == "encoder"


def test_a_students_data_replace_those_of_all_tasks(tmp_path: Path) -> None:
    rows = [{"phrase": f"word {n}", "sort": "xy"[n % 2]} for n in range(12)]
    path = str(write_records(tmp_path / "rows.jsonl", rows))
    layout = {"map": {"phrase": "text", "sort": "label"}}
    files = {"train_file": path, "valid_file": path}
    tasks = {"sort": {"kind": "classification", **files, **layout}}
    best = str(run(tmp_path, train_file=None, valid_file=None, tasks=tasks)[0].best)
    made = distill_config([best], None, {"train-file": "new.jsonl"})
    assert made.train_files() == {"new.jsonl": ("sort",)}
    assert made.valid_files() == {path: ("sort",)}
    assert made.tasks["sort"].map == layout["map"]
    made = distill_config([best], None, {"train_file": "new.jsonl", "valid_file": "other.jsonl"})
    assert made.valid_files() == {"other.jsonl": ("sort",)}
    assert made.tasks["sort"].map is None
