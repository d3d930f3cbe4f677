"""An export: the graphs that pass are added to the model's folder, sealed and reported."""

from __future__ import annotations

import errno
import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from graph_outputs import TEXTS, Broken
from manyheads.cli import main
from manyheads.errors import DataError, ModelError, RequestError
from manyheads.exporting import Gate, GateReport, export_model
from manyheads.exporting.quantization import SETTINGS
from manyheads.inference import GRAPHS, Runtime, exported_backends, load_exported, report_name
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.storage import LAYOUT, StorageError, add_files, read_manifest
from training_setup import run, sentences, write_records


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
            "version 5 of ONNX's operators; expected one from 14 to 17. Leave `opset` out for 17.",
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


@pytest.mark.parametrize("stop", range(2))
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

    # The manifest without the old file, and with the new one.
    monkeypatch.setattr(manifest_update, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        add_files(read_manifest(best), {"onnx/a.bin": b"other"})
    manifest = read_manifest(best)
    manifest.verify()
    assert ("onnx/a.bin" in manifest.files) == (stop == 0)
    assert (best / "onnx/a.bin").read_bytes() == (b"one" if stop == 0 else b"other")


def test_a_full_disk_leaves_the_files_that_were_to_be_replaced(
    best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_files(read_manifest(best), {"onnx/a.bin": b"one", "onnx/b.bin": b"two"})
    before = read_manifest(best)
    from manyheads.storage import manifest_update

    files = []

    def full(descriptor: int) -> None:
        files.append(descriptor)
        if len(files) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest_update.os, "fsync", full)
    with pytest.raises(StorageError, match=r"b\.bin: cannot be written: the disk is full"):
        add_files(before, {"onnx/a.bin": b"other", "onnx/b.bin": b"another"})
    monkeypatch.undo()
    manifest = read_manifest(best)
    manifest.verify()
    assert manifest == before
    assert manifest.read("onnx/a.bin") == b"one"
    assert sorted(path.name for path in (best / "onnx").iterdir()) == ["a.bin", "b.bin"]


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
