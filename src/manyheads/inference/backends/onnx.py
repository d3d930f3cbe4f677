"""Run an exported model with onnxruntime: no deep-learning framework is imported.

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.config import available_cores
from manyheads.errors import ModelError, shorten
from manyheads.inference.backends.base import cannot_run, check_inputs, check_memory
from manyheads.inference.processor import sums_overflow
from manyheads.text import Batch

# Each is slower on CPUs than the operators it replaces (see docs/benchmarks.md).
_UNWANTED_FUSIONS = ("SkipLayerNormFusion",)


def import_onnxruntime(part: str = "") -> Any:
    """Import onnxruntime, or a part of it, without the usage reports that it would send.

    It keeps an identifier of the machine, and its reports until they are sent, in the user's home.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_module(f"onnxruntime.{part}" if part else "onnxruntime")


class OnnxBackend:
    """An exported graph in an onnxruntime session.

    Args:
        graph: the contents of the file, so that the checked bytes are the bytes that run. The
            caller must have called `check_onnx`.
        name: the backend's name in messages.
        threads: processor threads; default, all cores that this process may use. Idle threads
            sleep, since spinning would take the cores from other processes.
        int8: whether the ranges of its 8-bit products are those of the whole batch. Padding tokens
            have larger values than words do, which would coarsen all others; so each sentence is
            padded with its own last token, which no other token reads.

    Raises:
        ModelError: it is not a graph that onnxruntime can run.
    """

    def __init__(
        self, graph: bytes, *, name: str, threads: int | None = None, int8: bool = False
    ) -> None:
        onnxruntime = import_onnxruntime()
        self.threads = threads or available_cores()
        self._name = name
        self._int8 = int8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if sums_overflow():
            # Makes onnxruntime use unsigned weights, whose sums are exact. On some processors with
            # VNNI it would do so, too, where that is slower by half and no better.
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(_UNWANTED_FUSIONS),
            )
        except Exception as error:  # the library raises a type of its own for each cause
            check_memory(error)
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph "
                f"({shorten(str(error), 200)})",
                expected="a graph that `manyheads export` wrote",
                fix="Export the model again, or upgrade onnxruntime.",
                where=name,
            ) from error
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self.shapes = {value.name: tuple(value.shape) for value in self._session.get_outputs()}
        """By output, its dimensions: numbers, or names where they depend on the batch."""
        check_inputs(self._inputs, name)

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return self._name

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding (see `Backend.run`)."""
        if self._int8:
            batch = batch.with_tokens_as_padding()
        # A graph without heads for words takes no words.
        feeds = batch.feeds(self._inputs)
        try:
            values = self._session.run(self._outputs, feeds)
        except Exception as error:  # as above
            check_memory(error)
            raise cannot_run("onnxruntime", error, self._name) from error
        return dict(zip(self._outputs, values, strict=True))
