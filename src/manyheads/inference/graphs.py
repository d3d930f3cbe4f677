"""Exported models: their files, the fastest of them, and a predictor around one.

Only files of the model folder are read, each once, so that the verified bytes are the bytes that
run. No deep-learning framework is imported.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from manyheads.config import BATCH_TOKENS, available_cores
from manyheads.errors import (
    ModelError,
    RequestError,
    at,
    counted,
    install,
    listing,
    option,
    shorten,
)
from manyheads.inference.backends.base import Backend
from manyheads.inference.graph_check import check_onnx, check_openvino
from manyheads.inference.parallel import ParallelBackend, single_batch_backend
from manyheads.inference.predictor import Predictor
from manyheads.inference.processor import (
    agrees,
    exported_on,
    processor_kind,
    sums_overflow,
    wants_comparison,
)
from manyheads.inference.runtime import Runtime
from manyheads.inference.trust import read_scope, read_scorings
from manyheads.storage import LAYOUT, Manifest, read_heads, read_manifest, sha256
from manyheads.tasks import EMBEDDING, TaskSpec, kind_of
from manyheads.tasks.kinds import Shape, fits
from manyheads.text import TextTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONNX, ONNX_INT8 = "onnx", "onnx-int8"
OPENVINO, OPENVINO_INT8 = "openvino", "openvino-int8"

GRAPHS: Mapping[str, str] = {
    ONNX: "onnx/manyheads.onnx",
    ONNX_INT8: "onnx/manyheads_int8.onnx",
    OPENVINO: "openvino/model.xml",
    OPENVINO_INT8: "openvino/model_int8.xml",
}
"""By backend, the file in the model folder. A file that the manifest lists has passed the gate."""

INT8 = (ONNX_INT8, OPENVINO_INT8)
"""Backends of 8-bit products, whose scores are calibrated apart."""

ENCODER_GRAPH = "onnx/model.onnx"
"""The encoder alone, under the name and with the inputs that other ONNX runtimes expect."""

# The names that version 0.1 gave its graphs. They have reports beside them; the encoder's has none.
_EARLIER = {ONNX: "onnx/model.onnx", ONNX_INT8: "onnx/model_int8.onnx"}

MAX_GRAPH_BYTES = 2 << 30
"""One protobuf message, and so one ONNX file, cannot be larger."""

_OF_OPENVINO = (OPENVINO, OPENVINO_INT8)

_WITHOUT_VNNI = {ONNX: 0.61, ONNX_INT8: 0.44, OPENVINO: 0.57, OPENVINO_INT8: 0.24}
"""The speed on a processor with AVX2 alone over that with AVX-512 and VNNI (docs/benchmarks.md)."""


def report_name(backend: str) -> str:
    """Return the name of the gate's report on a graph, in the model folder."""
    return _report_beside(GRAPHS[backend])


def earlier_files(backend: str) -> tuple[str, ...]:
    """Return the names under which version 0.1 wrote a backend's graph and report."""
    name = _EARLIER.get(backend)
    return () if name is None else (name, _report_beside(name))


def exported_graph(manifest: Manifest, backend: str) -> str | None:
    """Return the name of a backend's graph in a model folder, or None where there is none."""
    if GRAPHS[backend] in manifest.files:
        return GRAPHS[backend]
    earlier = earlier_files(backend)
    return earlier[0] if earlier and all(name in manifest.files for name in earlier) else None


def _report_beside(graph: str) -> str:
    return f"{graph.rpartition('.')[0]}.report.json"


def graph_files(backend: str) -> tuple[str, ...]:
    """Return the names of a graph's files in the model folder, the one to open first."""
    graph = GRAPHS[backend]
    weights = f"{graph.rpartition('.')[0]}.bin"
    return (graph, weights) if backend in _OF_OPENVINO else (graph,)


def exported_backends(manifest: Manifest, *, alone: bool = False) -> tuple[str, ...]:
    """Return the backends that a model has been exported for, the fastest measured first.

    Args:
        manifest: the model's.
        alone: whether texts will be asked one by one, not in batches.
    """
    speeds = {}
    for backend in GRAPHS:
        if (name := exported_graph(manifest, backend)) is not None:
            report = manifest.read_json(_report_beside(name))
            found = report if isinstance(report, dict) else {}
            rate, wait = map(_speed, map(found.get, ("sentences_per_second", "milliseconds_alone")))
            here = _speed_here(backend, found)
            rate, wait = rate * here, wait / here
            speeds[backend] = (1.0 / wait if wait else 0.0, rate) if alone else (rate, 0.0)
    return tuple(sorted(speeds, key=speeds.__getitem__, reverse=True))


def _speed_here(backend: str, report: Mapping[str, Any]) -> float:
    """Return the speed on this processor relative to that of a report, as far as known."""
    there = exported_on(report)
    if there is None or sums_overflow(there) == sums_overflow():
        return 1.0
    left = _WITHOUT_VNNI[backend]
    return left if sums_overflow() else 1.0 / left


def _speed(value: object) -> float:
    """Return a measured number that is usable, or 0."""
    return float(value) if isinstance(value, int | float) and 0 < value < 1e12 else 0.0


def runnable_backends(manifest: Manifest, *, alone: bool = False) -> tuple[str, ...]:
    """Return the exported backends that are installed here, the fastest measured first."""
    found = exported_backends(manifest, alone=alone)
    return tuple(one for one in found if one not in _OF_OPENVINO or _has_openvino())


def load_exported(
    folder: str | os.PathLike[str] | Manifest,
    runtime: Runtime = Runtime(),
    *,
    alone: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> Predictor:
    """Load an exported model for prediction.

    On another kind of processor than that of the export, a graph of 8-bit products is first
    compared with its report. If it computes something else, `auto` tries the next graph.

    Args:
        folder: the model folder, or its manifest.
        runtime: its backend is one of `GRAPHS`, or `auto`, the fastest available one.
        alone: whether texts will be predicted one by one, not in batches.
        warn: takes messages to the user about graphs that were tried.

    Raises:
        ModelError: the model was not exported for the backend, a file is damaged, or no graph
            computes the same here as where it was exported.
        RequestError: the backend is not installed.
    """
    manifest = folder if isinstance(folder, Manifest) else read_manifest(folder)
    backend, batch_tokens = runtime.backend, runtime.batch_tokens
    for chosen in _candidates(manifest, backend, alone):
        opened = open_backend(chosen, _read_graph(manifest, chosen), threads=runtime.threads)
        predictor = predictor_of_folder(manifest, opened, chosen, batch_tokens=batch_tokens)
        if _computes_the_same(chosen, predictor, manifest):
            break
        warn(
            f"{manifest.folder}: graph {chosen!r} computes something else on this kind of "
            f"processor ({processor_kind()}) than where it was exported"
            + ("" if backend == "auto" else ". Export the model again on this machine")
        )
    else:
        if backend == "auto":
            raise ModelError(
                "no graph computes on this kind of processor what it did where it was exported",
                expected="the same outputs for the sentences of the export's report",
                fix=f"Export the model again on this machine, or use {option('--backend torch')}.",
                where=at(manifest.folder),
            )
    folder_path = os.fspath(manifest.folder.resolve())
    origin = Origin(folder_path, _digest(manifest), replace(runtime, backend=chosen))
    predictor.reload = partial(reload, origin)
    return predictor


def _candidates(manifest: Manifest, backend: str, alone: bool) -> tuple[str, ...]:
    """Return the backends to try, in order: the one that is named, or all that can run here.

    Raises:
        ModelError: the model was not exported for one of them.
    """
    candidates = runnable_backends(manifest, alone=alone) if backend == "auto" else (backend,)
    if not any(exported_graph(manifest, one) for one in candidates):
        there = exported_backends(manifest)
        raise ModelError(
            f"the model has not been exported{f' for {backend!r}' if candidates else ''}",
            expected=f"{listing(there)}, which it has" if there else "an exported model",
            fix="Run: " + option("manyheads export MODEL", "manyheads.export(MODEL)"),
            where=at(manifest.folder),
        )
    return candidates


def _read_graph(manifest: Manifest, backend: str) -> dict[str, bytes]:
    """Read a backend's files, checked against the manifest, by the names of `graph_files`."""
    names = graph_files(backend)
    stored = (exported_graph(manifest, backend) or "", *names[1:])
    return {
        name: manifest.read(own, MAX_GRAPH_BYTES) for name, own in zip(names, stored, strict=True)
    }


def _computes_the_same(backend: str, predictor: Predictor, manifest: Manifest) -> bool:
    """Compare a graph of 8-bit products with its report, if that is of another processor."""
    if backend not in INT8:
        return True
    report = manifest.read_json(_report_beside(exported_graph(manifest, backend) or ""))
    return not wants_comparison(report) or agrees(report, predictor.sample_outputs())


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and how a predictor was loaded; the content of a pickled predictor."""

    folder: str
    digest: str
    """Covers the tasks, the calibration and the checksums of all files."""
    runtime: Runtime


def reload(origin: Origin) -> Predictor:
    """Load a predictor that was pickled, from the same model.

    Raises:
        ModelError: the model is missing or has changed.
        RequestError: the backend is not installed.
    """
    manifest = read_manifest(origin.folder)
    if _digest(manifest) != origin.digest:
        raise ModelError(
            "the model has changed since the predictor was pickled",
            expected="the files that the predictor was loaded from",
            fix="Load the model again and pickle that predictor.",
            where=at(manifest.folder),
        )
    return load_exported(manifest, origin.runtime)


def _digest(manifest: Manifest) -> str:
    files = {name: stored.sha256 for name, stored in manifest.files.items()}
    parts = [manifest.tasks, files, manifest.calibration]
    return sha256(json.dumps(parts, sort_keys=True).encode())


def open_backend(
    backend: str, files: Mapping[str, bytes], *, threads: int | None = None
) -> Backend:
    """Open a graph with its library, for as many concurrent batches as threads.

    Args:
        backend: one of `GRAPHS`.
        files: the contents of `graph_files(backend)` by name. Later sessions use them, too.
        threads: processor threads; default, all cores that this process may use.

    Raises:
        ModelError: it cannot run the graph, or the graph is not one of an exported model.
        RequestError: it is not installed.
    """
    count = threads or available_cores()
    graph, *weights = (files[name] for name in graph_files(backend))
    name = f"{backend} ({GRAPHS[backend].rpartition('/')[2]})"
    if backend in _OF_OPENVINO:
        if not _has_openvino():
            raise RequestError(
                f"backend {backend!r} needs a package that is not installed",
                fix=install("openvino"),
            )
        from manyheads.inference.backends.openvino import OpenVinoBackend

        check_openvino(graph, weights[0], name)
        single: Backend = OpenVinoBackend(graph, weights[0], batches=count, name=name)

        def open_joint() -> Backend:
            return OpenVinoBackend(graph, weights[0], threads=count, name=name)
    else:
        from manyheads.inference.backends.onnx import OnnxBackend

        check_onnx(graph, name)
        int8 = backend in INT8
        single = OnnxBackend(graph, threads=1, name=name, int8=int8)

        def open_joint() -> Backend:
            return OnnxBackend(graph, threads=count, name=name, int8=int8)

    return ParallelBackend(single, open_joint, count) if count > 1 else single


def predictor_of_folder(
    manifest: Manifest,
    backend: Backend,
    name: str | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Predictor:
    """Put a predictor around a backend, from the model folder's small files.

    Args:
        manifest: the model's.
        backend: runs the model.
        name: one of `GRAPHS`, for the calibration of its scores; default: no calibration.
        batch_tokens: sub-tokens of a batch, padding included.

    Raises:
        ModelError: a file is damaged, or the graph's outputs do not fit the tasks.
    """
    config = manifest.read_json(LAYOUT.config)
    pad_id = (config.get("pad_token_id") or 0) if isinstance(config, dict) else None
    if type(pad_id) is not int or not 0 <= pad_id < 1 << 31:
        raise ModelError(
            f"has the padding token {shorten(pad_id)}",
            expected="the configuration of an encoder, with a token id as `pad_token_id`",
            fix="Export the model again, or copy the whole folder again.",
            where=at(manifest.folder / LAYOUT.config),
        )
    tokenizer = manifest.read(LAYOUT.tokenizer).decode("utf-8", errors="replace")
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    _check_outputs(single_batch_backend(backend), specs, manifest)
    return Predictor(
        backend,
        TextTokenizer.from_json(tokenizer, where=at(manifest.folder / LAYOUT.tokenizer)),
        specs,
        max_length=manifest.max_length,
        pad_id=pad_id,
        learned=_learned(manifest, specs),
        reading=manifest.reading,
        token_budget=batch_tokens,
        embedding_size=manifest.embedding_size,
        scorings=None if name is None else read_scorings(manifest, specs, name),
        scope=None if name is None else read_scope(manifest, specs),
    )


def _check_outputs(backend: Backend, specs: Sequence[TaskSpec], manifest: Manifest) -> None:
    """Check a graph's outputs against the tasks, as far as the graph declares them.

    Raises:
        ModelError: an output is missing or has another size.
    """
    shapes: Mapping[str, tuple[Any, ...]] | None = getattr(backend, "shapes", None)
    if shapes is None:
        return
    sizes = {spec.name: kind_of(spec.kind).output_size(spec) for spec in specs if spec.answers}
    sizes[EMBEDDING] = manifest.embedding_size
    for name, size in sizes.items():
        shape = shapes.get(name, ())
        if not shape or (size and isinstance(shape[-1], int) and shape[-1] != size):
            raise ModelError(
                f"backend {backend.name} has "
                + (f"{counted(shape[-1], 'value')} in" if shape else "no") + f" output {name!r}",
                expected=f"{size} for that task" if shape
                else f"one for every task, and {EMBEDDING!r}; it has {listing(shapes)}",
                fix="Export the model again.",
                where=at(manifest.folder),
            )  # fmt: skip


def _learned(manifest: Manifest, specs: list[TaskSpec]) -> dict[str, Any]:
    """Read the heads' parameters that decoding needs, such as a CRF's transitions."""
    tensors: Mapping[str, NDArray[Any]] | None = None

    def read(task: str, name: str, shape: Shape) -> NDArray[np.float32]:
        nonlocal tensors
        if tensors is None:
            tensors = read_heads(manifest)
        tensor = tensors.get(f"{task}.{name}")
        if tensor is None or tensor.dtype.kind != "f" or not fits(tensor.shape, shape):
            what = "no parameter" if tensor is None else f"{tensor.dtype} {tensor.shape} as"
            raise ModelError(
                f"has {what} {task}.{name}",
                expected=f"the parameters that the task is decoded with, here {shape}",
                fix="Export the model again, or copy the whole folder again.",
                where=at(manifest.folder / LAYOUT.heads),
            )
        return tensor.astype(np.float32)

    return {spec.name: kind_of(spec.kind).learned(spec, partial(read, spec.name)) for spec in specs}


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None
