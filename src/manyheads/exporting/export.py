"""The export of a model: for each backend, the fastest graph that passes the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.config import restored_threads
from manyheads.data.own_files import refuse_layout_alone
from manyheads.data.readers import Layout
from manyheads.errors import (
    ModelError,
    RequestError,
    at,
    listed,
    listing,
    nearest,
    option,
    shorten,
)
from manyheads.evaluation import FittedTask
from manyheads.exporting.calibration import calibration_batches, training_texts
from manyheads.exporting.candidates import Candidate, Exporter
from manyheads.exporting.gate import LIMIT, Gate
from manyheads.exporting.gate_report import GateReport
from manyheads.exporting.graph import OPSET, OPSETS
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
    predictor_of_folder,
    report_name,
)
from manyheads.storage import (
    Manifest,
    StrPath,
    add_files,
    is_model_folder,
    read_manifest,
    resolve_model,
)
from manyheads.tasks import TaskSpec

BACKENDS_OF = {
    "float32": (ONNX,),
    "int8": (ONNX_INT8,),
    "openvino": (OPENVINO, OPENVINO_INT8),
}
"""By format, the backends that it makes a graph for."""
FORMATS = tuple(BACKENDS_OF)
DEFAULT_FORMATS = ("float32", "int8")

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


@restored_threads()
def export_model(
    model: StrPath = "saved_model",
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    data: StrPath | None = None,
    layout: Layout | None = None,
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
        layout: how `data` are laid out, where content and names do not show it.
        limit: points of its main metric that a head may lose, beyond chance.
        opset: the version of ONNX's operators.
        threads: processor threads; default, all available cores.
        report: takes the gate's report on each graph, passing or not.
        progress: takes the next step, in a few words.

    Raises:
        ModelError: the model cannot be read or exported.
        DataError: there is nothing to compare on, or a head has no labelled record.
        RequestError: there is no such format, the limit or the version is out of range, or a layout
            is given without data.
        StorageError: a graph cannot be written.
    """
    formats = listed("formats", formats)
    _check_request(formats, limit, opset)
    refuse_layout_alone(layout, data)
    manifest = read_manifest(_model_folder(model))
    seen = data is None and manifest.config.get("refit") is not None
    if seen:
        progress(
            "warning: the model has learned from the records that its graphs are compared on, so "
            "they may lose more on others. To compare on others: " + option("--file FILE", "`data`")
        )
    exporter = _exporter(manifest, data, layout, limit, opset, threads, progress)
    kept: list[GateReport] = []
    refused: list[GateReport] = []
    missing: list[str] = []
    for backend in (one for form in FORMATS if form in formats for one in BACKENDS_OF[form]):
        candidate = _first_passing(exporter, backend, report, refused)
        if candidate is None:
            _remove_graph(manifest, backend)
            missing.append(backend)
        else:
            progress(f"writing {GRAPHS[backend]}")
            _add_graph(manifest, backend, exporter, candidate, is_fresh=not seen)
            kept.append(candidate.report)
    return ExportResult(manifest.folder, tuple(kept), tuple(refused), tuple(missing))


def _check_request(formats: Sequence[str], limit: float, opset: int) -> None:
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
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise RequestError(
            f"version {opset} of ONNX's operators",
            expected=f"one from {OPSETS[0]} to {OPSETS[1]}",
            fix=f"Leave {option('--opset')} out for {OPSET}.",
        )


def _model_folder(model: StrPath) -> Path:
    folder = resolve_model(model)
    if not is_model_folder(folder):
        raise ModelError(
            "a checkpoint cannot be exported", where=at(folder),
            expected="a model folder, into which the graphs go",
            fix="Export the run's best model: "
            + option("manyheads export RUN_FOLDER", "manyheads.export(RUN_FOLDER)"),
        )  # fmt: skip
    return folder


def _exporter(
    manifest: Manifest,
    data: StrPath | None,
    layout: Layout | None,
    limit: float,
    opset: int,
    threads: int | None,
    progress: Callable[[str], None],
) -> Exporter:
    """Load a model folder, and predict with PyTorch what its graphs are compared with."""
    from manyheads.inference.backends import pytorch
    from manyheads.modeling import choose_compute

    progress("loading the model")
    folder, trained = manifest.folder, pytorch.load_trained(manifest)
    if trained.model.encoder.reads_padding:
        raise ModelError(
            f"a {trained.model.encoder.model_type} encoder cannot be exported: its output for a "
            "text depends on the padding, and so on the other texts of a batch",
            where=at(folder),
            fix=f"Predict with PyTorch ({option('--backend torch')}), or train another encoder.",
        )
    compute = choose_compute("cpu", "float32", threads)
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    sets = validation_sets(trained.config, specs, data, folder, layout)
    progress("predicting for the validation records with PyTorch in float32")
    gate = Gate(
        pytorch.TorchBackend(trained.model, compute),
        lambda backend: predictor_of_folder(manifest, backend),
        sets,
        limit=limit,
        unlabelled=training_texts(trained.config, specs, folder, UNLABELLED),
        threads=compute.threads,
    )
    return Exporter(
        trained.model, gate, manifest, opset, compute.threads, progress,
        lambda: calibration_batches(
            trained.config, specs, sets, folder, trained.tokenizer, trained.max_length
        ),
    )  # fmt: skip


def _first_passing(
    exporter: Exporter,
    backend: str,
    report: Callable[[GateReport], None],
    refused: list[GateReport],
) -> Candidate | None:
    """Return a backend's first graph that passes the gate; add reports of others to `refused`."""
    for candidate in exporter.candidates(backend):
        report(candidate.report)
        if candidate.report.passed:
            return candidate
        refused.append(candidate.report)
    return None


def _add_graph(
    manifest: Manifest, backend: str, exporter: Exporter, candidate: Candidate, *, is_fresh: bool
) -> None:
    """Add a graph and, if its products have 8 bits, calibrations of its own.

    Those are fitted on records that the model has not learned from (`is_fresh`); on others the
    graph has the calibrations of the model.
    """
    own = exporter.calibrations(backend) if is_fresh else {}
    add_files(
        manifest,
        exporter.files(backend, candidate),
        remove=earlier_files(backend),
        calibration=_apart(backend, own) if backend in INT8 else None,
    )


def _remove_graph(manifest: Manifest, backend: str) -> None:
    """Remove the graph of an earlier export, which this one would refuse."""
    stale = [*graph_files(backend), report_name(backend), *earlier_files(backend)]
    add_files(manifest, {}, remove=stale + [ENCODER_GRAPH] * (backend == ONNX))


def _apart(
    backend: str, fitted: Mapping[str, FittedTask]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return a change that adds a backend's own calibrations, if the model is calibrated."""

    def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
        tasks = known.get("tasks", {})
        own = {name: task.to_json() for name, task in fitted.items() if name in tasks}
        return (
            {**known, "backends": {**known.get("backends", {}), backend: own}} if tasks else known
        )

    return change
