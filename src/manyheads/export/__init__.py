"""Export: a trained model as graphs that run fast without a deep-learning framework.

Every graph has to pass the gate (`manyheads.export.gate`) before the model folder lists it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.decoding import TaskSpec
from manyheads.errors import ModelError, RequestError, at, listing, nearest, shorten
from manyheads.export.gate import LIMIT, Gate, GateReport
from manyheads.export.validation import validation_sets
from manyheads.exported import (
    GRAPHS,
    ONNX,
    ONNX_INT8,
    OPENVINO,
    graph_files,
    make_predictor,
    open_backend,
    report_name,
)
from manyheads.loading import resolve_model
from manyheads.model_additions import add_files
from manyheads.model_files import is_model_folder, read_manifest
from manyheads.storage import json_bytes

if TYPE_CHECKING:
    import onnx

    from manyheads.model import MultiTaskModel

FORMATS = ("float32", "int8", "openvino")
"""What can be asked for; the graph of each is `GRAPHS[BACKEND_OF[format]]`."""
BACKEND_OF = {"float32": ONNX, "int8": ONNX_INT8, "openvino": OPENVINO}
DEFAULT_FORMATS = ("float32", "int8")

OPSET = 17

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did."""

    folder: Path
    kept: tuple[GateReport, ...]
    """Of the graphs that passed and are part of the model now."""
    refused: tuple[GateReport, ...]
    """Of the graphs and settings that did not pass."""
    missing: tuple[str, ...]
    """The formats of which no setting passed."""


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
    """Export a model and keep, of each format, the fastest graph that passes the gate.

    Args:
        model: a model folder, or a run's folder (its best model).
        formats: some of `FORMATS`.
        data: labelled records for the gate; default, the validation files that the model was
            chosen on.
        limit: points of its main metric that a head may lose.
        opset: the version of ONNX's operators.
        threads: processor threads; default, all cores there are.
        report: takes what the gate finds about each graph, passing or not.
        progress: takes what is done next, in a few words.

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
    from manyheads.backends import pytorch
    from manyheads.devices import choose_compute

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
        threads=compute.threads,
    )
    exporter = _Exporter(trained.model, gate, opset, compute.threads, progress)
    kept: list[GateReport] = []
    refused: list[GateReport] = []
    missing: list[str] = []
    for form in (form for form in FORMATS if form in formats):
        backend = BACKEND_OF[form]
        for candidate in exporter.candidates(form):
            report(candidate.report)
            if candidate.report.passed:
                progress(f"writing {GRAPHS[backend]}")
                found = json_bytes(candidate.report.to_json())
                add_files(folder, {**candidate.files, report_name(backend): found})
                kept.append(candidate.report)
                break
            refused.append(candidate.report)
        else:
            # What an earlier export left was made by other rules.
            add_files(folder, {}, remove=[*graph_files(backend), report_name(backend)])
            missing.append(form)
    return ExportResult(folder, tuple(kept), tuple(refused), tuple(missing))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A graph that was examined."""

    report: GateReport
    files: Mapping[str, bytes]
    """By their names in the model folder."""


class _Exporter:
    """Makes graphs of a model and has them examined, the fastest of each format first."""

    def __init__(
        self,
        model: MultiTaskModel,
        gate: Gate,
        opset: int,
        threads: int,
        progress: Callable[[str], None],
    ) -> None:
        from manyheads.export.graph import export_graph

        self._gate, self._threads, self._progress = gate, threads, progress
        progress("tracing the model and fusing its graph")
        self._graph, fusions = export_graph(model, opset=opset)
        self._details: dict[str, Any] = {
            "fused": asdict(fusions),
            "opset": opset,
            "versions": _versions(),
        }

    def candidates(self, form: str) -> Iterator[_Candidate]:
        """Yield the graphs of a format, each examined when it is asked for."""
        from manyheads.export.quantization import SETTINGS, quantize

        if form == "float32":
            yield self._examined(ONNX, "all in float32", self._graph)
        elif form == "int8":
            for setting in SETTINGS:
                self._progress(f"converting to int8: {setting.name}")
                yield self._examined(
                    ONNX_INT8, f"int8: {setting.name}", quantize(self._graph, setting)
                )
        else:
            yield self._examined(OPENVINO, "all in float32", self._graph)

    def _examined(self, backend: str, setting: str, graph: onnx.ModelProto) -> _Candidate:
        contents = graph.SerializeToString()
        with tempfile.TemporaryDirectory(prefix="manyheads-export-") as name:
            folder = Path(name)
            if backend == OPENVINO:
                from manyheads.export.openvino import write_openvino

                files = write_openvino(contents, folder)
            else:
                files = {GRAPHS[backend]: contents}
            for file, data in files.items():
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_bytes(data)
            self._progress(f"comparing with PyTorch: {setting}")
            # Opened from a file, as it will be.
            session = open_backend(backend, folder / GRAPHS[backend], threads=self._threads)
            report = self._gate.examine(
                session, backend, setting, exact=backend == ONNX,
                bytes=sum(map(len, files.values())), **self._details,
            )  # fmt: skip
            del session
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
    if not 0 <= limit <= 100:
        raise RequestError(f"a limit of {limit} points", expected="a number from 0 to 100")


def _versions() -> dict[str, str]:
    names = ("manyheads", "torch", "transformers", "onnx", "onnxruntime")
    versions = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
