"""Texts to predictions with PyTorch, onnxruntime, OpenVINO or Ray."""

from __future__ import annotations

from manyheads.inference.backends.base import Backend, Watched
from manyheads.inference.files import can_continue, describe_run, write_predictions
from manyheads.inference.graphs import (
    ENCODER_GRAPH,
    GRAPHS,
    INT8,
    ONNX,
    ONNX_INT8,
    OPENVINO,
    OPENVINO_INT8,
    earlier_files,
    exported_backends,
    graph_files,
    load_exported,
    open_backend,
    predictor_of_folder,
    report_name,
)
from manyheads.inference.loading import LoadedModel, load_model, read_trust
from manyheads.inference.parallel import ParallelBackend, single_batch_backend
from manyheads.inference.postprocessing import Recorded
from manyheads.inference.predictor import Predictor, embed_texts
from manyheads.inference.processor import sums_overflow
from manyheads.inference.runtime import Runtime
from manyheads.inference.texts import Text, TextPair, WhenEmpty
from manyheads.inference.trust import read_scope, store_calibration

__all__ = [
    "ENCODER_GRAPH",
    "GRAPHS",
    "INT8",
    "ONNX",
    "ONNX_INT8",
    "OPENVINO",
    "OPENVINO_INT8",
    "Backend",
    "LoadedModel",
    "ParallelBackend",
    "Predictor",
    "Recorded",
    "Runtime",
    "Text",
    "TextPair",
    "Watched",
    "WhenEmpty",
    "can_continue",
    "describe_run",
    "earlier_files",
    "embed_texts",
    "exported_backends",
    "graph_files",
    "load_exported",
    "load_model",
    "open_backend",
    "predictor_of_folder",
    "read_scope",
    "read_trust",
    "report_name",
    "single_batch_backend",
    "store_calibration",
    "sums_overflow",
    "write_predictions",
]
