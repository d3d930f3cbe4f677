"""The heads train a copy of the encoder's upper layers; the encoder does not change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

import training_setup
from equal_runs import assert_equal, assert_resumes, hard_config, weights
from graph_outputs import (
    TEXTS,
    assert_equal_outputs,
    batch_of,
    export_graph,
    float_products_of_openvino,
    openvino_model,
)
from manyheads.api import load
from manyheads.config import Config, load_config
from manyheads.errors import ConfigError, ModelError
from manyheads.exporting.openvino import StaticSetting, quantize_static
from manyheads.exporting.quantization import SETTINGS, Setting, quantize
from manyheads.modeling import (
    Encoder,
    HeadLayers,
    MultiTaskModel,
    epoch_path,
    find_encoder,
    load_model_folder,
    make_head_layers,
    save_model_folder,
)
from manyheads.tasks import EMBEDDING
from manyheads.training import Run
from tiny import FAMILIES
from tiny_models import TASKS, make_inputs, make_model
from training_setup import config, encoder_calls, encoder_folder, run

LAYERS = 2
OWN: Mapping[str, Any] = {"freeze": "encoder", "head_layers": 1}
MIXED: Mapping[str, Any] = {
    "intent": {"kind": "classification", "pooling": ["sentence", "max"]},
    "ner": {"kind": "tagging", "reads": "mix"},
}


def encoder(model_type: str = "bert") -> Encoder:
    return Encoder.from_source(find_encoder(str(encoder_folder(model_type)), "auto")).eval()


def with_own_layers(model: MultiTaskModel, count: int) -> MultiTaskModel:
    heads = {name: model.head(name) for name in model.heads}
    return MultiTaskModel(model.encoder, heads, HeadLayers(model.encoder, count)).eval()


def shake(model: MultiTaskModel) -> None:
    """Make the heads' layers differ from the encoder's, as training does."""
    torch.manual_seed(1)
    assert model.head_layers is not None
    with torch.no_grad():
        for parameter in model.head_layers.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def prepared(folder: Path, **changes: Any) -> Run:
    return training_setup.prepared(config(folder, **OWN | changes))


@pytest.mark.parametrize("count", [1, LAYERS])
@pytest.mark.parametrize("mixing", [[], ["ner", "intent"]])
def test_before_training_the_heads_read_the_same_as_from_the_encoder(
    count: int, mixing: list[str]
) -> None:
    plain = make_model(mixing)
    expected = plain(make_inputs())
    own = with_own_layers(plain, count)
    assert_equal(own(make_inputs()), expected)
    shake(own)
    changed = own(make_inputs())
    assert torch.equal(changed[EMBEDDING], expected[EMBEDDING])
    for task in plain.heads:
        assert not torch.allclose(changed[task], expected[task], atol=1e-3), task


def test_for_the_embedding_alone_they_do_not_run() -> None:
    model = with_own_layers(make_model(), 1)
    assert model.head_layers is not None
    model.head_layers.register_forward_hook(lambda *_: pytest.fail("they ran"))
    assert list(model(make_inputs(), [])) == [EMBEDDING]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_they_are_trained_and_the_encoder_is_not(tmp_path: Path, model_type: str) -> None:
    changes = {**OWN, "model_name": str(encoder_folder(model_type)), "weight_decay": 0.1}
    untrained = prepared(tmp_path, **changes).model
    before = {name: value.clone() for name, value in untrained.named_parameters()}
    result, spy = run(tmp_path, **changes)
    after = weights(result.save_dir)
    for name, value in before.items():
        assert torch.equal(value, after[name]) == name.startswith("encoder."), name
    assert any(name.startswith("head_layers.") for name in before)
    trained = sum(v.numel() for n, v in before.items() if not n.startswith("encoder."))
    assert spy.said(f"Training {trained:,} of ")
    assert spy.history[0]["metrics"]["drift"]["cosine"] == pytest.approx(1.0)


def test_they_have_the_encoders_learning_rate(tmp_path: Path) -> None:
    made = prepared(tmp_path, learning_rate=1e-4, head_learning_rate=1e-2)
    rates = {
        name.partition(".")[0]: group["peak_lr"]
        for group in made.optimizer.param_groups
        for name in group["names"]
    }
    assert rates == {"head_layers": 1e-4, "heads": 1e-2}


@pytest.mark.parametrize("settings", [{"keep_embeddings": 1}, {"pairs": True}], ids=str)
def test_the_encoder_can_be_tuned_for_its_embedding(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {"head_layers": 1, "keep_embeddings": settings.get("keep_embeddings")}
    if "pairs" in settings:
        path = tmp_path / "pairs.csv"
        path.write_text("text,text2,score\na,b,0.1\njohn,mary,0.9\nin,at,0.5\n", encoding="utf-8")
        files = {"train_file": str(path), "valid_file": str(path)}
        changes["tasks"] = {
            "intent": {"kind": "classification"}, "pairs": {"kind": "similarity", **files},
        }  # fmt: skip
    made = config(tmp_path, num_epochs=2, **changes)
    before = training_setup.prepared(made).model
    after = weights(run(tmp_path, num_epochs=2, **changes)[0].save_dir, 2)
    for name, value in before.named_parameters():
        assert torch.equal(value, after[name]) == (".pooler." in name), name


@pytest.mark.parametrize(
    ("count", "tasks"), [(1, None), (1, MIXED), (LAYERS, MIXED)], ids=["last", "mixed", "all"]
)
def test_the_layers_below_run_once_per_sentence(
    tmp_path: Path, tasks: Mapping[str, Any] | None, count: int
) -> None:
    changes = {**OWN, "head_layers": count, **({} if tasks is None else {"tasks": tasks})}
    found = []
    for cache in ("auto", "off"):
        passes = []
        for epochs in (1, 2):
            folder = tmp_path / f"{cache}-{epochs}"
            with encoder_calls() as calls:
                _, spy = run(folder, num_epochs=epochs, cache_activations=cache, **changes)
            passes.append(sum(map(len, calls)))
        assert (passes[0] == passes[1]) is (cache == "auto")
        found.append([loss for _, loss in spy.losses])
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3)


def test_a_killed_and_resumed_run_makes_a_bit_identical_model(tmp_path: Path) -> None:
    changes = {**OWN, "checkpoint_every": 2}
    whole, killed = (hard_config(tmp_path / name, **changes) for name in ("whole", "killed"))
    assert_resumes(whole, killed, 4)


def test_folder_and_checkpoint_predict_the_same_and_the_embedding_is_the_encoders(
    tmp_path: Path,
) -> None:
    from sentence_transformers import SentenceTransformer

    result, _ = run(tmp_path, num_epochs=2, **OWN)
    paths = (result.best, epoch_path(result.save_dir, result.best_epoch))
    answers = [load(path).predict(TEXTS, embed=True) for path in paths]
    assert [p.to_json() for p in answers[0]] == [p.to_json() for p in answers[1]]
    ours = np.stack([p.embedding for p in answers[0]])
    model = SentenceTransformer(str(result.best), device="cpu")
    np.testing.assert_allclose(model.encode(TEXTS), ours, atol=1e-5)
    original = encoder().backbone.state_dict()
    for name, value in load_file(result.best / "model.safetensors").items():
        assert torch.equal(value, original[name]), name


# RoBERTa's layers are BERT's.
@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet", "modernbert"])
def test_they_are_fused_and_quantised_in_the_graph(model_type: str) -> None:
    made = encoder(model_type)
    heads = {name: make_model().head(name) for name in TASKS}
    model = MultiTaskModel(made, heads, HeadLayers(made, 1)).eval()
    shake(model)
    graph, fusions = export_graph(model)
    assert fusions.gelu == LAYERS + 1
    assert fusions.layer_norm == 2 * (LAYERS + 1) + 1 + (model_type == "modernbert")
    assert fusions.attention == (0 if model_type in ("mpnet", "modernbert") else LAYERS + 1)
    for texts in (TEXTS, TEXTS[:1]):
        assert_equal_outputs(graph, model, texts)
    plain, _ = export_graph(MultiTaskModel(made, heads).eval())
    assert int8_products(graph) - int8_products(plain) == int8_products(plain) // LAYERS


def int8_products(graph: onnx.ModelProto) -> int:
    nodes = quantize(graph, SETTINGS[1]).graph.node
    return sum(node.op_type in ("MatMulInteger", "QAttention") for node in nodes)


@pytest.mark.parametrize(
    ("form", "float_layers", "kept"),
    [("onnx", 1e-9, {"backbone": {3}, "head_layers": {1}}),
     ("onnx", 0.5, {"backbone": {2, 3}, "head_layers": {0, 1}}),
     ("openvino", 0.5, {"backbone": {2, 3}, "head_layers": {0, 1}})],
)  # fmt: skip
def test_the_layers_that_stay_float_are_the_last_of_both_branches(
    form: str, float_layers: float, kept: dict[str, set[int]], tmp_path: Path
) -> None:
    made = Encoder.from_source(find_encoder(str(encoder_folder(layers=4)), "auto")).eval()
    heads = {name: make_model().head(name) for name in TASKS}
    model = MultiTaskModel(made, heads, HeadLayers(made, 2)).eval()
    shake(model)
    if form == "onnx":
        setting = Setting("", float_layers=float_layers)
        names = [node.name for node in quantize(export_graph(model)[0], setting).graph.node
                 if node.op_type == "MatMul"]  # fmt: skip
    else:
        names = float_products_of_openvino(
            quantize_static(
                openvino_model(model, tmp_path / "work"),
                [batch_of(model, TEXTS[:1])],
                StaticSetting("", float_layers=float_layers),
            )
        )
    found = re.findall(
        r"/model/.*?(backbone|head_layers)/.*?layer\.(\d)/\w+/.*MatMul", " \n".join(names)
    )
    for branch, layers in kept.items():
        assert {int(layer) for one, layer in found if one == branch} == layers
    # The products outside of the fused attention: its output and two of the feed-forward block.
    each = 3 if form == "onnx" else 6
    assert len(found) == each * sum(map(len, kept.values()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head_layers": 2}, r"`head_layers` is 2, so the encoder's own.*keep_embeddings"),
        (
            {"head_layers": 2, "freeze": "encoder", "unfreeze_every": 10},
            r"`head_layers` is 2, so the encoder's own",
        ),
        (
            {"head_layers": 2, "keep_embeddings": 1, "lora": 4},
            r"`head_layers` and `lora` are both set",
        ),
        ({"head_layers": 0, "freeze": "encoder"}, r"`head_layers` is 0.*at least 1"),
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, values)


def test_more_layers_than_there_are_is_refused() -> None:
    settings: Config = load_config(None, {"freeze": "encoder", "head_layers": 3})
    with pytest.raises(ConfigError, match=r"`head_layers` is 3.*at most 2"):
        make_head_layers(settings, encoder())


@pytest.mark.parametrize(
    ("stored", "message"), [(2, "lacks"), (None, "unexpected"), (9, "at most 2")]
)
def test_a_folder_whose_configuration_disagrees_is_refused(
    tmp_path: Path, stored: int | None, message: str
) -> None:
    result, _ = run(tmp_path, **OWN)
    contents = load_model_folder(result.best)
    settings = {**contents.config, "head_layers": stored}
    save_model_folder(result.best, replace(contents, config=settings))
    with pytest.raises((ModelError, ConfigError), match=message):
        load(result.best)
