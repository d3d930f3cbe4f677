"""Smoothing moves large channels into weights: the graph computes the same, and int8 loses less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from graph_outputs import TEXTS, assert_equal_outputs, batch_of, export_graph
from manyheads.config import TaskConfig
from manyheads.exporting.quantization import Setting, quantize
from manyheads.exporting.smoothing import smooth
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.modeling import Encoder, MultiTaskModel, find_encoder, make_head
from manyheads.tasks import LabelSet, Scheme, TagSet
from tiny import FAMILIES, tiny_encoder_folder

TAGS = TagSet(("O", "B-LOC", "I-LOC"), Scheme.BIO)
CLASSES = LabelSet(("question", "statement"))


def model_with_large_channels(
    folder: Path, places: tuple[str, ...] = ("norm", "gelu"), **ner: Any
) -> MultiTaskModel:
    """A model in which one channel of each normalisation, and one behind each GELU, is large."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = Encoder.from_source(find_encoder(str(folder)))
    with torch.no_grad():
        for name, weight in encoder.backbone.named_parameters():
            of_norm = (
                "norm" in name.lower() and "embeddings" not in name and name.endswith("weight")
            )
            if "norm" in places and weight.dim() == 1 and of_norm:
                weight[3] *= 8
            if "gelu" in places and name.endswith(("intermediate.dense.bias", "lin1.bias")):
                weight[5] += 20
    heads = {"intent": (TaskConfig(kind="classification"), CLASSES)}
    heads["ner"] = (TaskConfig(kind="tagging", **ner), TAGS)
    made = {name: make_head(task, known, encoder.shape) for name, (task, known) in heads.items()}
    return MultiTaskModel(encoder, made).eval()


def products_of(graph: onnx.ModelProto, kind: str) -> list[str]:
    """Return the first input of each product that has a weight, by the kind of its source."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    sources = {name: node.op_type for node in graph.graph.node for name in node.output}
    return [
        node.input[0]
        for node in graph.graph.node
        if node.op_type in ("MatMul", "Attention")
        and node.input[1] in weights
        and sources.get(node.input[0]) == kind
    ]


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("ner", [{}, {"reads": "mix", "neck": "bilstm", "neck_size": 8}])
def test_a_smoothed_graph_computes_the_same(
    model_type: str, ner: dict[str, Any], tmp_path: Path
) -> None:
    model = model_with_large_channels(tiny_encoder_folder(tmp_path, model_type=model_type), **ner)
    graph, _ = export_graph(model)
    before = graph.SerializeToString()
    smoothed = smooth(graph, [batch_of(model, [text]) for text in TEXTS])
    assert graph.SerializeToString() == before
    onnx.checker.check_model(smoothed)
    # Larger channels have larger rounding errors.
    assert_equal_outputs(smoothed, model, TEXTS, tolerance=1e-3)
    assert_equal_outputs(smoothed, model, TEXTS[1:2] * 3, tolerance=1e-3)


@pytest.mark.parametrize("place", ["norm", "gelu"])
def test_int8_is_closer_to_float32_after_smoothing(place: str, tmp_path: Path) -> None:
    model = model_with_large_channels(tiny_encoder_folder(tmp_path), (place,))
    with torch.no_grad():  # as in trained encoders, what reads a large channel has small weights
        for layer in model.encoder.backbone.encoder.layer:
            attention = layer.attention.self
            inner = layer.intermediate.dense
            for product in (attention.query, attention.key, attention.value, inner):
                product.weight[:, 3] /= 8
            layer.output.dense.weight[:, 5] /= 20
    graph, _ = export_graph(model)
    batch = batch_of(model, TEXTS)
    smoothed = smooth(graph, [batch_of(model, [text]) for text in TEXTS])
    setting = Setting("the transformer's products", embeddings=False)

    def run(graph: onnx.ModelProto) -> Any:
        backend = OnnxBackend(graph.SerializeToString(), threads=1, name="graph")
        return backend.run(batch)["ner"][batch.word_mask]

    def error(graph: onnx.ModelProto) -> float:
        return float(np.square(run(quantize(graph, setting)) - run(graph)).mean())

    assert error(smoothed) < error(graph) / 2


def test_only_large_channels_behind_a_gelu_take_an_operator(tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path, layers=2)
    large, _ = export_graph(model_with_large_channels(folder))
    model = model_with_large_channels(folder)
    with torch.no_grad():
        for layer in model.encoder.backbone.encoder.layer:
            layer.intermediate.dense.weight.zero_()
            layer.intermediate.dense.bias.fill_(1)  # all channels have the same range
    even, _ = export_graph(model)
    batches = [batch_of(model, [text]) for text in TEXTS]
    assert len(products_of(smooth(large, batches), "Mul")) == 2
    assert products_of(smooth(even, batches), "Mul") == []
    assert len(products_of(smooth(even, batches), "Gelu")) == 2


def test_a_graph_without_sentences_to_measure_stays_as_it_is(tmp_path: Path) -> None:
    graph, _ = export_graph(model_with_large_channels(tiny_encoder_folder(tmp_path)))
    assert smooth(graph, []) == graph


def test_padding_does_not_coarsen_the_products_of_int8(tmp_path: Path) -> None:
    model = model_with_large_channels(tiny_encoder_folder(tmp_path), ())
    vectors = model.encoder.backbone.embeddings.word_embeddings.weight
    with torch.no_grad():  # as in trained encoders, the values of padding are the largest
        vectors[model.encoder.pad_id] = 0
        vectors[model.encoder.pad_id, 3] = 1000
    graph, _ = export_graph(model)
    quantized = quantize(graph, Setting("the transformer's products", embeddings=False))
    alone = batch_of(model, [TEXTS[0]])
    words = alone.word_mask.shape[1]
    # The other sentence makes room for padding, and has the same words.
    batch = batch_of(model, [TEXTS[0], " ".join([TEXTS[0]] * 4)])

    def tags(graph: onnx.ModelProto, int8: bool) -> Any:
        backend = OnnxBackend(graph.SerializeToString(), threads=1, name="graph", int8=int8)
        return backend.run(batch)["ner"][0, :words]

    exact = tags(graph, int8=False)
    errors = [float(np.square(tags(quantized, int8) - exact).mean()) for int8 in (True, False)]
    assert errors[0] < errors[1] / 2
