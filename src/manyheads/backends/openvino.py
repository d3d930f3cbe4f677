"""Run an exported model with OpenVINO (extra `openvino`).

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, shorten
from manyheads.windows import Batch


class OpenVinoBackend:
    """An exported graph, compiled by OpenVINO for this processor.

    Args:
        graph: the `.xml` file; its weights lie beside it.
        threads: processor threads; default, as OpenVINO chooses.
        name: what the backend is called in messages. Default: the file's.

    Raises:
        ModelError: it is not a graph that OpenVINO can run.
    """

    def __init__(
        self, graph: str | os.PathLike[str], *, threads: int | None = None, name: str = ""
    ) -> None:
        openvino: Any = import_module("openvino")

        path = Path(graph)
        self._name = name or os.fspath(path)
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot load the graph "
                f"({shorten(str(error), 200)})",
                expected="a graph that `manyheads export --format openvino` wrote",
                fix="Export the model again.",
                where=self._name,
            ) from error
        self._request = self._model.create_infer_request()
        self._inputs = [value.any_name for value in self._model.inputs]
        self._outputs = [value.any_name for value in self._model.outputs]

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return self._name

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding."""
        self._request.infer({name: getattr(batch, name) for name in self._inputs})
        # Copies, since the request's own memory is used again for the next batch.
        return {name: self._request.get_tensor(name).data.copy() for name in self._outputs}
