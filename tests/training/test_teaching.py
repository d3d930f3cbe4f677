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
from manyheads.errors import ConfigError, RequestError
from manyheads.inference import Backend, LoadedModel, load_model
from manyheads.modeling.heads.base import divergence
from manyheads.modeling.heads.crf import CRF
from manyheads.tasks import Scheme, TagSet, Transitions, kind_of, marginals
from manyheads.tasks.soft_targets import word_of_each
from manyheads.text import Batch
from manyheads.training import TrainResult, train
from manyheads.training.teaching import sources
from manyheads.training.teaching.term import embedding_distance
from teachers import CRF_TASKS, texts_file
from training_setup import Spy, config, log_lines, run, sentences, write_records

TAGS = TagSet.of_types(("LOC", "PER"))


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
