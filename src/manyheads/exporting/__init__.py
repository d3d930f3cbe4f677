"""Export to ONNX and OpenVINO graphs, compared with the trained model."""

from __future__ import annotations

from manyheads.exporting.calibration import calibration_batches
from manyheads.exporting.export import DEFAULT_FORMATS, FORMATS, ExportResult, export_model
from manyheads.exporting.gate import Gate
from manyheads.exporting.gate_report import GateReport
from manyheads.exporting.validation import validation_sets

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "ExportResult",
    "Gate",
    "GateReport",
    "calibration_batches",
    "export_model",
    "validation_sets",
]
