"""Export to ONNX and OpenVINO graphs, compared with the trained model.

Every graph has to pass the gate (`manyheads.exporting.gate`) before the model folder lists it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.errors import ModelError, RequestError, at, listing, nearest, shorten
from manyheads.evaluation import FittedTask
from manyheads.exporting.calibration import calibration_batches, training_texts
from manyheads.exporting.gate import LIMIT, Gate, GateReport
from manyheads.exporting.validation import validation_sets
from manyheads.inference import (
    ENCODER_GRAPH,
    GRAPHS,
    INT8,
    ONNX,
    ONNX_INT8,
    OPENVINO,
    OPENVINO_INT8,
    earlier_files,
    graph_files,
    make_predictor,
    open_backend,
    report_name,
)
from manyheads.inference.processor import samples_to_json
from manyheads.storage import (
    Manifest,
    StrPath,
    add_files,
    is_model_folder,
    json_bytes,
    read_manifest,
    resolve_model,
    set_calibration,
)
from manyheads.tasks import TaskSpec
from manyheads.text import Batch

if TYPE_CHECKING:
    from manyheads.modeling import MultiTaskModel

BACKENDS_OF = {
    "float32": (ONNX,),
    "int8": (ONNX_INT8,),
    "openvino": (OPENVINO, OPENVINO_INT8),
}
"""By format, the backends that it makes a graph for."""
FORMATS = tuple(BACKENDS_OF)
DEFAULT_FORMATS = ("float32", "int8")

OPSET = 17


UNLABELLED = 1000
"""Training sentences on which the gate counts changed answers, at most."""


@dataclass(frozen=True, slots=True, repr=False)
class ExportResult:
    """The outcome of an export."""

    folder: Path
    kept: tuple[GateReport, ...]
    """Reports of the graphs that passed and are part of the model now."""
    refused: tuple[GateReport, ...]
    """Reports of the graphs and settings that did not pass."""
    missing: tuple[str, ...]
    """The backends for which no setting passed."""

    def __repr__(self) -> str:
        lines = [f"ExportResult({str(self.folder)!r})"]
        lines += [f"  kept: {one.backend} ({one.setting})" for one in self.kept]
        lines += [
            f"  refused: {r.backend} ({r.setting}): {'; '.join(r.faults)}" for r in self.refused
        ]
        return "\n".join([*lines, *(f"  missing: {name}" for name in self.missing)])


def export_model(
    model: StrPath = "saved_model",
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    data: StrPath | None = None,
    limit: float = LIMIT,
    opset: int = OPSET,
    threads: int | None = None,
    report: Callable[[GateReport], None] = lambda report: None,
    progress: Callable[[str], None] = lambda text: None,
) -> ExportResult:
    """Export a model and keep, for each backend, the fastest graph that passes the gate.

    Args:
        model: a model folder, or a run's folder (its best model).
        formats: some of `FORMATS`.
        data: labelled records for the gate; default, the validation files that the model was
            chosen on.
        limit: points of its main metric that a head may lose, beyond chance.
        opset: the version of ONNX's operators.
        threads: processor threads; default, all cores there are.
        report: takes the gate's report on each graph, passing or not.
        progress: takes the next step, in a few words.

    Raises:
        ModelError: the model cannot be read or exported.
        DataError: there is nothing to compare on, or a head has no labelled record.
        RequestError: there is no such format.
        StorageError: a graph cannot be written.
    """
    _check_request(formats, limit)
    folder = resolve_model(model)
    if not is_model_folder(folder):
        raise ModelError(
            "a checkpoint cannot be exported", where=at(folder),
            expected="a model folder, into which the graphs go",
            fix="Export the run's best model: manyheads export RUN_FOLDER",
        )  # fmt: skip
    exporter = _exporter(folder, data, limit, opset, threads, progress)
    kept: list[GateReport] = []
    refused: list[GateReport] = []
    missing: list[str] = []
    for backend in (one for form in FORMATS if form in formats for one in BACKENDS_OF[form]):
        passed = None
        for candidate in exporter.candidates(backend):
            report(candidate.report)
            if candidate.report.passed:
                passed = candidate
                break
            refused.append(candidate.report)
        if passed is None:
            # A graph of an earlier export was made by other rules.
            stale = [*graph_files(backend), report_name(backend), *earlier_files(backend)]
            add_files(folder, {}, remove=stale + [ENCODER_GRAPH] * (backend == ONNX))
            missing.append(backend)
        else:
            progress(f"writing {GRAPHS[backend]}")
            add_files(folder, exporter.files(backend, passed), remove=earlier_files(backend))
            if backend in INT8:
                _calibrate_apart(folder, backend, exporter.calibrations(backend))
            kept.append(passed.report)
    return ExportResult(folder, tuple(kept), tuple(refused), tuple(missing))


def _calibrate_apart(folder: Path, backend: str, fitted: Mapping[str, FittedTask]) -> None:
    """Give a graph of 8-bit products calibrations of its own, if the model is calibrated."""
    known = read_manifest(folder).calibration
    if known.get("tasks"):
        own = {name: task.to_json() for name, task in fitted.items() if name in known["tasks"]}
        backends = {**known.get("backends", {}), backend: own}
        set_calibration(folder, {**known, "backends": backends})


def _exporter(
    folder: Path,
    data: StrPath | None,
    limit: float,
    opset: int,
    threads: int | None,
    progress: Callable[[str], None],
) -> _Exporter:
    """Load a model folder, and predict with PyTorch what its graphs are compared with."""
    from manyheads.inference.backends import pytorch
    from manyheads.modeling import choose_compute

    progress("loading the model")
    trained = pytorch.load_trained(folder)
    compute = choose_compute("cpu", "float32", threads)
    manifest = read_manifest(folder)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    sets = validation_sets(trained.config, specs, data, at(folder))
    progress("predicting for the validation records with PyTorch in float32")
    gate = Gate(
        pytorch.TorchBackend(trained.model, compute),
        lambda backend: make_predictor(manifest, backend),
        sets,
        limit=limit,
        unlabelled=training_texts(trained.config, specs, UNLABELLED),
        threads=compute.threads,
    )
    return _Exporter(
        trained.model, gate, manifest, opset, compute.threads, progress,
        lambda: calibration_batches(
            trained.config, specs, sets, trained.tokenizer, trained.max_length
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A graph that was examined."""

    report: GateReport
    files: Mapping[str, bytes]
    """By their names in the model folder."""


class _Exporter:
    """Makes graphs of a model and has them examined, the fastest for each backend first."""

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

    def _encoder_graph(self) -> bytes:
        """Return the encoder's own graph, for other runtimes."""
        from manyheads.exporting.graph import trace_encoder

        self._progress(f"writing {ENCODER_GRAPH}")
        contents: bytes = trace_encoder(self._model, opset=self._opset).SerializeToString()
        return contents

    def calibrations(self, backend: str) -> Mapping[str, FittedTask]:
        """Return the calibrations of the backend's graph that was examined last."""
        return self._gate.calibrations[backend]

    def files(self, backend: str, candidate: _Candidate) -> dict[str, bytes]:
        """Return what goes into the model folder for a graph that passed."""
        found = json_bytes(candidate.report.to_json())
        files = {**candidate.files, report_name(backend): found}
        return files | ({ENCODER_GRAPH: self._encoder_graph()} if backend == ONNX else {})

    def candidates(self, backend: str) -> Iterator[_Candidate]:
        """Yield the graphs for a backend, each examined when it is asked for."""
        if backend in (OPENVINO, OPENVINO_INT8):
            yield from self._of_openvino(backend)
            return
        from manyheads.exporting.quantization import quantize, settings_for

        if backend == ONNX:
            contents = self._fused.SerializeToString()
            yield self._examined(
                ONNX, "all in float32", {GRAPHS[ONNX]: contents}, fused=self._fusions
            )
            return
        for setting in settings_for(self._fused):
            self._progress(f"converting to int8: {setting.name}")
            contents = quantize(self._fused, setting).SerializeToString()
            yield self._examined(
                ONNX_INT8,
                f"int8: {setting.name}",
                {GRAPHS[ONNX_INT8]: contents},
                fused=self._fusions,
            )

    def _of_openvino(self, backend: str) -> Iterator[_Candidate]:
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
                yield self._examined(OPENVINO, "all in float32", files_of(model, OPENVINO, folder))
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
    ) -> _Candidate:
        self._progress(f"comparing with PyTorch: {setting}")
        opened = open_backend(backend, files, threads=self._threads)
        samples = make_predictor(self._manifest, opened).sample_outputs()
        report = self._gate.examine(
            opened, backend, setting,
            exact=backend in (ONNX, OPENVINO), independent=backend != ONNX_INT8,
            bytes=sum(map(len, files.values())), samples=samples_to_json(samples),
            **details, **self._details,
        )  # fmt: skip
        return _Candidate(report, files)


def _check_request(formats: Sequence[str], limit: float) -> None:
    for form in formats:
        if form not in FORMATS:
            raise RequestError(
                f"there is no format {shorten(form)}{nearest(form, FORMATS)}",
                expected=f"one of: {listing(FORMATS)}",
            )
    if not formats:
        raise RequestError("no format is asked for", expected=f"some of: {listing(FORMATS)}")
    if "openvino" in formats:
        from manyheads.exporting.openvino import check_openvino

        check_openvino("openvino", "nncf")
    if not 0 <= limit <= 100:
        raise RequestError(f"a limit of {limit} points", expected="a number from 0 to 100")


def _versions() -> dict[str, str]:
    names = ("manyheads", "torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf")
    versions = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
