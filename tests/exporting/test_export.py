"""Exported graphs are fused and equal to the trained model, or not used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from graph_outputs import (
    TEXTS,
    assert_equal_outputs,
    batch_of,
    export_graph,
    float_products_of_openvino,
    openvino_model,
)
from manyheads.cli import main
from manyheads.config import TaskConfig
from manyheads.data.readers import Layout
from manyheads.data.records import Record
from manyheads.errors import DataError, ModelError, RequestError
from manyheads.exporting import Gate, GateReport, export_model
from manyheads.exporting import graph as graph_module
from manyheads.exporting.graph import (
    count_fusions,
    expected_fusions,
)
from manyheads.exporting.quantization import SETTINGS, Setting, quantize
from manyheads.inference import GRAPHS, Runtime, exported_backends, load_exported, report_name
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.backends.pytorch import TorchBackend
from manyheads.modeling import (
    Encoder,
    MultiTaskModel,
    choose_compute,
    find_encoder,
    make_head,
    task_specs,
)
from manyheads.storage import LAYOUT, add_files, read_manifest
from manyheads.tasks import LabelSet, Scheme, TagSet, TaskSpec
from manyheads.text import Batch
from tiny import FAMILIES, tiny_encoder_folder
from training_setup import run, sentences, write_records

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


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_exports_to_a_fused_graph_that_computes_the_same(
    model_type: str, tmp_path: Path
) -> None:
    folder = tiny_encoder_folder(tmp_path, model_type=model_type)
    model = model_of(
        folder, intent=TaskConfig(kind="classification"), ner=TaskConfig(kind="tagging")
    )
    graph, fusions = export_graph(model)
    layers = model.encoder.shape.num_layers
    assert fusions == count_fusions(graph)
    assert fusions.gelu == layers
    assert fusions.layer_norm == 2 * layers + 1
    assert fusions.attention == (0 if model_type in ("mpnet", "modernbert") else layers)
    # Other numbers of sentences, tokens and words than the graph was traced with.
    for texts in (TEXTS, TEXTS[:1], TEXTS[3:], TEXTS[1:2] * 5):
        assert_equal_outputs(graph, model, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"neck": "bilstm", "neck_size": 8},
        {"neck": "transformer", "neck_size": 32},
        {"reads": "mix"},
        {"decoder": "crf"},
        {"word_features": "on"},
    ],
)
def test_heads_of_every_form_are_in_the_graph(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path)
    model = model_of(
        folder,
        ner=TaskConfig(kind="tagging", **changes),
        topic=TaskConfig(kind="classification", hidden=8, pooling=["attention", "middle"]),
        flags=TaskConfig(kind="multilabel"),
    )
    graph, fusions = export_graph(model)
    assert fusions.gelu >= expected_fusions(model).gelu > model.encoder.shape.num_layers
    assert_equal_outputs(graph, model, TEXTS)


def test_a_model_without_heads_for_words_takes_no_words(tmp_path: Path) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))
    graph, _ = export_graph(model)
    assert [value.name for value in graph.graph.input] == ["input_ids", "attention_mask"]
    assert_equal_outputs(graph, model, TEXTS)


def test_exporting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))
    model.train()
    before = model.encoder.backbone.config._attn_implementation
    export_graph(model)
    assert model.training
    assert model.encoder.training
    assert model.encoder.backbone.config._attn_implementation == before != "eager"


def test_an_attention_that_is_not_fused_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_FUSED_ATTENTION", ("mpnet",))
    model = model_of(
        tiny_encoder_folder(tmp_path, model_type="mpnet"), intent=TaskConfig(kind="classification")
    )
    with pytest.raises(ModelError, match="fused 0 of 2 attention patterns of this mpnet encoder"):
        export_graph(model)


def test_an_encoder_that_a_graph_cannot_express_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path, model_type="longformer", max_position=128, layers=1)
    model = model_of(folder, intent=TaskConfig(kind="classification"))
    with pytest.raises(ModelError, match=r'longformer encoder cannot be exported.*backend="torch"'):
        export_graph(model)


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


# --------------------------------------------------------------------------------------- gate


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best model of a small run, never to be changed."""
    folder = tmp_path_factory.mktemp("run")
    tasks = {
        "intent": {"kind": "classification"},
        "ner": {"kind": "tagging", "decoder": "crf", "word_features": "on"},
    }
    write_records(folder / "train.jsonl", sentences(120, 1))
    write_records(folder / "valid.jsonl", sentences(40, 2))
    run(folder, tasks=tasks, num_epochs=4, threads=1)
    return folder / "saved" / "best"


@pytest.fixture
def best(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model."""
    return shutil.copytree(trained, tmp_path / "best")


def test_an_export_is_recorded_sealed_and_reported(best: Path) -> None:
    reports: list[GateReport] = []
    result = export_model(best, threads=1, limit=100, report=reports.append)
    assert [report.backend for report in result.kept] == ["onnx", "onnx-int8"]
    assert result.missing == ()
    assert reports == list(result.kept)
    manifest = read_manifest(best)
    manifest.verify()
    for report in reports:
        assert manifest.read_json(report_name(report.backend)) == json.loads(
            json.dumps(report.to_json())
        )
        assert manifest.files[GRAPHS[report.backend]].size == report.details["bytes"]
        assert report.details["fused"] == {"attention": 2, "layer_norm": 5, "gelu": 2}
        assert (
            report.details.get("calibrated_on") == {"onnx": None, "onnx-int8": 120}[report.backend]
        )
        assert report.batch_mates.sentences == report.records == 40
    exact = reports[0]
    assert {head.metric for head in exact.heads.values()} == {"accuracy", "f1"}
    assert all(head.max_logit_difference < 1e-4 for head in exact.heads.values())
    assert all(head.lost == 0 for head in exact.heads.values())
    assert not any(exact.batch_mates.changed.values())
    # Its rounding shows: what is reported is this graph's, not the reference's.
    assert all(head.max_logit_difference > 1e-4 for head in reports[1].heads.values())
    assert set(exported_backends(manifest)) == {"onnx", "onnx-int8"}


class Broken:
    """A backend with the same wrong answer for every sentence."""

    name = "broken"

    def __init__(self, inner: OnnxBackend, task: str) -> None:
        self.inner, self.task = inner, task

    def run(self, batch: Batch) -> Mapping[str, Any]:
        outputs = dict(self.inner.run(batch))
        outputs[self.task] = -outputs[self.task]
        return outputs


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("exported") / "best")
    export_model(folder, formats=("float32",), threads=1)
    return folder


def gate_for(
    folder: Path, limit: float = 0.3, unlabelled: Sequence[str] = ()
) -> tuple[Gate, OnnxBackend]:
    from manyheads.config import make_config
    from manyheads.exporting import validation_sets
    from manyheads.inference import predictor_of_folder
    from manyheads.inference.backends import pytorch

    manifest = read_manifest(folder)
    model = pytorch.load_trained(folder).model
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    assert task_specs(model) == [spec.to_json() for spec in specs]
    gate = Gate(
        TorchBackend(model, choose_compute("cpu", "float32", 1)),
        lambda backend: predictor_of_folder(manifest, backend),
        validation_sets(make_config(manifest.config), specs, None, folder),
        limit=limit,
        unlabelled=unlabelled,
    )
    return gate, OnnxBackend((folder / GRAPHS["onnx"]).read_bytes(), name="graph", threads=1)


@pytest.mark.parametrize("task", ["intent", "ner"])
def test_the_gate_names_the_head_that_loses(exported: Path, task: str) -> None:
    gate, backend = gate_for(exported)
    assert gate.examine(backend, "onnx", "as it is", exact=True).passed
    report = gate.examine(Broken(backend, task), "onnx-int8", "broken", exact=False)
    assert not report.passed
    (fault,) = report.faults
    assert fault.startswith(f"head {task!r} loses ")
    assert fault.endswith("at most 0.3 are allowed")
    other = {"intent": "ner", "ner": "intent"}[task]
    assert report.heads[other].lost == report.heads[other].changed == 0
    assert report.heads[task].changed > 0


class Forgetful(Broken):
    """A backend that is wrong about every so many sentences."""

    def __init__(self, inner: OnnxBackend, task: str, every: int) -> None:
        super().__init__(inner, task)
        self.every, self.seen = every, 0

    def run(self, batch: Batch) -> Mapping[str, Any]:
        outputs = dict(self.inner.run(batch))
        values = outputs[self.task].copy()
        for row in range(len(values)):
            self.seen += 1
            if self.seen % self.every == 0:
                values[row] = -values[row]
        return outputs | {self.task: values}


def test_one_changed_answer_of_few_records_may_be_chance(exported: Path) -> None:
    """Of 40 records one is 2.5 points; unlabelled sentences show how rare such changes are."""
    many = [" ".join(one["tokens"]) for one in sentences(400, 7)]
    rare, common = 36, 12
    for texts, every, passes in ((many, 300, True), ([], rare, False), (many, common, False)):
        gate, backend = gate_for(exported, unlabelled=texts)
        first = Forgetful(backend, "intent", every)
        # Each record is seen once before the unlabelled ones.
        first.seen = every - rare if every > rare else 0
        report = gate.examine(first, "onnx-int8", "forgetful", exact=False)
        head = report.heads["intent"]
        assert report.unlabelled == len(texts)
        assert head.lost > 0.3, "the limit alone refuses it"
        assert head.lost_low <= head.lost <= head.lost_high
        assert report.passed == passes, report.faults


def test_a_certain_loss_is_refused_however_few_answers_change(exported: Path) -> None:
    gate, backend = gate_for(exported, unlabelled=["John lives in Paris"] * 4000)

    class Late(Forgetful):
        """Wrong about the records alone."""

        def run(self, batch: Batch) -> Mapping[str, Any]:
            self.every = 2 if self.seen < 40 else 10**9
            return super().run(batch)

    report = gate.examine(Late(backend, "intent", 2), "onnx-int8", "late", exact=False)
    assert report.heads["intent"].changed_share < 0.02
    assert report.heads["intent"].lost_low > 0.3
    assert "with 95 %" in report.faults[0]


def test_the_user_sets_the_limit(exported: Path) -> None:
    gate, backend = gate_for(exported, limit=100)
    assert gate.examine(Broken(backend, "intent"), "onnx-int8", "broken", exact=False).passed


def test_the_gate_detects_broken_embeddings_and_nan(exported: Path) -> None:
    gate, backend = gate_for(exported)
    report = gate.examine(Broken(backend, "embedding"), "onnx-int8", "broken", exact=False)
    assert report.faults == (
        "the mean cosine of the embeddings is -1.0000; at least 0.95 is needed",
    )

    class NotNumbers(Broken):
        def run(self, batch: Batch) -> Mapping[str, Any]:
            outputs = dict(self.inner.run(batch))
            return outputs | {"intent": np.full_like(outputs["intent"], np.nan)}

    report = gate.examine(NotNumbers(backend, ""), "onnx", "broken", exact=True)
    assert any("logits that differ by inf" in fault for fault in report.faults)


def test_the_gate_detects_answers_that_depend_on_batch_mates(exported: Path) -> None:
    gate, backend = gate_for(exported)

    class Sociable(Broken):
        def run(self, batch: Batch) -> Mapping[str, Any]:
            outputs = dict(self.inner.run(batch))
            if len(batch.input_ids) == 1:
                outputs["intent"] = -outputs["intent"]
            return outputs

    for exact, independent in ((True, None), (False, True)):
        report = gate.examine(
            Sociable(backend, ""), "onnx", "sociable", exact=exact, independent=independent
        )
        assert report.batch_mates.changed["intent"] == report.batch_mates.sentences
        assert "the answers depend on the other sentences of a batch" in report.faults
    assert gate.examine(Sociable(backend, ""), "onnx-int8", "sociable", exact=False).passed


def test_other_runtimes_find_the_encoder_alone_where_they_look_for_it(best: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    export_model(best, formats=("float32",), threads=1, limit=100)
    read_manifest(best).verify()
    session = onnxruntime.InferenceSession(best / "onnx" / "model.onnx")
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [(v.name, len(v.shape)) for v in session.get_outputs()] == [
        ("last_hidden_state", 3), ("sentence_embedding", 2),
    ]  # fmt: skip
    assert {node.domain for node in onnx.load(best / "onnx" / "model.onnx").graph.node} == {""}
    inputs = AutoTokenizer.from_pretrained(best)(TEXTS, padding=True, return_tensors="pt")
    tokens, sentences = session.run(None, {k: v.numpy() for k, v in inputs.items()})
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(best)(**inputs).last_hidden_state.numpy()
    mask = inputs["attention_mask"].bool().numpy()
    np.testing.assert_allclose(tokens[mask], expected[mask], atol=1e-5)
    embeddings = SentenceTransformer(os.fspath(best), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(sentences, embeddings, atol=1e-5)


def test_graphs_that_version_0_1_exported_are_used_and_replaced(
    exported: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "best")
    expected = load_exported(folder, Runtime("onnx")).predict(["John lives in Paris"], embed=True)
    earlier = {
        "onnx/model.onnx": GRAPHS["onnx"], "onnx/model.report.json": report_name("onnx"),
    }  # fmt: skip
    files = {name: (folder / now).read_bytes() for name, now in earlier.items()}
    add_files(read_manifest(folder), files, remove=earlier.values())
    assert exported_backends(read_manifest(folder)) == ("onnx",)
    found = load_exported(folder, Runtime("onnx")).predict(["John lives in Paris"], embed=True)
    assert [p.to_json() for p in found] == [p.to_json() for p in expected]
    export_model(folder, formats=("float32",), threads=1, limit=100)
    manifest = read_manifest(folder)
    manifest.verify()
    assert {name for name in manifest.files if name.startswith("onnx/")} == {
        GRAPHS["onnx"], report_name("onnx"), "onnx/model.onnx",
    }  # fmt: skip
    assert exported_backends(manifest) == ("onnx",)


def test_refused_settings_give_way_to_milder_ones(
    best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examine = Gate.examine
    tried = []

    def strict(self: Gate, backend: Any, name: str, setting: str, **options: Any) -> GateReport:
        tried.append(setting)
        broken = "embedding table" not in setting and name == "onnx-int8"
        return examine(
            self, Broken(backend, "ner") if broken else backend, name, setting, **options
        )

    monkeypatch.setattr(Gate, "examine", strict)
    result = export_model(best, formats=("int8",), threads=1, limit=20)
    settings = [setting for setting in SETTINGS if not setting.necks]
    assert tried == [f"int8: {setting.name}" for setting in settings[:3]]
    assert [report.setting for report in result.kept] == ["int8: all but the embedding table"]
    assert all("head 'ner' loses" in report.faults[0] for report in result.refused)
    assert GRAPHS["onnx"] not in read_manifest(best).files


def test_an_earlier_graph_is_removed_if_none_passes(
    best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(best, formats=("int8",), threads=1, limit=100)
    assert (best / GRAPHS["onnx-int8"]).exists()
    monkeypatch.setattr("manyheads.exporting.gate_report.MIN_COSINE", 1.1)
    monkeypatch.setattr("manyheads.exporting.quantization.SETTINGS", SETTINGS[1:4])
    result = export_model(best, formats=("int8",), threads=1, limit=100)
    assert result.missing == ("onnx-int8",)
    assert len(result.refused) == 2, "the one with necks makes no difference here"
    manifest = read_manifest(best)
    manifest.verify()
    assert not any(name.startswith("onnx/") for name in manifest.files)
    assert not list((best / "onnx").iterdir())


def test_the_command_shows_the_report_and_fails_if_no_graph_passes(
    best: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manyheads.exporting.quantization.SETTINGS", SETTINGS[2:3])
    command = ["export", str(best), "--format", "int8", "--threads", "1", "--limit", "100"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "onnx-int8: int8: everything but the heads, 7-bit weights, 40 records" in shown
    assert "embeddings: cosine" in shown
    assert all(task in shown for task in ("intent", "ner"))
    examine = Gate.examine

    def broken(self: Gate, backend: Any, *names: str, **options: Any) -> GateReport:
        return examine(self, Broken(backend, "ner"), *names, **options)

    monkeypatch.setattr(Gate, "examine", broken)
    assert main([*command[:-1], "0.3"]) == 1
    told = capsys.readouterr()
    assert "refused: head 'ner' loses" in told.out
    assert "onnx-int8" in told.err
    assert not (best / GRAPHS["onnx-int8"]).exists()


def test_the_command_exports_a_model_that_has_only_an_embedding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [" ".join(record["tokens"]) for record in sentences(13)]
    pairs = [
        {"text": one, "text2": other, "score": i / 11}
        for i, (one, other) in enumerate(pairwise(texts))
    ]
    file = write_records(tmp_path / "pairs.jsonl", pairs)
    tasks = {"near": {"kind": "similarity", "train_file": str(file), "valid_file": str(file)}}
    run(tmp_path, tasks=tasks, num_epochs=1)
    capsys.readouterr()
    assert main(["export", str(tmp_path / "saved"), "--format", "float32", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "near" in shown
    assert "embeddings: cosine 1.0000" in shown
    assert "changed answers" not in shown, "it has none"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"formats": ("int4",)}, RequestError, "there is no format 'int4'.*one of: float32, int8"),
        ({"formats": ()}, RequestError, "no format is asked for"),
        (
            {"opset": 5},
            RequestError,
            "version 5 of ONNX's operators; expected one from 14 to 20. Leave `opset` out for 17.",
        ),
        ({"limit": -1.0}, RequestError, "a limit of -1.0 points; expected a number from 0 to 100"),
        ({"data": "missing.jsonl"}, DataError, "missing.jsonl"),
    ],
)
def test_invalid_requests_are_refused(
    best: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_model(best, threads=1, **options)


def test_a_head_without_labelled_records_cannot_pass(exported: Path, tmp_path: Path) -> None:
    file = tmp_path / "half.jsonl"
    file.write_text('{"text": "John eats", "label": "statement"}\n')
    with pytest.raises(DataError, match="no validation record has a label for task ner"):
        export_model(exported, data=file, threads=1)


def test_errors_of_the_system_are_not_blamed_on_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))

    def fail(*_: Any, **__: Any) -> None:
        print("Torch IR graph at exception")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(OSError, match="No space left on device"):
        export_graph(model)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_is_not_exported(trained: Path) -> None:
    checkpoint = next(trained.parent.glob("*.pt"))
    with pytest.raises(ModelError, match=r"a checkpoint cannot be exported.*RUN_FOLDER"):
        export_model(checkpoint)


# ------------------------------------------------------------------------- files of a folder


def test_files_are_added_replaced_and_removed_with_the_manifest(best: Path) -> None:
    before = read_manifest(best).files
    add_files(read_manifest(best), {"onnx/a.bin": b"one", "onnx/b.bin": b"two"})
    add_files(
        read_manifest(best), {"onnx/a.bin": b"other"}, remove=["onnx/b.bin", "onnx/never.bin"]
    )
    manifest = read_manifest(best)
    manifest.verify()
    assert set(manifest.files) == {*before, "onnx/a.bin"}
    assert manifest.read("onnx/a.bin") == b"other"
    assert not (best / "onnx/b.bin").exists()
    with pytest.raises(ValueError, match=r"heads\.safetensors is the model's own"):
        add_files(read_manifest(best), {LAYOUT.heads: b""})
    with pytest.raises(ModelError, match="leads out of the folder"):
        add_files(read_manifest(best), {"../a.bin": b""})


@pytest.mark.parametrize("stop", range(3))
def test_a_kill_while_files_are_added_leaves_a_sealed_model(
    best: Path, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_files(read_manifest(best), {"onnx/a.bin": b"one"})
    from manyheads.storage import manifest_update

    calls = 0
    write = manifest_update.write_bytes

    def killed(path: Any, data: bytes) -> None:
        nonlocal calls
        if calls == stop:
            raise KeyboardInterrupt
        calls += 1
        write(path, data)

    monkeypatch.setattr(manifest_update, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        add_files(read_manifest(best), {"onnx/a.bin": b"other"})
    manifest = read_manifest(best)
    manifest.verify()
    assert ("onnx/a.bin" in manifest.files) == (stop == 0)


def test_a_damaged_graph_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "best")
    graph = folder / GRAPHS["onnx"]
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(ModelError, match=r"manyheads\.onnx: has the SHA-256"):
        load_exported(folder)
    with pytest.raises(ModelError, match=r"not been exported for 'onnx-int8'.*manyheads.export"):
        load_exported(folder, Runtime("onnx-int8"))


def test_bytes_that_are_not_a_graph_are_refused() -> None:
    with pytest.raises(ModelError, match=r"cannot load the graph.*Export the model again"):
        OnnxBackend(b"nothing of the kind", name="graph", threads=1)


def test_the_records_of_a_named_file_are_read_by_its_layout(trained: Path, tmp_path: Path) -> None:
    from manyheads.config import make_config
    from manyheads.exporting import validation_sets

    manifest = read_manifest(trained)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    file = tmp_path / "labelled.csv"
    file.write_text("utterance,topic\nJohn lives in Paris,statement\n")
    layout = Layout(names={"utterance": "text", "topic": "intent"})
    ((records, _),) = validation_sets(make_config(manifest.config), specs, file, trained, layout)
    assert [(one.text, list(one.labels)) for one in records] == [
        ("John lives in Paris", ["intent"])
    ]
    missing = Layout(names={"body": "text"})
    with pytest.raises(DataError, match="there is no column 'body'"):
        export_model(trained, data=file, layout=missing, threads=1)
    with pytest.raises(RequestError, match="the layout of a file is given, but no file"):
        export_model(trained, layout=layout)


def test_records_are_spread_over_a_long_file(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyheads.config import make_config
    from manyheads.exporting import validation

    manifest = read_manifest(trained)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    monkeypatch.setattr(validation, "MAX_RECORDS", 3)
    ((records, tasks),) = validation.validation_sets(
        make_config(manifest.config), specs, None, trained
    )
    assert tasks == ("intent", "ner")
    assert len(records) == 3
    assert all(isinstance(record, Record) for record in records)
