"""The output of a frozen encoder is computed once, without any effect on results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import training_setup
from equal_runs import assert_equal, assert_resumes, weights
from manyheads.errors import ConfigError
from manyheads.evaluation import Reference
from manyheads.training import Run
from manyheads.training.activation_cache import ActivationCache
from training_setup import config, encoder_calls, encoder_folder, run

FAMILIES = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta", "modernbert")

LINEAR: Mapping[str, Any] = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging"}}
SENTENCE: Mapping[str, Any] = {"intent": {"kind": "classification", "hidden": 8}}
POOLED: Mapping[str, Any] = {
    "intent": {"kind": "classification", "pooling": ["sentence", "max", "attention"]},
    "ner": {
        "kind": "tagging", "neck": "bilstm", "neck_size": 8, "decoder": "crf",
        "word_features": "on",
    },
}  # fmt: skip
MIXED: Mapping[str, Any] = {
    "intent": {"kind": "classification"},
    "ner": {"kind": "tagging", "reads": "mix", "neck": "transformer", "neck_size": 8},
}


@pytest.fixture
def passes() -> Iterator[list[Tensor]]:
    """Record the sentences of every pass of the encoder."""
    with encoder_calls() as calls:
        yield calls


def prepared(folder: Path, **changes: Any) -> Run:
    return training_setup.prepared(config(folder, **{"freeze": "encoder", **changes}))


def activations(prepared_run: Run) -> ActivationCache:
    assert isinstance(prepared_run.reader, ActivationCache)
    return prepared_run.reader


@pytest.mark.parametrize("freeze", ["encoder", "layers:1"])
@pytest.mark.parametrize(
    ("tasks", "precision"),
    [
        (LINEAR, "float32"),
        (SENTENCE, "float32"),
        (POOLED, "float32"),
        (MIXED, "float32"),
        (LINEAR, "bf16"),
        (MIXED, "bf16"),
    ],
)
def test_training_is_the_same_with_and_without_the_cache(
    tmp_path: Path, tasks: Mapping[str, Any], precision: str, freeze: str
) -> None:
    # The tuned layers have no dropout here: it would draw for a different number of elements.
    changes = {"freeze": freeze, "tasks": tasks, "num_epochs": 2, "precision": precision}
    kept, kept_spy = run(tmp_path / "kept", **changes)
    anew, anew_spy = run(tmp_path / "anew", cache_activations="off", **changes)
    tolerance = 2e-4 if precision == "float32" else 2e-2
    losses = [[loss for _, loss in spy.losses] for spy in (kept_spy, anew_spy)]
    np.testing.assert_allclose(*losses, rtol=tolerance, atol=tolerance)
    one, other = (weights(r.save_dir, 2) for r in (kept, anew))
    for name, values in one.items():
        assert torch.allclose(values, other[name], rtol=0.02, atol=10 * tolerance), name
    assert kept.history[-1]["metrics"]["drift"] == anew.history[-1]["metrics"]["drift"]


def test_the_encoder_reads_each_sentence_once_in_all_epochs(
    tmp_path: Path, passes: list[Tensor]
) -> None:
    prepare, read = 8, []
    for epochs in (1, 4):
        passes.clear()
        run(tmp_path / str(epochs), freeze="encoder", tasks=LINEAR, num_epochs=epochs)
        read.append(sum(map(len, passes)))
    assert read[0] == read[1]
    assert read[0] >= 14 + prepare


def test_frozen_layers_run_once_per_sentence_and_those_above_each_time(
    tmp_path: Path, passes: list[Tensor]
) -> None:
    read = []
    for epochs in (1, 4):
        passes.clear()
        result, _ = run(tmp_path / str(epochs), freeze="layers:1", tasks=LINEAR, num_epochs=epochs)
        read.append(sum(map(len, passes)))
    # What remains is the measurement of the embedding's drift.
    assert result.history[-1]["metrics"]["drift"]["cosine"] < 1
    assert read[0] == read[1]


def test_without_the_cache_the_encoder_reads_sentences_each_time(
    tmp_path: Path, passes: list[Tensor]
) -> None:
    run(tmp_path, freeze="encoder", tasks=LINEAR, num_epochs=4, cache_activations="off")
    assert sum(map(len, passes)) > 4 * 14


@pytest.mark.parametrize("freeze", ["none", "embeddings"])
def test_nothing_is_cached_if_little_is_frozen(tmp_path: Path, freeze: str) -> None:
    assert not isinstance(prepared(tmp_path, freeze=freeze).reader, ActivationCache)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("tasks", [LINEAR, POOLED, MIXED])
@pytest.mark.parametrize(
    "frozen",
    [
        {}, {"freeze": "layers:1"}, {"head_layers": 2},
        {"freeze": "layers:1", "keep_embeddings": 1, "head_layers": 2},
    ],
    ids=str,
)  # fmt: skip
def test_cached_activations_are_the_encoders_outputs(
    tmp_path: Path, model_type: str, tasks: Mapping[str, Any], frozen: dict[str, Any]
) -> None:
    made = prepared(tmp_path, tasks=tasks, model_name=str(encoder_folder(model_type)), **frozen)
    rows = np.array([3, 11, 0, 7])
    inputs = made.data.datasets[0].inputs(rows, made.model.encoder.pad_id)
    model = made.model.eval()
    kept = activations(made)
    with torch.no_grad():
        expected = model(inputs)
        for batch in (kept.training_batch(0, rows), kept.evaluated_batch(inputs)):
            found = model.answers(kept.features(batch), model.answering)
            for name, values in expected.items():
                if name == "ner":  # what a head says of padding means nothing
                    values, found[name] = (v[inputs.word_mask] for v in (values, found[name]))
                assert torch.allclose(values, found[name], atol=1e-5), name


def test_only_what_the_heads_read_is_cached(tmp_path: Path) -> None:
    sizes = {}
    for name, tasks in (("sentence", SENTENCE), ("words", LINEAR), ("tokens", POOLED),
                        ("layers", MIXED)):  # fmt: skip
        made = prepared(tmp_path, tasks=tasks)
        batch = activations(made).training_batch(0, np.arange(2))
        longest = max(s.shape[1] for s in batch.states.values()) if batch.states else 0
        sizes[name] = (len(batch.states), longest)
        words = made.data.datasets[0].words.lengths_of(np.arange(2)).max()
        tokens = made.data.datasets[0].tokens.lengths_of(np.arange(2)).max()
    layers = made.model.encoder.shape.num_layers + 1
    assert sizes == {
        "sentence": (0, 0), "words": (1, words), "tokens": (1, tokens), "layers": (layers, words),
    }  # fmt: skip


def test_a_sentences_activations_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    rows = np.arange(14)
    one, other = (activations(prepared(tmp_path, tasks=LINEAR)) for _ in range(2))
    for row in np.random.default_rng(0).permutation(rows):
        other.training_batch(0, np.array([row]))
    first, second = (each.training_batch(0, rows) for each in (one, other))
    assert torch.equal(first.sentence, second.sentence)
    for number, state in first.states.items():
        assert torch.equal(state, second.states[number])


def test_activations_beyond_the_memory_limit_are_mapped_from_disk(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"freeze": "encoder", "tasks": MIXED, "num_epochs": 2}
    results = [
        run(tmp_path / str(limit), cache_memory=limit, **changes)[0].save_dir for limit in (100, 0)
    ]
    in_memory, mapped = (weights(path, 2) for path in results)
    assert_equal(in_memory, mapped)


@pytest.mark.parametrize("freeze", ["encoder", "layers:1"])
def test_a_stopped_run_resumes_bit_for_bit(tmp_path: Path, freeze: str) -> None:
    changes = {"freeze": freeze, "tasks": POOLED, "num_epochs": 3, "precision": "bf16"}
    whole, parts = (
        config(tmp_path / name, checkpoint_every=2, **changes) for name in ("whole", "parts")
    )
    assert_resumes(whole, parts, 2, 4)


def test_the_cache_is_freed_when_the_first_layer_is_unfrozen(tmp_path: Path) -> None:
    made = prepared(tmp_path, unfreeze_every=2)
    seen = []
    for step in range(4):
        made.go_to(step)
        seen.append(isinstance(made.reader, ActivationCache))
    assert seen == [True, True, False, False]


@pytest.mark.parametrize(("step", "kept"), [(1, True), (2, True), (3, False)])
def test_a_resumed_run_evaluates_the_model_of_its_last_step(
    tmp_path: Path, step: int, kept: bool
) -> None:
    made = prepared(tmp_path, unfreeze_every=2)
    made.state.step = step
    contents = made.contents()
    made.restore(contents)
    assert isinstance(made.reader, ActivationCache) == kept


def test_unfreezing_with_and_without_the_cache_makes_the_same_model(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"freeze": "encoder", "unfreeze_every": "1e", "num_epochs": 3}
    kept, _ = run(tmp_path / "kept", tasks=POOLED, **changes)
    anew, _ = run(tmp_path / "anew", tasks=POOLED, cache_activations="off", **changes)
    for one, other in zip(kept.history, anew.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["metrics"]["drift"] == pytest.approx(other["metrics"]["drift"], abs=1e-3)


@pytest.mark.parametrize("option", [{"cache_activations": "off"}, {"cache_memory": 5}])
def test_an_option_of_the_cache_needs_something_frozen(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(option))}`.*`freeze` is 'none'"):
        config(tmp_path, **option)


def test_the_drift_of_a_frozen_encoder_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    drift = Reference.drift

    def counted(self: Reference, *args: Any) -> Any:
        measured.append(1)
        return drift(self, *args)

    monkeypatch.setattr(Reference, "drift", counted)
    for freeze, times in (("encoder", 1), ("none", 3)):
        measured.clear()
        result, _ = run(tmp_path / freeze, freeze=freeze, num_epochs=3)
        assert len(measured) == times
        assert all("drift" in epoch["metrics"] for epoch in result.history)
