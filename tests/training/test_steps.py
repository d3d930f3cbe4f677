"""The batches, losses and gradients of steps, for every schedule."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training_setup
from manyheads.modeling import ModelInputs
from manyheads.training import Run, forward_backward
from manyheads.training.data import Dataset, Schedule, Step, TaskTargets, plan_epoch
from training_setup import (
    config,
    encoder_calls,
    log_lines,
    run,
    sentences,
    write_records,
)


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


def prepared(folder: Path, **changes: Any) -> Run:
    """A run that has not started."""
    return training_setup.prepared(config(folder, **changes))


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


def rows_of(calls: list[Tensor]) -> Counter[tuple[int, ...]]:
    """Count the sentences in some batches, by their sub-tokens."""
    return Counter(
        tuple(int(i) for i in row if i != 0) for batch in calls for row in batch.tolist()
    )


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_every_record_of_every_task_is_seen_once_an_epoch(tmp_path: Path, batch_size: int) -> None:
    with encoder_calls(training_only=True) as calls:
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


def test_together_every_step_trains_all_tasks(tmp_path: Path) -> None:
    with encoder_calls(training_only=True) as calls:
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


def test_joint_training_encodes_a_batch_once_for_all_tasks(tmp_path: Path) -> None:
    with encoder_calls(training_only=True) as calls:
        _, spy = run(tmp_path, schedule="joint")
    assert sum(len(batch) for batch in calls) == 14
    assert len(calls) == len(spy.turns) == spy.total_steps == 4
    assert Counter(task for task, _ in spy.losses) == {"classification": 4, "ner": 4}


def test_joint_training_learns_from_partly_labelled_records(tmp_path: Path) -> None:
    write_records(tmp_path / "partial.jsonl", partial_records())
    with encoder_calls(training_only=True) as calls:
        run(tmp_path, schedule="joint", train_file=str(tmp_path / "partial.jsonl"))
    assert sum(len(batch) for batch in calls) == 12


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_joint_loss_is_logged_as_its_mean_over_the_steps_that_have_labels_for_it(
    tmp_path: Path, accumulation: int
) -> None:
    records = sentences(12, 7)
    for record in records[:11]:
        del record["ner"]
    write_records(tmp_path / "few.jsonl", records)
    tasks = {"ner": {"kind": "tagging"}, "intent": {"kind": "classification"}}
    result, spy = run(
        tmp_path, schedule="joint", train_file=str(tmp_path / "few.jsonl"), tasks=tasks,
        batch_size=2, gradient_accumulation=accumulation, num_epochs=2,
    )  # fmt: skip
    steps = 6 // accumulation
    found = [loss for task, loss in spy.losses if task == "ner"]
    assert len(found) == 2
    assert [epoch["loss"]["ner"] for epoch in result.history] == found
    lines = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    assert [line["loss"]["ner"] for line in lines if "ner" in line["loss"]] == found
    # Each step counts once, whether its first task has labels or not.
    assert Counter(spy.turns) == {"ner": 2, "intent": 2 * steps - 2}
    assert spy.sentences == {"ner": 4 * accumulation, "intent": 24}


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


def test_the_reported_tokens_are_those_of_both_texts_of_pairs(tmp_path: Path) -> None:
    records = [
        {"text": "john eats", "text2": f"in paris {'x ' * i}", "same": "yn"[i % 2]}
        for i in range(6)
    ]
    file = str(write_records(tmp_path / "pairs.jsonl", records))
    changes: dict[str, Any] = {
        "train_file": file,
        "valid_file": file,
        "tasks": {"same": {"kind": "pair", "field": "same"}},
    }
    [dataset] = prepared(tmp_path, **changes).data.datasets
    _, spy = run(tmp_path, num_epochs=1, **changes)
    assert spy.tokens == {"same": len(dataset.tokens.values)}
