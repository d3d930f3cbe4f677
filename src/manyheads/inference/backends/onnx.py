"""Run an exported model with onnxruntime: no deep-learning framework is imported.

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.config import available_cores
from manyheads.errors import ModelError, shorten
from manyheads.text import Batch

INPUTS = ("input_ids", "attention_mask", "word_tokens", "word_mask")

# Each is slower on processors than what it replaces (see docs/inference.md).
_UNWANTED_FUSIONS = ("SkipLayerNormFusion",)


class OnnxBackend:
    """An exported graph in an onnxruntime session.

    Args:
        graph: the file, or its contents.
        threads: processor threads; default, all cores that this process may use. They sleep
            when there is nothing to do: spinning would take the cores from other processes.
        name: what the backend is called in messages. Default: the file's.

    Raises:
        ModelError: it is not a graph that onnxruntime can run.
    """

    def __init__(
        self, graph: str | os.PathLike[str] | bytes, *, threads: int | None = None, name: str = ""
    ) -> None:
        import onnxruntime  # type: ignore[import-untyped]

        self.threads = threads or available_cores()
        where = name or (shorten(graph) if isinstance(graph, bytes) else os.fspath(graph))
        self._name = where
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                graph if isinstance(graph, bytes) else os.fspath(graph),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(_UNWANTED_FUSIONS),
            )
        except Exception as error:  # the library raises a type of its own for each cause
            raise ModelError(
                f"onnxruntime {onnxruntime.__version__} cannot load the graph "
                f"({shorten(str(error), 200)})",
                expected="a graph that `manyheads export` wrote",
                fix="Export the model again, or upgrade onnxruntime.",
                where=where,
            ) from error
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        unknown = [one for one in self._inputs if one not in INPUTS]
        if unknown:
            raise ModelError(
                f"the graph has an input {shorten(unknown[0])}",
                expected=f"none but {', '.join(INPUTS)}",
                fix="Export the model again.",
                where=where,
            )

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return self._name

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs: the tasks' and the embedding's."""
        return tuple(self._outputs)

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding."""
        # A graph without heads for words takes no words.
        feeds: dict[str, Any] = {name: getattr(batch, name) for name in self._inputs}
        values = self._session.run(self._outputs, feeds)
        return dict(zip(self._outputs, values, strict=True))
