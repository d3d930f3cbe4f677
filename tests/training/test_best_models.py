"""The best model: how it is chosen, saved beside others, and loaded by other libraries."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from equal_runs import assert_equal, weights
from manyheads.errors import RequestError
from manyheads.inference import Runtime, load_model
from manyheads.modeling import list_checkpoints
from manyheads.storage import read_manifest
from manyheads.text import TextTokenizer
from manyheads.training import Run, train
from training_setup import (
    Killed,
    Spy,
    config,
    digest,
    log_lines,
    run,
    sentences,
    write_records,
)


def fake_scores(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Give epochs these scores, whatever the model has learned."""
    scores = iter(values)
    monkeypatch.setattr("manyheads.training.epoch_end.best_value", lambda *given: next(scores))


def test_the_best_model_is_that_of_the_best_epoch_and_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_scores(monkeypatch, [0.1, 0.7, 0.7, 0.3])
    result, spy = run(tmp_path, num_epochs=4)
    assert (result.best_epoch, result.best_score) == (3, 0.7)
    assert [entry["best"] for entry in spy.history] == [True, True, True, False]
    best = load_file(result.best / "heads.safetensors")
    for epoch in range(1, 5):
        model = weights(result.save_dir, epoch)
        same = all(torch.equal(best[name], model[f"heads.{name}"]) for name in best)
        assert same == (epoch == 3)
    manifest = json.loads((result.best / "manyheads.json").read_text())
    assert manifest["metrics"] == json.loads(json.dumps(result.history[2]["metrics"]))


def test_of_epochs_that_chance_could_have_put_in_this_order_the_last_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(400, 2))
    # Of 400 records, a share of 0.9 has a standard error of 0.015, and the mean of two 0.011.
    fake_evaluations(monkeypatch, [(0.9, 0.9), (0.9, 0.89), (0.9, 0.87), (0.9, 0.88)])
    result, spy = run(tmp_path, num_epochs=4, keep_best_per_task=True)
    assert [entry["best"] for entry in spy.history] == [True, True, False, True]
    assert result.best_epoch == 4
    folders = {"": result.best, **result.best_of}
    assert {name: epoch_of(path, result.save_dir) for name, path in folders.items()} == {
        "": 4, "classification": 4, "ner": 2
    }  # fmt: skip


def test_training_stops_early_without_a_better_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_scores(monkeypatch, [0.1, 0.8, 0.8, 0.1, 0.9])
    result, spy = run(tmp_path, num_epochs=5, early_stopping=2)
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4]
    assert result.best_epoch == 3
    assert spy.said("Stopped early: no better model for 2 epochs")
    spy = Spy()
    train(config(tmp_path, num_epochs=5, early_stopping=2), resume=True, reporter=spy)
    assert spy.said("is finished")


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("mean", lambda tasks: (tasks["classification"]["accuracy"] + tasks["ner"]["f1"]) / 2),
        ("ner.token_accuracy", lambda tasks: tasks["ner"]["token_accuracy"]),
    ],
)
def test_the_named_metric_chooses_the_best_model(
    tmp_path: Path, metric: str, value: Callable[[Any], float]
) -> None:
    result, _ = run(tmp_path, best_metric=metric, num_epochs=3)
    scores = [value(entry["metrics"]["tasks"]) for entry in result.history]
    assert [entry["score"] for entry in result.history] == scores
    assert result.best_score == scores[result.best_epoch - 1]
    # Every task has its own metrics, whichever selects the model.
    for entry in log_lines(result.save_dir):
        if entry["event"] == "epoch":
            assert entry["metrics"]["tasks"].keys() == {"classification", "ner"}


def fake_evaluations(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
    """Give epochs' models these scores, whatever they have learned."""
    told = iter(scores)
    evaluate = Run.evaluate

    def faked(self: Run, before_batch: Callable[[], None] = lambda: None) -> Any:
        evaluation: Any = evaluate(self, before_batch)
        tasks = evaluation["tasks"]
        tasks["classification"]["accuracy"], tasks["ner"]["f1"] = next(told)
        return evaluation

    monkeypatch.setattr(Run, "evaluate", faked)


def epoch_of(folder: Path, save_dir: Path) -> int:
    """The epoch whose weights a model folder has."""
    best = load_file(folder / "heads.safetensors")
    (epoch,) = (
        file.number
        for file in list_checkpoints(save_dir)
        if all(torch.equal(best[n], weights(save_dir, file.number)[f"heads.{n}"]) for n in best)
    )
    return epoch


def test_the_best_model_of_each_task_is_kept_beside_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_evaluations(monkeypatch, [(0.1, 0.9), (0.9, 0.7), (0.2, 0.9)])
    result, spy = run(tmp_path, num_epochs=3, keep_best_per_task=True)
    folders = {"": result.best, **result.best_of}
    assert {name: epoch_of(path, result.save_dir) for name, path in folders.items()} == {
        "": 2, "classification": 2, "ner": 3
    }  # fmt: skip
    assert result.best_of["ner"] == result.save_dir / "best-ner"
    best = load_model(result.best_of["ner"], Runtime(device="cpu"))
    assert best.predictor.predict(["john lives in paris"])
    assert [entry["front"] for entry in result.history] == [[1], [1, 2], [2, 3]]
    assert spy.said("No epoch is the best for every task. These are on the Pareto front: "
                    "epoch 2 (classification 0.9000, ner 0.7000); epoch 3")  # fmt: skip
    lines = [line for line in log_lines(result.save_dir) if line["event"] == "epoch"]
    assert [line["front"] for line in lines] == [[1], [1, 2], [2, 3]]


def test_of_equal_epochs_a_run_killed_before_the_exchange_keeps_the_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, save_best = Run.evaluate, Run.save_best
    found: list[Any] = []

    def equal(self: Run, before_batch: Callable[[], None] = lambda: None) -> Any:
        found.append(evaluate(self, before_batch))
        return found[0]

    # As with scores of 1 and a frozen encoder.
    monkeypatch.setattr(Run, "evaluate", equal)

    def killed(self: Run, epoch: int, folder: str) -> None:
        if epoch == 3:
            raise Killed
        save_best(self, epoch, folder)

    settings = config(tmp_path, num_epochs=3, keep_best_per_task=True)
    with monkeypatch.context() as patched:
        patched.setattr(Run, "save_best", killed)
        with pytest.raises(Killed):
            train(settings)
    spy = Spy()
    result = train(settings, resume=True, reporter=spy)
    assert result.best_epoch == 3
    for folder in (result.best, *result.best_of.values()):
        assert epoch_of(folder, result.save_dir) == 3
        assert spy.said(f"warning: {folder} is not the model of epoch 3.")


def test_each_best_model_is_calibrated_on_records_that_did_not_select_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(40, 2))
    fake_evaluations(monkeypatch, [(0.5, 0.9), (0.9, 0.7)])
    # Without fold 3 another epoch would be the best for ner, without folds 0 and 4 for the intent.
    without_folds = iter([
        ([0.7] * 5, {"classification": [0.9, 0.5, 0.5, 0.5, 0.9], "ner": [0.9] * 5}),
        ([0.8] * 5, {"classification": [0.8] * 5, "ner": [0.7, 0.7, 0.7, 0.9, 0.7]}),
    ])  # fmt: skip
    keys = ("score_without_fold", "task_scores_without_fold")
    monkeypatch.setattr(
        "manyheads.training.epoch_end.scores_without_folds",
        lambda run: dict(zip(keys, next(without_folds), strict=True)),
    )
    result, spy = run(tmp_path, num_epochs=2, keep_best_per_task=True)
    records = {
        folder.name: read_manifest(folder).calibration["tasks"]["classification"]["records"]
        for folder in (result.best, *result.best_of.values())
    }
    assert records == {"best": 40, "best-classification": 24, "best-ner": 32}
    assert spy.said(
        "Calibrated classification in best-ner on 32 answers of validation records that did not "
        "decide the choice of the epoch"
    )


def test_by_default_only_one_best_model_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_evaluations(monkeypatch, [(0.5, 0.7), (0.9, 0.8)])
    result, spy = run(tmp_path, num_epochs=2)
    assert not result.best_of
    assert not list(result.save_dir.glob("best-*"))
    assert not spy.said("No epoch is the best for every task")


def test_the_best_models_of_tasks_are_restored_and_removed_like_the_best_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_evaluations(monkeypatch, [(0.5, 0.9), (0.9, 0.7)])
    settings = config(tmp_path, num_epochs=2, keep_best_per_task=True)
    result = train(settings)
    before = digest(result.save_dir)
    shutil.rmtree(result.save_dir / "best-ner")
    (result.save_dir / "best-classification" / "heads.safetensors").write_bytes(b"damaged")
    spy = Spy()
    again = train(settings, resume=True, reporter=spy)
    assert spy.said(f"Wrote {result.save_dir / 'best-ner'} again from the checkpoint of epoch 1")
    assert digest(result.save_dir) == before
    assert again.best_of == result.best_of
    with pytest.raises(RequestError, match=r"holds another run \(.*best, best-classification, "
                       r"best-ner, metrics.jsonl\)"):  # fmt: skip
        train(settings)
    monkeypatch.undo()
    train(config(tmp_path), overwrite=True)
    assert not list(result.save_dir.glob("best-*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, which tests only read."""
    result, _ = run(tmp_path_factory.mktemp("trained"), num_epochs=2, schedule="joint")
    return result.save_dir


TEXTS = ["John lives in Paris", "Will it rain in Rome?", "a", "The weather was very bad. Was it?"]


def test_the_best_model_is_a_sentence_transformer_with_the_same_embeddings(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(trained / "best"), device="cpu")
    ours = load_model(trained, Runtime(threads=1)).predictor.predict(TEXTS, embed=True)
    theirs = reference.encode(TEXTS, show_progress_bar=False)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.embedding is not None
        np.testing.assert_allclose(mine.embedding, other, atol=1e-5)


def test_the_best_model_is_an_encoder_that_transformers_loads_whole(trained: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model, info = AutoModel.from_pretrained(trained / "best", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    ours = load_file(trained / "best" / "model.safetensors")
    assert_equal(ours, model.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(trained / "best")
    own = TextTokenizer.from_json((trained / "best" / "tokenizer.json").read_text("utf-8"))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own.encode(text).ids.tolist()
