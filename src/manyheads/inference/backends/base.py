"""What a backend is: it computes the model's outputs for a batch.

Axes: B windows or sentences of a batch, W words, H hidden, L labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from manyheads.text import Batch, Floats

EMBEDDING = "embedding"
"""The name of the embedding among a backend's outputs."""


class Backend(Protocol):
    """What computes a model's outputs for a batch."""

    @property
    def name(self) -> str:
        """What the backend is called in messages."""

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Run the model once.

        Returns:
            by name, the logits of every task, [B, L] or for tagging [B, W, L], and `embedding`,
            [B, H]. Neither padding nor the other sentences may change a sentence's results, and
            the arrays are not used again for the next batch.
        """
