"""An exported graph in the form of OpenVINO."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from manyheads.errors import RequestError
from manyheads.exported import OPENVINO, graph_files


def write_openvino(graph: bytes, folder: Path) -> dict[str, bytes]:
    """Convert a fused ONNX graph.

    Args:
        graph: its bytes.
        folder: an empty folder to work in.

    Returns:
        the files by their names in a model folder.

    Raises:
        RequestError: OpenVINO is not installed.
    """
    try:
        openvino: Any = import_module("openvino")
    except ImportError:
        raise RequestError(
            "format 'openvino' needs a package that is not installed",
            fix='Run: pip install "manyheads[openvino]"',
        ) from None
    source = folder / "model.onnx"
    source.write_bytes(graph)
    model = openvino.convert_model(source)
    target = folder / graph_files(OPENVINO)[0]
    target.parent.mkdir()
    openvino.save_model(model, target, compress_to_fp16=False)
    return {name: (folder / name).read_bytes() for name in graph_files(OPENVINO)}
