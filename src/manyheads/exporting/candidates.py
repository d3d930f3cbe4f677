"""Candidates: the graphs that export makes of a model, each examined by the gate."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.evaluation import FittedTask
from manyheads.exporting.gate import Gate
from manyheads.exporting.gate_report import GateReport
from manyheads.inference import (
    ENCODER_GRAPH,
    GRAPHS,
    ONNX,
    ONNX_INT8,
    OPENVINO,
    OPENVINO_INT8,
    open_backend,
    predictor_of_folder,
    report_name,
)
from manyheads.inference.processor import samples_to_json
from manyheads.storage import Manifest, json_bytes
from manyheads.text import Batch

if TYPE_CHECKING:
    from manyheads.modeling import MultiTaskModel

_FLOAT32 = "all in float32"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph that was examined."""

    report: GateReport
    files: Mapping[str, bytes]
    """By their names in the model folder."""


class Exporter:
    """Makes graphs of a model and has them examined, the fastest of each backend first.

    Args:
        model: on the CPU, in evaluation mode.
        gate: compares graphs with the model.
        manifest: the model folder's.
        opset: the version of ONNX's operators.
        threads: processor threads that graphs are examined with.
        progress: takes the next step, in a few words.
        calibration: returns the batches by which int8 measures its scales.

    Raises:
        ModelError: the model cannot be exported.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        gate: Gate,
        manifest: Manifest,
        opset: int,
        threads: int,
        progress: Callable[[str], None],
        calibration: Callable[[], list[Batch]],
    ) -> None:
        from manyheads.exporting.graph import fuse_graph, trace_graph

        self._model, self._opset = model, opset
        self._gate, self._threads, self._progress = gate, threads, progress
        self._calibration, self._manifest = calibration, manifest
        progress("tracing the model and fusing its graph")
        self._traced = trace_graph(model, opset=opset)
        self._fused, fusions = fuse_graph(self._traced, model)
        self._fusions = asdict(fusions)
        self._details: dict[str, Any] = {"opset": opset, "versions": _versions()}

    def candidates(self, backend: str) -> Iterator[Candidate]:
        """Yield the graphs for a backend, each made and examined when it is asked for."""
        if backend in (OPENVINO, OPENVINO_INT8):
            yield from self._of_openvino(backend)
            return
        from manyheads.exporting.quantization import quantize, settings_for
        from manyheads.exporting.smoothing import smooth

        if backend == ONNX:
            files = {GRAPHS[ONNX]: self._fused.SerializeToString()}
            yield self._examined(ONNX, _FLOAT32, files, fused=self._fusions)
            return
        batches = self._calibration()
        smoothed = smooth(self._fused, batches, self._threads)
        for setting in settings_for(smoothed):
            self._progress(f"converting to int8: {setting.name}")
            files = {GRAPHS[ONNX_INT8]: quantize(smoothed, setting).SerializeToString()}
            yield self._examined(
                ONNX_INT8, f"int8: {setting.name}", files,
                fused=self._fusions, calibrated_on=len(batches),
            )  # fmt: skip

    def files(self, backend: str, candidate: Candidate) -> dict[str, bytes]:
        """Return the files that a graph that passed adds to the model folder."""
        found = json_bytes(candidate.report.to_json())
        files = {**candidate.files, report_name(backend): found}
        return files | ({ENCODER_GRAPH: self._encoder_graph()} if backend == ONNX else {})

    def calibrations(self, backend: str) -> Mapping[str, FittedTask]:
        """Return the calibrations of the backend's graph that was examined last."""
        return self._gate.calibrations[backend]

    def _encoder_graph(self) -> bytes:
        """Return the graph of the encoder alone, for other runtimes."""
        from manyheads.exporting.graph import trace_encoder

        self._progress(f"writing {ENCODER_GRAPH}")
        contents: bytes = trace_encoder(self._model, opset=self._opset).SerializeToString()
        return contents

    def _of_openvino(self, backend: str) -> Iterator[Candidate]:
        from manyheads.exporting.openvino import (
            convert,
            files_of,
            quantize_static,
            static_settings_for,
        )

        with tempfile.TemporaryDirectory(prefix="manyheads-export-") as name:
            folder = Path(name)
            model = convert(self._traced, folder)
            if backend == OPENVINO:
                yield self._examined(OPENVINO, _FLOAT32, files_of(model, OPENVINO, folder))
                return
            batches = self._calibration()
            for setting in static_settings_for(model):
                self._progress(f"converting to static int8: {setting.name}")
                quantized = quantize_static(model, batches, setting)
                yield self._examined(
                    OPENVINO_INT8,
                    f"static int8: {setting.name}",
                    files_of(quantized, OPENVINO_INT8, folder),
                    calibrated_on=len(batches),
                )

    def _examined(
        self, backend: str, setting: str, files: Mapping[str, bytes], **details: object
    ) -> Candidate:
        """Open a graph as it will be used, and compare it with the model."""
        self._progress(f"comparing with PyTorch: {setting}")
        opened = open_backend(backend, files, threads=self._threads)
        samples = predictor_of_folder(self._manifest, opened).sample_outputs()
        report = self._gate.examine(
            opened, backend, setting,
            exact=backend in (ONNX, OPENVINO), independent=backend != ONNX_INT8,
            bytes=sum(map(len, files.values())), samples=samples_to_json(samples),
            **details, **self._details,
        )  # fmt: skip
        return Candidate(report, files)


def _versions() -> dict[str, str]:
    names = ("manyheads", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf")
    versions = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
