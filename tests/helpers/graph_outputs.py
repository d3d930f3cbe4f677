"""A model's graphs beside the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from manyheads.config import TaskConfig
from manyheads.exporting.graph import Fusions, fuse_graph, trace_graph
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.backends.pytorch import TorchBackend
from manyheads.modeling import Encoder, MultiTaskModel, choose_compute, find_encoder, make_head
from manyheads.tasks import LabelSet, Scheme, TagSet
from manyheads.text import Batch, TextTokenizer, pad_batch, windows

TEXTS = [
    "John lives in Paris",
    "will Mary eat in Rome ?",
    "the weather in London was very bad yesterday, and the rain in York, too, was not good",
    "x",
]
TAGS = TagSet(("O", "B-LOC", "I-LOC", "B-PER", "I-PER"), Scheme.BIO)
CLASSES = LabelSet(("question", "statement", "order"))


def model_of(folder: Path, **heads: TaskConfig) -> MultiTaskModel:
    """A model with random heads on the encoder in `folder`."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    encoder = Encoder.from_source(find_encoder(str(folder)))
    return MultiTaskModel(
        encoder,
        {
            name: make_head(task, TAGS if task.kind == "tagging" else CLASSES, encoder.shape)
            for name, task in heads.items()
        },
    ).eval()


def export_graph(model: MultiTaskModel) -> tuple[onnx.ModelProto, Fusions]:
    """Export a model to one optimised float32 graph."""
    return fuse_graph(trace_graph(model), model)


def batch_of(model: MultiTaskModel, texts: list[str], max_length: int = 32) -> Batch:
    tokenizer = TextTokenizer.from_json(model.encoder.tokenizer_json)
    tokenizer = tokenizer.with_word_features(model.reads_word_features)
    parts = [windows(e, max_length, 0)[0] for e in tokenizer.encode_batch(texts)]
    return pad_batch(parts, model.encoder.pad_id)


def assert_equal_outputs(
    graph: onnx.ModelProto, model: MultiTaskModel, texts: list[str], tolerance: float = 1e-5
) -> None:
    """Assert that graph and model agree everywhere except on padding."""
    backend = OnnxBackend(graph.SerializeToString(), threads=1, name="graph")
    batch = batch_of(model, texts)
    expected = TorchBackend(model, choose_compute("cpu", "float32", 1)).run(batch)
    found = backend.run(batch)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        mask = batch.word_mask if values.ndim == 3 else slice(None)
        np.testing.assert_allclose(found[name][mask], values[mask], atol=tolerance, err_msg=name)


def openvino_model(model: MultiTaskModel, folder: Path) -> Any:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    from manyheads.exporting.openvino import convert

    folder.mkdir()
    return convert(trace_graph(model), folder)


def float_products_of_openvino(model: Any) -> list[str]:
    """Return the encoder's products whose weight is float32."""
    from manyheads.exporting.openvino import products

    return [product.name for product in products(model)]


class Broken:
    """A backend with the same wrong answer for every sentence."""

    name = "broken"

    def __init__(self, inner: OnnxBackend, task: str) -> None:
        self.inner, self.task = inner, task

    def run(self, batch: Batch) -> Mapping[str, Any]:
        outputs = dict(self.inner.run(batch))
        outputs[self.task] = -outputs[self.task]
        return outputs
