"""What probes a frozen encoder: a small network on the words' vectors of two of its layers.

Axes: B sentences, T tokens, W words, H hidden, M layers, N units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from manyheads.modeling.features import EncoderShape, Features

UNITS = 256
DROPOUT = 0.4
"""Strong, which keeps the network from being overconfident."""


def probed_layers(encoder: EncoderShape) -> list[int]:
    """Return a middle and an upper layer: the words themselves, and their context."""
    return sorted({(encoder.num_layers + 1) // 2, max(1, encoder.num_layers - 1)})


def joined(states: Sequence[Tensor]) -> Tensor:
    """Concatenate the vectors of M layers, each at mean 0 and deviation 1.

    Args:
        states: M times [..., H].

    Returns:
        [..., M H] float32.
    """
    vectors = [state.float() for state in states]
    return torch.cat([functional.layer_norm(v, v.shape[-1:]) for v in vectors], dim=-1)


class ProbedLayers(nn.Module):
    """Reads the probed layers, in place of a `TokenReader`."""

    def __init__(self, encoder: EncoderShape) -> None:
        super().__init__()
        self.numbers = probed_layers(encoder)
        self.output_size = len(self.numbers) * encoder.hidden_size
        self.mix = True
        """All layers are read (see `TaggingHead`)."""

    def forward(self, features: Features) -> Tensor:
        """Return [B, T, M H] float32 (see `joined`)."""
        assert features.layers is not None
        return joined([features.layers[n] for n in self.numbers])


class HiddenLayer(nn.Module):
    """A hidden layer in place of a neck."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, UNITS)
        self.output_size = UNITS

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map [B, W, M H] to [B, W, N]."""
        return functional.gelu(self.project(words))
