"""Exported models: which files they are, which is the fastest, and a predictor around one.

Everything is read from the model folder's own files; no deep-learning framework is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.config import BATCH_TOKENS, available_cores
from manyheads.errors import ModelError, RequestError, at, listing
from manyheads.inference.backends.base import Backend
from manyheads.inference.parallel import Lanes
from manyheads.inference.predictor import Predictor
from manyheads.storage import LAYOUT, Manifest, read_heads, read_manifest
from manyheads.tasks import TaskSpec, Transitions
from manyheads.text import TextTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

ONNX, ONNX_INT8 = "onnx", "onnx-int8"
OPENVINO, OPENVINO_INT8 = "openvino", "openvino-int8"

GRAPHS: Mapping[str, str] = {
    ONNX: "onnx/model.onnx",
    ONNX_INT8: "onnx/model_int8.onnx",
    OPENVINO: "openvino/model.xml",
    OPENVINO_INT8: "openvino/model_int8.xml",
}
"""By backend, the file in the model folder. One that the manifest lists has passed the gate."""


_OF_OPENVINO = (OPENVINO, OPENVINO_INT8)


def report_name(backend: str) -> str:
    """Name the file in the model folder that says what the gate found."""
    return f"{GRAPHS[backend].rpartition('.')[0]}.report.json"


def graph_files(backend: str) -> tuple[str, ...]:
    """Name the files of a backend's graph, the one to open first."""
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
    for backend, name in GRAPHS.items():
        if name in manifest.files:
            report = manifest.read_json(report_name(backend))
            found = report if isinstance(report, dict) else {}
            rate, wait = (
                float(value) if isinstance(value, int | float) and value > 0 else 0.0
                for value in map(found.get, ("sentences_per_second", "milliseconds_alone"))
            )
            speeds[backend] = (1.0 / wait if wait else 0.0, rate) if alone else (rate, 0.0)
    return tuple(sorted(speeds, key=speeds.__getitem__, reverse=True))


def fastest_backend(manifest: Manifest, *, alone: bool = False) -> str | None:
    """Return the fastest exported backend that can run here, or None where there is none."""
    for backend in exported_backends(manifest, alone=alone):
        if backend not in _OF_OPENVINO or _has_openvino():
            return backend
    return None


def load_exported(
    folder: str | os.PathLike[str] | Manifest,
    backend: str = "auto",
    *,
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Predictor:
    """Load an exported model for prediction.

    Args:
        folder: the model folder, or its manifest.
        backend: one of `GRAPHS`, or `auto`, the fastest there is.
        threads: processor threads; default, all cores that this process may use.
        batch_tokens: sub-tokens of a batch, padding included.

    Raises:
        ModelError: the model was not exported for the backend, or a file is damaged.
        RequestError: the backend is not installed.
    """
    manifest = folder if isinstance(folder, Manifest) else read_manifest(folder)
    chosen = fastest_backend(manifest) if backend == "auto" else backend
    if chosen is None or GRAPHS[chosen] not in manifest.files:
        there = exported_backends(manifest)
        raise ModelError(
            f"the model has not been exported{'' if chosen is None else f' for {chosen!r}'}",
            expected=f"{listing(there)}, which it has" if there else "an exported model",
            fix="Run: manyheads export MODEL",
            where=at(manifest.folder),
        )
    manifest.verify(*graph_files(chosen))
    return make_predictor(
        manifest,
        open_backend(chosen, manifest.path(GRAPHS[chosen]), threads=threads),
        batch_tokens=batch_tokens,
    )


def open_backend(backend: str, path: Path, *, threads: int | None = None) -> Backend:
    """Open a graph with the library that runs it, for as many batches at once as threads.

    Raises:
        ModelError: it cannot run the graph.
        RequestError: it is not installed.
    """
    count = threads or available_cores()
    name = f"{backend} ({path.name})"
    if backend in _OF_OPENVINO:
        if not _has_openvino():
            raise RequestError(
                f"backend {backend!r} needs a package that is not installed",
                fix='Run: pip install "manyheads[openvino]"',
            )
        from manyheads.inference.backends.openvino import OpenVinoBackend

        narrow: Backend = OpenVinoBackend(path, lanes=count, name=name)

        def open_wide() -> Backend:
            return OpenVinoBackend(path, threads=count, name=name)
    else:
        from manyheads.inference.backends.onnx import OnnxBackend

        narrow = OnnxBackend(path, threads=1, name=name)

        def open_wide() -> Backend:
            return OnnxBackend(path, threads=count, name=name)

    return Lanes(narrow, open_wide, count) if count > 1 else narrow


def make_predictor(
    manifest: Manifest, backend: Backend, *, batch_tokens: int = BATCH_TOKENS
) -> Predictor:
    """Put a predictor around a backend, from the model folder's small files.

    Raises:
        ModelError: one of them is damaged or does not fit.
    """
    config = manifest.read_json(LAYOUT.config)
    tokenizer = manifest.read(LAYOUT.tokenizer).decode("utf-8", errors="replace")
    specs = [TaskSpec.from_json(task) for task in manifest.tasks]
    return Predictor(
        backend,
        TextTokenizer.from_json(tokenizer, where=at(manifest.folder / LAYOUT.tokenizer)),
        specs,
        max_length=manifest.max_length,
        pad_id=int(config.get("pad_token_id") or 0),
        transitions=_transitions(manifest, specs),
        normalize=manifest.normalize,
        token_budget=batch_tokens,
    )


def _transitions(manifest: Manifest, specs: list[TaskSpec]) -> dict[str, Transitions]:
    """Read what CRF heads learned about sequences of tags."""
    names = [spec.name for spec in specs if spec.decoder == "crf"]
    if not names:
        return {}
    tensors: Mapping[str, NDArray[Any]] = read_heads(manifest)
    found = {}
    for name in names:
        parts = []
        for part in ("start", "end", "pairwise"):
            tensor = tensors.get(f"{name}.crf.{part}")
            if tensor is None:
                raise ModelError(
                    f"has no parameter {name}.crf.{part}",
                    expected="the learned transitions of every task with a CRF",
                    fix="Export the model again, or copy the whole folder again.",
                    where=at(manifest.folder / LAYOUT.heads),
                )
            parts.append(tensor.astype("float32"))
        found[name] = Transitions(*parts)
    return found


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None
