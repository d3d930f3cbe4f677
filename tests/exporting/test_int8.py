"""int8 graphs of ONNX and OpenVINO: what is converted, and with which sentences."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from graph_outputs import (
    TEXTS,
    assert_equal_outputs,
    batch_of,
    export_graph,
    float_products_of_openvino,
    model_of,
    openvino_model,
)
from manyheads.config import TaskConfig
from manyheads.data.records import Record
from manyheads.errors import RequestError
from manyheads.exporting import export_model
from manyheads.exporting.quantization import SETTINGS, Setting, quantize
from manyheads.inference.backends.pytorch import TorchBackend
from manyheads.modeling import MultiTaskModel, choose_compute
from manyheads.storage import read_manifest
from manyheads.tasks import TaskSpec
from tiny import FAMILIES, tiny_encoder_folder

# --------------------------------------------------------------------------------------- int8


def float_products(graph: onnx.ModelProto) -> int:
    """Products with a weight matrix that are computed in float32."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    return sum(
        node.op_type in ("MatMul", "Gemm", "Attention") and node.input[1] in weights
        for node in graph.graph.node
    )


@pytest.fixture(scope="module")
def deep_graph(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[MultiTaskModel, onnx.ModelProto]:
    """A model of four layers and its fused graph."""
    model = model_of(
        tiny_encoder_folder(tmp_path_factory.mktemp("deep"), layers=4),
        intent=TaskConfig(kind="classification"),
        ner=TaskConfig(kind="tagging", neck="bilstm", neck_size=8),
    )
    return model, export_graph(model)[0]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_int8_settings_convert_the_parts_they_name(
    setting: Setting, deep_graph: tuple[MultiTaskModel, onnx.ModelProto]
) -> None:
    model, graph = deep_graph
    heads, layers, per_layer = 2, 4, 4  # a layer's products: attention, its output, two more
    assert float_products(graph) == heads + layers * per_layer
    small = quantize(graph, setting)
    kept = {
        "all but the embedding table and the last layer": per_layer,
        "all but the embedding table and feed-forward outputs": layers,
        "the first half of the layers, without feed-forward outputs": 2 * per_layer + 2,
    }.get(setting.name, 0)
    assert float_products(small) == heads + kept
    kinds = {n.op_type for n in small.graph.node}
    assert ("EmbedLayerNormalization" in kinds) != setting.embeddings
    assert ("LSTM" in kinds) != setting.necks
    onnxruntime.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_equal_outputs(small, model, TEXTS, tolerance=0.2)


def test_weights_are_quantised_by_channel(tmp_path: Path) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))
    small = quantize(export_graph(model)[0], SETTINGS[3])
    scales = [t for t in small.graph.initializer if "query" in t.name or t.name.endswith("_scale")]
    assert max(int(np.prod(t.dims)) for t in scales) >= 32


# ------------------------------------------------------------------------- static int8, OpenVINO


@pytest.mark.parametrize(
    "model_type",
    [name if name == "bert" else pytest.param(name, marks=pytest.mark.soak) for name in FAMILIES],
)
def test_every_family_converts_to_static_int8(model_type: str, tmp_path: Path) -> None:
    layers = 2
    model = model_of(
        tiny_encoder_folder(tmp_path / "encoder", model_type=model_type, layers=layers),
        intent=TaskConfig(kind="classification"),
        ner=TaskConfig(kind="tagging", neck="bilstm", neck_size=8),
    )
    converted = openvino_model(model, tmp_path / "work")
    from manyheads.exporting.openvino import STATIC_SETTINGS, files_of, quantize_static
    from manyheads.inference.backends.openvino import OpenVinoBackend

    # The first and the last have every option once; the others are left to the soak.
    settings = STATIC_SETTINGS[:: len(STATIC_SETTINGS) - 1]
    settings = settings if model_type == "bert" else STATIC_SETTINGS
    batches = [batch_of(model, [text]) for text in TEXTS]
    per_layer = len(float_products_of_openvino(converted)) // layers
    kept = {
        "everything but the classifiers": 0,
        "everything but the heads": 0,
        "all but the last layer": per_layer,
        "all but feed-forward outputs": layers,
        "the first half of the layers, without feed-forward outputs": per_layer + 1,
    }
    for setting in settings:
        small = quantize_static(converted, batches, setting)
        assert len(float_products_of_openvino(small)) == kept[setting.name], setting.name
        weights: dict[str, set[str]] = {}
        for node in small.get_ordered_ops():
            of = {"MatMul": 1, "LSTMSequence": 4}.get(node.get_type_name())
            if of is not None and "backbone" not in node.get_friendly_name():
                kind = node.input_value(of).get_node().get_type_name()
                weights.setdefault(node.get_type_name(), set()).add(kind)
        # Never a classifier, and the neck only where the setting says so.
        assert weights == {
            "MatMul": {"Constant"},
            "LSTMSequence": {"Multiply" if setting.necks else "Constant"},
        }
        files = files_of(small, "openvino-int8", tmp_path / "work")
        backend = OpenVinoBackend(*files.values(), name="graph", batches=2)
        batch = batch_of(model, TEXTS)
        expected = TorchBackend(model, choose_compute("cpu", "float32", 1)).run(batch)
        found = backend.run(batch)
        for name, values in expected.items():
            mask = batch.word_mask if values.ndim == 3 else slice(None)
            np.testing.assert_allclose(found[name][mask], values[mask], atol=0.3, err_msg=name)
        # Static scales: neither padding nor the others change a sentence's numbers.
        for row, text in enumerate(TEXTS):
            alone = backend.run(batch_of(model, [text]))["embedding"][0]
            np.testing.assert_allclose(found["embedding"][row], alone, atol=1e-4)


def test_export_to_openvino_needs_both_packages(
    best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import manyheads.exporting.openvino as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(RequestError, match=r"needs the package nncf.*\[openvino\]"):
        export_model(best, formats=("openvino",), threads=1)


def test_an_export_to_openvino_is_not_reported_to_its_makers(tmp_path: Path) -> None:
    for name in ("openvino", "nncf", "openvino_telemetry"):
        pytest.importorskip(name)
    # In a process of its own: under pytest, nncf reports nothing anyway.
    script = """
import os, sys
from pathlib import Path
from openvino_telemetry.main import TelemetrySender
sent = []
TelemetrySender.send = lambda self, *arguments: sent.append(arguments)
environment = dict(os.environ)
import numpy as np, onnx
from onnx import TensorProto, helper
from manyheads.exporting.openvino import STATIC_SETTINGS, convert, quantize_static
from manyheads.text import Batch
w = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], np.eye(4, dtype=np.float32).ravel())
nodes = [helper.make_node("Cast", ["input_ids"], ["x"], to=1),
         helper.make_node("MatMul", ["x", "w"], ["y"])]
graph = helper.make_graph(
    nodes, "g", [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4])], [w])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
converted = convert(model, Path(sys.argv[1]))
ids = np.ones((1, 4), np.int64)
batch = Batch(ids, ids, ids, ids.astype(bool))
assert quantize_static(converted, [batch], STATIC_SETTINGS[0])
assert "nncf" in sys.modules and not sent, sent
assert dict(os.environ).get("CI") == environment.get("CI")
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True,
        timeout=300, env={**environment, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_calibration_takes_training_sentences_or_else_those_of_the_gate(
    best: Path, tmp_path: Path
) -> None:
    from manyheads.config import make_config
    from manyheads.exporting import calibration_batches
    from manyheads.inference.backends import pytorch

    trained = pytorch.load_trained(best)
    specs = [TaskSpec.from_json(task) for task in read_manifest(best).tasks]
    config = make_config(read_manifest(best).config)
    gate = [([Record(text, None, {}, "") for text in ("John is here", "x")], ("intent", "ner"))]

    def count(config: Any, model: Path = best) -> int:
        return len(calibration_batches(config, specs, gate, model, trained.tokenizer, 32))

    assert count(config) == 120
    gone = config.model_copy(update={"train_file": str(tmp_path / "gone.jsonl")})
    assert count(gone) == 2
    # A model may come from anywhere: what its configuration names is not opened anywhere.
    assert count(config, tmp_path / "a/b/best") == 2
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"text": "John is', encoding="utf-8")
    assert count(config.model_copy(update={"train_file": str(damaged)})) == 2
