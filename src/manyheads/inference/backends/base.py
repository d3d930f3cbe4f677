"""The interface of a backend, which computes a model's outputs for a batch.

Axes: B windows or sentences of a batch, W words, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from manyheads.errors import ModelError, shorten
from manyheads.text import Batch, Floats

INPUTS = ("input_ids", "attention_mask", "word_tokens", "word_mask", "word_features")
"""The inputs that a graph may have, as `Batch` names them."""


def check_inputs(names: Sequence[str], where: str) -> None:
    """Refuse a graph with inputs that a batch does not have.

    Raises:
        ModelError: there is such an input.
    """
    unknown = [name for name in names if name not in INPUTS]
    if unknown:
        raise ModelError(
            f"the graph has an input {shorten(unknown[0])}",
            expected=f"none but {', '.join(INPUTS)}",
            fix="Export the model again.",
            where=where,
        )


def cannot_run(library: str, error: Exception, where: str) -> ModelError:
    """Make the error for a graph that its library cannot run."""
    return ModelError(
        f"{library} cannot run the graph ({shorten(str(error), 200)})",
        expected="a graph that belongs to the model's tokenizer and tasks",
        fix="Export the model again.",
        where=where,
    )


def check_memory(error: Exception) -> None:
    """Tell a lack of memory from other errors of a library that runs graphs.

    Raises:
        MemoryError: there was not enough.
    """
    if "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
        raise MemoryError from error


class Backend(Protocol):
    """Computes a model's outputs for a batch."""

    @property
    def name(self) -> str:
        """The backend's name in messages."""

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Run the model once.

        Returns:
            by name, the logits of every task, [B, L] or for tagging [B, W, L], and `embedding`,
            [B, H]. Neither padding nor other sentences may change a sentence's results. The arrays
            are not reused for the next batch.
        """


class Watched:
    """A backend that calls a function before each batch; an exception from it ends the prediction.

    Args:
        backend: computes the outputs.
        before_batch: the function.
    """

    def __init__(self, backend: Backend, before_batch: Callable[[], None]) -> None:
        self._backend = backend
        self._before_batch = before_batch

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return self._backend.name

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Call the function, then run the model once."""
        self._before_batch()
        return self._backend.run(batch)
