"""A training run: its data, its output, and the errors for invalid input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from manyheads.errors import ConfigError, DataError, ManyheadsError, ModelError, RequestError
from manyheads.inference import load_predictor
from manyheads.modeling import Encoder, ModelInputs, list_checkpoints, load_checkpoint
from manyheads.modeling.heads import ClassificationHead
from manyheads.storage import read_manifest
from manyheads.text import TextTokenizer
from manyheads.training import Run, forward_backward, prepare_run, train
from manyheads.training.data import Dataset, Schedule, Step, TaskTargets, plan_epoch
from manyheads.training.loop import TrainingError
from training_setup import (
    Spy,
    config,
    digest,
    encoder_folder,
    log_lines,
    run,
    sentences,
    settings,
    write_records,
)

# --------------------------------------------------------------------------------- helpers


def disjoint(folder: Path, intents: int = 13, tags: int = 6, **changes: Any) -> dict[str, Any]:
    """Two tasks of different sizes, each with its own files."""
    write_records(folder / "intents.jsonl", sentences(intents, 5, fields=["label"]))
    write_records(folder / "tags.jsonl", sentences(tags, 6, fields=["ner"]))
    tasks = {
        "intent": {"kind": "classification", "train_file": str(folder / "intents.jsonl")},
        "ner": {"kind": "tagging", "train_file": str(folder / "tags.jsonl")},
    }
    return {"tasks": tasks, "train_file": str(folder / "intents.jsonl"), **changes}


def partial_records() -> list[Any]:
    """Records of which only some have the labels of both tasks."""
    records = sentences(12, 7)
    for i, record in enumerate(records):
        if i % 3 == 1:
            del record["label"]
        if i % 3 == 2:
            del record["ner"]
    return records


@contextmanager
def encoder_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """Record the inputs of every training pass of the encoder."""
    calls: list[Tensor] = []
    forward = Encoder.forward

    def counted(self: Encoder, input_ids: Tensor, mask: Tensor, **options: Any) -> Any:
        if self.training:
            calls.append(input_ids)
        return forward(self, input_ids, mask, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "forward", counted)
        yield calls


def prepared(folder: Path, **changes: Any) -> Run:
    """A run that has not started."""
    (folder / "saved").mkdir(parents=True, exist_ok=True)
    return prepare_run(
        config(folder, **changes), resume=False, overwrite=True, report=lambda text: None
    )


def gradients(run: Run) -> dict[str, Tensor]:
    return {
        name: parameter.grad.to_dense().clone()
        for name, parameter in run.model.named_parameters()
        if parameter.grad is not None
    }


def without_dropout(run: Run) -> Run:
    for module in run.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return run


def weights(save_dir: Path, epoch: int = 1) -> Mapping[str, Tensor]:
    return load_checkpoint(save_dir / f"mtl_epoch{epoch}.pt").model


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# ------------------------------------------------------------------------ records and batches


def rows_of(calls: list[Tensor]) -> Counter[tuple[int, ...]]:
    """Count the sentences in some batches, by their sub-tokens."""
    return Counter(
        tuple(int(i) for i in row if i != 0) for batch in calls for row in batch.tolist()
    )


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_record_of_every_task_is_seen_once_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    with encoder_calls(monkeypatch) as calls:
        _, spy = run(tmp_path, **disjoint(tmp_path, batch_size=batch_size))
    assert spy.sentences == {"intent": 13, "ner": 6}
    assert all(len(batch) <= batch_size for batch in calls)
    run_ = prepared(tmp_path / "again", **disjoint(tmp_path))
    expected = Counter(
        tuple(dataset.tokens.row(i).tolist())
        for dataset in run_.data.datasets
        for i in range(len(dataset))
    )
    assert rows_of(calls) == expected


def test_tasks_take_turns_until_the_smaller_is_used_up(tmp_path: Path) -> None:
    _, spy = run(tmp_path, **disjoint(tmp_path))
    assert spy.turns == ["intent", "ner", "intent", "ner", "intent", "intent"]


def test_together_every_step_trains_all_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with encoder_calls(monkeypatch) as calls:
        _, spy = run(tmp_path, **disjoint(tmp_path, schedule="together"))
    assert [task for task, _ in spy.losses] == ["intent", "ner"] * 4
    assert spy.turns == ["intent"] * 4
    assert spy.sentences == {"intent": 13, "ner": 6}
    assert sorted(len(batch) for batch in calls) == [1, 1, 2, 2, 3, 3, 3, 4]


def test_a_step_of_several_sources_has_the_sum_of_their_gradients(tmp_path: Path) -> None:
    whole = without_dropout(prepared(tmp_path, **disjoint(tmp_path, schedule="together")))
    step = plan_epoch(whole.data.sources, Schedule("together"), seed=1, epoch=0)[0]
    losses = forward_backward(whole, step).losses
    expected: dict[str, Tensor] = {}
    for part, task in zip(step.parts, ("intent", "ner"), strict=True):
        one = without_dropout(prepared(tmp_path, **disjoint(tmp_path)))
        (loss,) = forward_backward(one, Step((part,))).losses.values()
        assert torch.equal(loss, losses[task])
        for name, gradient in gradients(one).items():
            expected[name] = expected.get(name, torch.zeros(())) + gradient
    found = gradients(whole)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-7, rtol=1e-5, msg=name)


def test_a_task_may_have_a_batch_size_of_its_own(tmp_path: Path) -> None:
    values = disjoint(tmp_path)
    values["tasks"]["ner"]["batch_size"] = 2
    _, spy = run(tmp_path, **values)
    assert Counter(spy.turns) == {"intent": 4, "ner": 3}


def test_joint_training_encodes_a_batch_once_for_all_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with encoder_calls(monkeypatch) as calls:
        _, spy = run(tmp_path, schedule="joint")
    assert sum(len(batch) for batch in calls) == 14
    assert len(calls) == len(spy.turns) == spy.total_steps == 4
    assert Counter(task for task, _ in spy.losses) == {"classification": 4, "ner": 4}


def test_joint_training_learns_from_partly_labelled_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "partial.jsonl", partial_records())
    with encoder_calls(monkeypatch) as calls:
        run(tmp_path, schedule="joint", train_file=str(tmp_path / "partial.jsonl"))
    assert sum(len(batch) for batch in calls) == 12


def test_alternating_tasks_see_only_the_records_that_have_their_labels(tmp_path: Path) -> None:
    write_records(tmp_path / "partial.jsonl", partial_records())
    _, spy = run(tmp_path, train_file=str(tmp_path / "partial.jsonl"))
    assert spy.sentences == {"classification": 8, "ner": 8}


def test_a_joint_loss_is_the_weighted_sum_over_the_tasks(tmp_path: Path) -> None:
    tasks = {
        "intent": {"kind": "classification", "weight": 0.25},
        "ner": {"kind": "tagging", "weight": 3.0},
    }
    both = without_dropout(prepared(tmp_path, tasks=tasks, schedule="joint", batch_size=14))
    (step,) = plan_epoch(both.data.sources, seed=1, epoch=0)
    forward_backward(both, step)
    expected: dict[str, Tensor] = {}
    for task, factor in (("intent", 0.25), ("ner", 3.0)):
        alone = {name: {"kind": t["kind"]} for name, t in tasks.items()}
        one = without_dropout(prepared(tmp_path, tasks=alone, batch_size=14))
        plan = plan_epoch(one.data.sources, seed=1, epoch=0)
        forward_backward(one, plan[[s.name for s in one.data.sources].index(task)])
        for name, gradient in gradients(one).items():
            expected[name] = expected.get(name, torch.zeros(())) + factor * gradient
    found = gradients(both)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("decoder", ["linear", "crf"])
def test_accumulated_batches_have_the_gradient_of_one_large_batch(
    tmp_path: Path, decoder: str
) -> None:
    # Partly labelled, and with sentences of different lengths: the weight of a batch must be its
    # share of the labels.
    write_records(tmp_path / "partial.jsonl", partial_records())
    values: dict[str, Any] = {
        "train_file": str(tmp_path / "partial.jsonl"),
        "schedule": "joint",
        "tasks": {
            "intent": {"kind": "classification"},
            "ner": {"kind": "tagging", "decoder": decoder},
        },
    }
    small = without_dropout(prepared(tmp_path, batch_size=3, gradient_accumulation=4, **values))
    large = without_dropout(prepared(tmp_path, batch_size=12, **values))
    losses = []
    for one, accumulation in ((small, 4), (large, 1)):
        schedule = Schedule(accumulation=accumulation)
        (step,) = plan_epoch(one.data.sources, schedule, seed=1, epoch=0)
        assert [len(batch) for batch in step.parts[0].batches] == [
            12 // accumulation
        ] * accumulation
        losses.append(forward_backward(one, step).losses)
    for task in losses[0]:
        torch.testing.assert_close(losses[0][task], losses[1][task])
    one, other = gradients(small), gradients(large)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("decoder", ["linear", "crf"])
def test_padding_changes_neither_loss_nor_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    inputs_of, collate_of = Dataset.inputs, TaskTargets.collate

    def padded(self: Dataset, rows: Any, pad_id: int) -> ModelInputs:
        inputs = inputs_of(self, rows, pad_id)
        assert inputs.word_features is not None

        def wider(tensor: Tensor, fill: int) -> Tensor:
            return torch.nn.functional.pad(tensor, (0, 5), value=fill)

        return ModelInputs(
            wider(inputs.input_ids, 7),  # any token
            wider(inputs.attention_mask, 0),
            wider(inputs.word_starts, 0),
            wider(inputs.word_mask, False),
            torch.nn.functional.pad(inputs.word_features, (0, 0, 0, 5), value=7),
        )

    def padded_targets(self: TaskTargets, rows: Any, width: int) -> Tensor:
        return collate_of(self, rows, width + 5)

    results = []
    for pads in (False, True):
        values = {
            "tasks": {
                "intent": {"kind": "classification", "pooling": ["mean", "max", "attention"]},
                "ner": {
                    "kind": "tagging",
                    "decoder": decoder,
                    "neck": "bilstm",
                    "neck_size": 4,
                    "word_features": "on",
                },
            },
            "schedule": "joint",
        }
        one = without_dropout(prepared(tmp_path, **values))
        with monkeypatch.context() as patched:
            if pads:
                patched.setattr(Dataset, "inputs", padded)
                patched.setattr(TaskTargets, "collate", padded_targets)
            step = plan_epoch(one.data.sources, seed=1, epoch=0)[0]
            losses = forward_backward(one, step).losses
        results.append((losses, gradients(one)))
    for task, loss in results[0][0].items():
        torch.testing.assert_close(loss, results[1][0][task], atol=1e-6, rtol=0)
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], atol=1e-6, rtol=1e-5, msg=name)


# ------------------------------------------------------------------- models and other files


def fake_scores(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Give epochs these scores, whatever the model has learned."""
    scores = iter(values)
    monkeypatch.setattr("manyheads.training.loop.best_score", lambda run, evaluation: next(scores))


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


def test_training_stops_early_without_a_better_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_scores(monkeypatch, [0.1, 0.2, 0.2, 0.1, 0.9])
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
    assert result.best_score == max(scores)
    assert result.best_epoch == max(range(3), key=lambda i: (scores[i], i)) + 1
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
    fake_evaluations(monkeypatch, [(0.5, 0.9), (0.9, 0.7), (0.6, 0.9)])
    result, spy = run(tmp_path, num_epochs=3, keep_best_per_task=True)
    folders = {"": result.best, **result.best_of}
    assert {name: epoch_of(path, result.save_dir) for name, path in folders.items()} == {
        "": 2, "classification": 2, "ner": 3
    }  # fmt: skip
    assert result.best_of["ner"] == result.save_dir / "best-ner"
    assert load_predictor(result.best_of["ner"], device="cpu").predict(["john lives in paris"])
    assert [entry["front"] for entry in result.history] == [[1], [1, 2], [2, 3]]
    assert spy.said("No epoch is the best for every task. These are on the Pareto front: "
                    "epoch 2 (classification 0.9000, ner 0.7000); epoch 3")  # fmt: skip
    lines = [line for line in log_lines(result.save_dir) if line["event"] == "epoch"]
    assert [line["front"] for line in lines] == [[1], [1, 2], [2, 3]]


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
        "manyheads.training.loop.scores_without_folds",
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


def test_a_run_learns(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", sentences(60, 1))
    result, _ = run(tmp_path, num_epochs=4, batch_size=4, schedule="joint")
    assert result.history[-1]["loss"]["ner"] < 0.5 * result.history[0]["loss"]["ner"]
    assert result.best_score > 0.8


def test_the_log_has_a_line_every_few_steps_and_for_each_epoch(tmp_path: Path) -> None:
    result, spy = run(tmp_path, log_every=3, num_epochs=2)
    lines = log_lines(result.save_dir)
    assert [(line["event"], line["step"]) for line in lines] == [
        ("step", 3), ("step", 6), ("epoch", 8), ("step", 9), ("step", 12), ("step", 15),
        ("epoch", 16),
    ]  # fmt: skip
    assert spy.turns[:3] == ["classification", "ner", "classification"]
    losses = dict.fromkeys(("classification", "ner"), ())
    for task, loss in spy.losses[:3]:
        losses[task] = (*losses[task], loss)
    assert lines[0]["loss"] == {task: np.mean(values) for task, values in losses.items()}
    epoch = [loss for task, loss in spy.losses[:8] if task == "ner"]
    assert lines[2]["loss"]["ner"] == pytest.approx(np.mean(epoch))


def names(save_dir: Path) -> list[str]:
    return [file.path.name for file in list_checkpoints(save_dir)]


def test_each_epoch_leaves_a_checkpoint(tmp_path: Path) -> None:
    result, _ = run(tmp_path, num_epochs=3)
    assert names(result.save_dir) == ["mtl_epoch1.pt", "mtl_epoch2.pt", "mtl_epoch3.pt"]


def test_old_checkpoints_are_limited_in_number(tmp_path: Path) -> None:
    result, _ = run(tmp_path, num_epochs=4, keep_checkpoints=2)
    assert names(result.save_dir) == ["mtl_epoch3.pt", "mtl_epoch4.pt"]


def test_checkpoints_within_epochs_are_saved_every_few_steps(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    spy = Spy(lambda step: seen.append(names(tmp_path / "saved")))
    train(config(tmp_path, num_epochs=2, checkpoint_every=3), reporter=spy)
    # Eight steps per epoch. Within an epoch only the newest checkpoint is kept, until its end.
    first = ["mtl_epoch1.pt"]
    assert seen == [
        [], [], [], *3 * [["mtl_step3.pt"]], *2 * [["mtl_step6.pt"]],
        first, *3 * [[*first, "mtl_step9.pt"]], *3 * [[*first, "mtl_step12.pt"]],
        [*first, "mtl_step15.pt"],
    ]  # fmt: skip
    assert names(tmp_path / "saved") == ["mtl_epoch1.pt", "mtl_epoch2.pt"]


def test_checkpoints_within_epochs_may_be_saved_at_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("manyheads.training.run.time.monotonic", lambda: now[0])
    seen: list[list[str]] = []

    def tick(step: int) -> None:
        seen.append(names(tmp_path / "saved"))
        now[0] += 40

    train(config(tmp_path, checkpoint_every="2m"), reporter=Spy(tick))
    saved = ["mtl_step3.pt"]
    assert seen == [[], [], [], saved, saved, saved, ["mtl_step6.pt"], ["mtl_step6.pt"]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, which tests only read."""
    result, _ = run(tmp_path_factory.mktemp("trained"), num_epochs=2, schedule="joint")
    return result.save_dir


TEXTS = ["John lives in Paris", "Will it rain in Rome?", "a", "The weather was very bad. Was it?"]


def test_the_best_model_is_a_sentence_transformer_with_the_same_embeddings(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(trained / "best"), device="cpu")
    ours = load_predictor(trained, threads=1).predict(TEXTS, embed=True)
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
    assert_same(ours, model.state_dict())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(trained / "best")
    own = TextTokenizer.from_json((trained / "best" / "tokenizer.json").read_text("utf-8"))
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == own.encode(text).ids.tolist()


# -------------------------------------------------------------------------------- reproducible

_TRAIN = """
import sys
from manyheads import train
train(sys.argv[1], threads=1)
"""


def test_the_same_configuration_and_seed_make_the_same_model_in_any_process_and_place(
    tmp_path: Path,
) -> None:
    # An encoder without a pooler, like many published ones: the library initialises one at random.
    encoder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), encoder)
    state = load_file(encoder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    assert len(kept) < len(state)
    save_file(kept, encoder / "model.safetensors", {"format": "pt"})

    values = settings(tmp_path / "first", model_name=str(encoder))
    (tmp_path / "second" / "data").mkdir(parents=True)
    for name in ("train", "valid"):
        shutil.copy(tmp_path / "first" / f"{name}.jsonl", tmp_path / "second" / "data")
    elsewhere = {
        **values,
        "train_file": "data/train.jsonl",
        "valid_file": "data/valid.jsonl",
        "save_dir": "here",
    }
    file = tmp_path / "second" / "config.yaml"
    file.write_text(yaml.safe_dump(elsewhere), encoding="utf-8")
    (tmp_path / "work").mkdir()
    subprocess.run(
        [sys.executable, "-c", _TRAIN, str(file)], cwd=tmp_path / "work", check=True, timeout=600
    )
    torch.rand(7)
    np.random.default_rng().random(3)
    run(tmp_path / "first", model_name=str(encoder))
    assert_same(weights(tmp_path / "first" / "saved"), weights(tmp_path / "work" / "here"))
    assert log_lines(tmp_path / "first" / "saved") == log_lines(tmp_path / "work" / "here")


def test_another_seed_makes_another_model(tmp_path: Path) -> None:
    for seed in (1, 2):
        run(tmp_path, seed=seed, save_dir=str(tmp_path / str(seed)))
    one, other = weights(tmp_path / "1"), weights(tmp_path / "2")
    assert any(not torch.equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------- folders of other runs


@pytest.fixture
def another_run(trained: Path, tmp_path: Path) -> Path:
    """A folder with another run, which a test may replace."""
    shutil.copytree(trained, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("remains", ["all", "best", "metrics.jsonl", "mtl_epoch1.pt"])
def test_a_folder_that_holds_another_run_is_refused_and_not_touched(
    another_run: Path, tmp_path: Path, remains: str
) -> None:
    for path in another_run.iterdir():
        if remains not in ("all", path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = digest(another_run)
    assert before
    message = r"holds another run \(.*expected a new or empty .*--resume.*--overwrite"
    with pytest.raises(RequestError, match=message):
        train(config(tmp_path))
    assert digest(another_run) == before


def test_with_overwrite_nothing_of_another_run_remains(another_run: Path, tmp_path: Path) -> None:
    (another_run / "notes.txt").write_text("a file of the user")
    train(config(tmp_path, batch_size=7), overwrite=True)
    assert names(another_run) == ["mtl_epoch1.pt"]
    assert len(log_lines(another_run)) == 5
    assert json.loads((another_run / "best" / "manyheads.json").read_text())["config"][
        "batch_size"
    ] == 7  # fmt: skip
    assert (another_run / "notes.txt").exists()


@pytest.mark.parametrize(
    "changes", [{"train_file": "nowhere.json"}, {"max_length": 65}, {"model_name": "./nowhere"}]
)
def test_an_error_before_the_first_step_leaves_the_run_that_overwrite_replaces(
    another_run: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = digest(another_run)
    with pytest.raises(ManyheadsError):
        train(config(tmp_path, **changes), overwrite=True)
    assert digest(another_run) == before


# ------------------------------------------------------------------------ losses not finite


def spoil(monkeypatch: pytest.MonkeyPatch, *calls: int, value: float = float("nan")) -> None:
    """Make some calls of a head's loss, counted from 1, return a value that is not finite."""
    done = [0]
    right = ClassificationHead.loss

    def wrong(self: ClassificationHead, logits: Tensor, targets: Tensor) -> Tensor:
        done[0] += 1
        loss = right(self, logits, targets)
        return loss * value if done[0] in calls else loss

    monkeypatch.setattr(ClassificationHead, "loss", wrong)


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        spoil(patched, 2)
        with pytest.raises(TrainingError, match="not finite at step 3") as caught:
            run(tmp_path)
    assert caught.value.exit_status == 2
    places = re.findall(re.escape(f"{tmp_path}/train.jsonl:") + r"(\d+)", str(caught.value))
    assert len(set(places)) == 4
    assert "--resume --on-nonfinite skip" in str(caught.value)
    # The state before the step is saved: a resumed run can repeat the step, or skip it.
    assert names(tmp_path / "saved") == ["mtl_step2.pt"]
    shutil.copytree(tmp_path / "saved", tmp_path / "copy")
    spy = Spy()
    train(config(tmp_path, on_nonfinite="skip"), resume=True, reporter=spy)
    assert spy.said("Resumed after step 2 of 8")
    run(tmp_path / "undisturbed", train_file=str(tmp_path / "train.jsonl"))
    assert_same(weights(tmp_path / "saved"), weights(tmp_path / "undisturbed" / "saved"))
    with monkeypatch.context() as patched:
        spoil(patched, 1)
        train(config(tmp_path, on_nonfinite="skip", save_dir=str(tmp_path / "copy")), resume=True)
    assert log_lines(tmp_path / "copy")[-2]["skipped"] == 1


def test_a_loss_that_is_not_finite_in_the_very_first_step_can_be_skipped_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 1, 2)
    with pytest.raises(TrainingError, match="not finite at step 1"):
        run(tmp_path)
    spy = Spy()
    train(config(tmp_path, on_nonfinite="skip"), resume=True, reporter=spy)
    assert spy.said("Resumed after step 0 of 8")
    assert len(spy.losses) == 7


def test_steps_whose_loss_is_not_finite_are_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 2, 4, value=float("inf"))
    result, spy = run(tmp_path, on_nonfinite="skip")
    steps = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["skipped"] for line in steps] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert len(spy.losses) == 6
    for tensor in weights(result.save_dir).values():
        assert tensor.isfinite().all()


def test_a_skipped_step_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, *range(1, 9))
    result, _ = run(
        tmp_path, on_nonfinite="skip", tasks={"classification": {"kind": "classification"}}
    )
    start = prepared(tmp_path / "start", tasks={"classification": {"kind": "classification"}})
    assert_same(weights(result.save_dir), start.model.state_dict())


# ----------------------------------------------------------------------------------- bad input


def refused(folder: Path, error: type[ManyheadsError], message: str, **changes: Any) -> Spy:
    """Expect that a run is refused before it has written anything."""
    spy = Spy()
    with pytest.raises(error, match=message) as caught:
        train(config(folder, **changes), reporter=spy)
    assert caught.value.exit_status == 2
    assert digest(folder / "saved") == {}
    return spy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path, ManyheadsError, r"nowhere\.json", train_file=str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("key", ["train_file", "valid_file"])
def test_an_empty_file_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    path = str(tmp_path / "empty.jsonl")
    refused(tmp_path, DataError, rf"{re.escape(path)}.*", **{key: path})


def test_a_task_without_a_label_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", sentences(6, fields=["label"]))
    refused(tmp_path, DataError, r"task 'ner' has no label: none of 6 records has .*tasks\.ner")


def test_a_task_without_a_validation_label_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(6, fields=["label"]))
    refused(tmp_path, DataError, r"valid\.jsonl: no record has a label for task 'ner'.*tasks\.ner")


@pytest.mark.parametrize("file", ["train", "valid"])
def test_a_label_outside_the_configured_ones_is_named_with_its_place(
    tmp_path: Path, file: str
) -> None:
    tasks = {"intent": {"kind": "classification", "labels": ["question", "order"]}}
    records = [{"text": "do it", "label": "order"}, {"text": "who", "label": "question"}]
    for name in ("train", "valid"):
        extra = [{"text": "it is", "label": "statement"}] if name == file else []
        write_records(tmp_path / f"{name}.jsonl", [*records, *extra])
    message = {
        "train": r"train\.jsonl:3: 'statement' is not a label of the task 'intent'; expected one",
        "valid": r"valid\.jsonl:3: `label` is 'statement', which is not a label of the task",
    }[file]
    refused(tmp_path, DataError, message, tasks=tasks)


def test_validation_labels_that_training_never_saw_are_counted_and_count_as_errors(
    tmp_path: Path,
) -> None:
    new = [{"tokens": ["hey"], "label": "greeting", "ner": ["O"]}] * 3
    new.append({"tokens": ["will", "uno", "eat"], "label": "question", "ner": ["O", "B-ORG", "O"]})
    write_records(tmp_path / "valid.jsonl", [*sentences(4, 2), *new])
    result, spy = run(tmp_path)
    unseen = "never seen in training and counted as errors: "
    assert spy.said(f"{unseen}3 validation labels of task 'classification': greeting (3)")
    assert spy.said(f"{unseen}1 validation label of task 'ner': ORG (1)")
    assert result.history[0]["metrics"]["tasks"]["classification"]["accuracy"] <= 5 / 8


def test_truncated_records_are_counted(tmp_path: Path) -> None:
    long = [{"text": "john " * 40, "label": "statement", "ner": None}]
    records = [*sentences(6, 1), {k: v for k, v in long[0].items() if v}]
    write_records(tmp_path / "train.jsonl", records)
    _, spy = run(tmp_path)
    assert spy.said("longer than 32 sub-tokens: 1 of 7 records; training does not see the last "
                    "10 words in all")  # fmt: skip


def test_an_encoder_that_cannot_be_found_offline_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = "'nobody/no-such-encoder' is not on this machine and the hub cannot be reached.*"
    refused(tmp_path, ModelError, message + "`model_name`", model_name="nobody/no-such-encoder")


def test_a_length_beyond_the_encoders_positions_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, ConfigError, "`max_length` is 65; expected at most 64", max_length=65)


def test_a_second_run_on_a_folder_is_refused(tmp_path: Path) -> None:
    errors = []

    def second(step: int) -> None:
        if step == 2:
            with pytest.raises(RequestError, match="in use by") as caught:
                train(config(tmp_path, seed=3))
            errors.append(caught.value)

    train(config(tmp_path), reporter=Spy(second))
    assert len(errors) == 1
