"""Run an exported model with OpenVINO (extra `openvino`).

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, shorten
from manyheads.text import Batch


@cache
def openvino_core() -> Any:
    """Return the process's one `openvino.Core`, its processor plugin loaded, for good.

    The plugin gives the main thread a stack for signal handlers and takes it back with the core.
    Of two cores that do not end in the reverse of their order, the second leaves the first one's
    freed stack behind, and the next Ctrl-C is a segmentation fault.
    """
    core = import_module("openvino").Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class OpenVinoBackend:
    """An exported graph, compiled by OpenVINO for this processor.

    Args:
        graph: the `.xml` file; its weights lie beside it.
        threads: processor threads that compute a batch.
        lanes: batches that are computed at the same time, each by as many threads.
        name: what the backend is called in messages. Default: the file's.

    Raises:
        ModelError: it is not a graph that OpenVINO can run.
    """

    def __init__(
        self, graph: str | os.PathLike[str], *, threads: int = 1, lanes: int = 1, name: str = ""
    ) -> None:
        openvino: Any = import_module("openvino")

        path = Path(graph)
        self._name = name or os.fspath(path)
        settings: dict[str, object] = {
            "PERFORMANCE_HINT": "LATENCY" if lanes == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads * lanes,
            "NUM_STREAMS": lanes,
            # Processes that share a machine would all take the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino_core()
            model = core.read_model(path)
            # Compiled, a tensor may get further names.
            self._inputs = [value.any_name for value in model.inputs]
            self._outputs = [value.any_name for value in model.outputs]
            self._model = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot load the graph "
                f"({shorten(str(error), 200)})",
                expected="a graph that `manyheads export --format openvino` wrote",
                fix="Export the model again.",
                where=self._name,
            ) from error
        self._idle: SimpleQueue[Any] = SimpleQueue()

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return self._name

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding."""
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._model.create_infer_request()
        try:
            request.infer({name: getattr(batch, name) for name in self._inputs})
            # Copies, since the request's own memory is used again for the next batch.
            return {
                name: request.get_output_tensor(i).data.copy()
                for i, name in enumerate(self._outputs)
            }
        finally:
            self._idle.put(request)
