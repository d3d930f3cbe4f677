"""Run an exported model with OpenVINO (extra `openvino`).

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, RequestError, shorten
from manyheads.inference.backends.base import cannot_run, check_inputs, check_memory
from manyheads.text import Batch


def import_openvino() -> Any:
    """Import OpenVINO without the usage report that it would send."""
    decline_reports()
    return import_module("openvino")


def decline_reports() -> None:
    """Withhold consent to reports about the use of OpenVINO and nncf, for this process.

    Both report through one object per process, which checks its own `consent`. If it does not
    exist, it is created here, with the name that `import openvino` would use, which otherwise would
    create another. The other switch is a file in the user's home, which is not touched.
    """
    if find_spec("openvino_telemetry") is not None:
        with suppress(AttributeError, TypeError, OSError):
            telemetry = import_module("openvino_telemetry").Telemetry
            # With the dialogue enabled, consent is not assumed; only OpenVINO's commands show it.
            telemetry(
                app_name="OpenVINO", app_version="", tid="", backend="ga4",
                enable_opt_in_dialog=True,
            ).consent = False  # fmt: skip


@cache
def openvino_core() -> Any:
    """Return the only `openvino.Core` of the process, which is never freed, with its CPU plugin.

    The plugin gives the main thread a stack for signal handlers and takes it back with the core. If
    two cores are not freed in reverse order, the second restores the freed stack of the first, and
    the next Ctrl-C is a segmentation fault.
    """
    core = import_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core


class OpenVinoBackend:
    """An exported graph, compiled by OpenVINO for this processor.

    Args:
        graph: the contents of the `.xml` file, so that the checked bytes are the bytes that run.
            The caller must have called `check_openvino`.
        weights: the contents of the `.bin` file.
        threads: processor threads that compute a batch.
        batches: batches that are computed at the same time, each by as many threads.
        name: the backend's name in messages.

    Raises:
        ModelError: it is not a graph that OpenVINO can run.
    """

    def __init__(
        self, graph: bytes, weights: bytes, *, name: str, threads: int = 1, batches: int = 1
    ) -> None:
        self._name = name
        self._process = os.getpid()
        self._weights = weights  # the model refers to them
        openvino = import_openvino()
        try:
            core = openvino_core()
            model = core.read_model(graph, weights)
            # Compiled, a tensor may get further names.
            self._inputs = [value.any_name for value in model.inputs]
            self._outputs = [value.any_name for value in model.outputs]
            self.shapes = {value.any_name: _dimensions(value) for value in model.outputs}
            """By output, its dimensions: numbers, or texts where they depend on the batch."""
            self._model = core.compile_model(model, "CPU", _settings(threads, batches))
        except Exception as error:  # the library raises many types
            check_memory(error)
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot load the graph "
                f"({shorten(str(error), 200)})",
                expected="a graph that `manyheads export --format openvino` wrote",
                fix="Export the model again.",
                where=self._name,
            ) from error
        check_inputs(self._inputs, name)
        self._idle: SimpleQueue[Any] = SimpleQueue()

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return self._name

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding (see `Backend.run`)."""
        if self._process != os.getpid():
            raise RequestError(
                "the process was forked after the model was loaded: OpenVINO's threads are gone",
                expected="a model that is loaded in the process that predicts",
                fix="Load it there, or start processes by spawning.",
                where=self._name,
            )
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._model.create_infer_request()
        try:
            try:
                request.infer(batch.feeds(self._inputs))
            except Exception as error:  # as above
                check_memory(error)
                raise cannot_run("OpenVINO", error, self._name) from error
            # Copies, since the request's memory is reused for the next batch.
            return {
                name: request.get_output_tensor(i).data.copy()
                for i, name in enumerate(self._outputs)
            }
        finally:
            self._idle.put(request)


def _settings(threads: int, batches: int) -> dict[str, object]:
    return {
        "PERFORMANCE_HINT": "LATENCY" if batches == 1 else "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads * batches,
        "NUM_STREAMS": batches,
        # Processes on one machine would all pin the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _dimensions(output: Any) -> tuple[int | str, ...]:
    return tuple(
        dimension.get_length() if dimension.is_static else str(dimension)
        for dimension in output.partial_shape
    )
