"""The interface of a backend, which computes a model's outputs for a batch.

Axes: B windows or sentences of a batch, W words, H hidden, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from manyheads.text import Batch, Floats

INPUTS = ("input_ids", "attention_mask", "word_tokens", "word_mask")
"""The inputs that a graph may have, as `Batch` names them."""


class Backend(Protocol):
    """Computes a model's outputs for a batch."""

    @property
    def name(self) -> str:
        """The backend's name in messages."""

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Run the model once.

        Returns:
            by name, the logits of every task, [B, L] or for tagging [B, W, L], and `embedding`,
            [B, H]. Neither padding nor the other sentences may change a sentence's results, and
            the arrays are not used again for the next batch.
        """
