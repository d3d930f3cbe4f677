"""Graphs of 8-bit products on another kind of processor than that of their export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from manyheads.errors import ModelError
from manyheads.inference import (
    GRAPHS,
    Runtime,
    exported_backends,
    load_model,
    processor,
    report_name,
)
from manyheads.storage import add_files, json_bytes, read_manifest


@pytest.fixture(scope="module")
def exported(exported_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with float32 and int8 graphs, the int8 one the faster; never to be changed."""
    folder = shutil.copytree(exported_model, tmp_path_factory.mktemp("faster") / "best")
    change_report(folder, "onnx-int8", sentences_per_second=1e6)
    return folder


@pytest.fixture
def best(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model."""
    return shutil.copytree(exported, tmp_path / "best")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind of processor."""
    monkeypatch.setattr(processor, "processor_kind", lambda: "another kind")


def change_report(folder: Path, backend: str, **changes: Any) -> None:
    name = report_name(backend)
    report = read_manifest(folder).read_json(name)
    add_files(read_manifest(folder), {name: json_bytes({**report, **changes})})


def spoil(folder: Path) -> None:
    """Give the int8 graph a report of other outputs, as of a processor that computes exactly."""
    samples = read_manifest(folder).read_json(report_name("onnx-int8"))["samples"]
    outputs = {name: values[::-1] for name, values in samples["outputs"].items()}
    change_report(folder, "onnx-int8", samples={**samples, "outputs": outputs})


def test_the_report_holds_outputs_for_fixed_sentences(exported: Path) -> None:
    report = read_manifest(exported).read_json(report_name("onnx-int8"))
    predictor = load_model(exported, Runtime("onnx-int8", threads=1)).predictor
    assert report["samples"]["processor"] == processor.processor_kind()
    assert processor.agrees(report, predictor.sample_outputs())
    # No text of the user's.
    assert "john" not in json.dumps(report)


@pytest.mark.parametrize(
    ("kind", "overflows"),
    [
        ("x86_64 avx2", True),
        ("x86_64 avx512bw avx2", True),
        ("x86_64 avx512_vnni avx512bw avx2", False),
        ("x86_64 avx_vnni avx2", False),
        ("AMD64", True),
        ("aarch64 asimddp", False),
    ],
)
def test_unsigned_weights_are_used_only_where_sums_overflow(
    best: Path, kind: str, overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "processor_kind", lambda: kind)
    backend: Any = load_model(best, Runtime("onnx-int8", threads=1)).predictor.backend
    options = backend._session.get_session_options()
    try:
        found = options.get_session_config_entry("session.x64quantprecision")
    except RuntimeError:  # it was never set
        found = ""
    assert (found == "1") == overflows


def test_on_the_same_kind_nothing_is_compared(best: Path) -> None:
    spoil(best)
    assert load_model(best, Runtime(threads=1)).predictor.backend.name.startswith("onnx-int8")


@pytest.mark.usefixtures("elsewhere")
def test_a_graph_that_computes_the_same_elsewhere_is_used(best: Path) -> None:
    assert load_model(best, Runtime(threads=1)).predictor.backend.name.startswith("onnx-int8")


@pytest.mark.usefixtures("elsewhere")
def test_a_graph_that_computes_something_else_gives_way_to_the_next(best: Path) -> None:
    spoil(best)
    warnings: list[str] = []
    predictor = load_model(best, Runtime(threads=1), warn=warnings.append).predictor
    assert predictor.backend.name.startswith("onnx (")
    (warning,) = warnings
    assert "graph 'onnx-int8' computes something else on this kind of processor" in warning


@pytest.mark.usefixtures("elsewhere")
def test_a_named_graph_is_used_with_a_warning(best: Path) -> None:
    spoil(best)
    warnings: list[str] = []
    predictor = load_model(best, Runtime("onnx-int8", threads=1), warn=warnings.append).predictor
    assert predictor.backend.name.startswith("onnx-int8")
    assert "Export the model again on this machine" in warnings[0]


@pytest.mark.usefixtures("elsewhere")
def test_without_another_graph_the_model_is_refused(best: Path) -> None:
    spoil(best)
    add_files(read_manifest(best), {}, remove=[GRAPHS["onnx"]])
    with pytest.raises(ModelError, match=r"no graph computes .*Export the model again"):
        load_model(best, Runtime(threads=1), warn=lambda text: None)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "samples",
    [None, {}, {"processor": 1, "outputs": []}, {"processor": "", "outputs": {"intent": ["x"]}},
     {"processor": "", "outputs": {"intent": [[1]], "embedding": 10**400}}],
)  # fmt: skip
def test_invalid_samples_never_end_in_a_traceback(best: Path, samples: Any) -> None:
    change_report(best, "onnx-int8", samples=samples)
    load_model(best, Runtime(threads=1), warn=lambda text: None)


def test_a_report_of_an_older_version_is_accepted(best: Path, elsewhere: None) -> None:
    report = read_manifest(best).read_json(report_name("onnx-int8"))
    del report["samples"]
    add_files(read_manifest(best), {report_name("onnx-int8"): json_bytes(report)})
    assert load_model(best, Runtime(threads=1)).predictor.backend.name.startswith("onnx-int8")


def test_a_speed_measured_with_vnni_is_scaled_without_it(
    best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without VNNI the products of an int8 graph lose more of their speed."""
    for backend, rate in (("onnx", 1000.0), ("onnx-int8", 1200.0)):
        samples = {"processor": "x86_64 avx512_vnni avx2", "outputs": {}}
        change_report(best, backend, sentences_per_second=rate, samples=samples)
    for kind, first in (("x86_64 avx512_vnni avx2", "onnx-int8"), ("x86_64 avx2", "onnx")):
        monkeypatch.setattr(processor, "processor_kind", lambda kind=kind: kind)
        assert exported_backends(read_manifest(best))[0] == first
