"""A model's graphs beside the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from manyheads.exporting.graph import Fusions, fuse_graph, trace_graph
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.backends.pytorch import TorchBackend
from manyheads.modeling import MultiTaskModel, choose_compute
from manyheads.text import Batch, TextTokenizer, pad_batch, windows

TEXTS = [
    "John lives in Paris",
    "will Mary eat in Rome ?",
    "the weather in London was very bad yesterday, and the rain in York, too, was not good",
    "x",
]


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
