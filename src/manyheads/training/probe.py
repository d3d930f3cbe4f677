"""The head that judges entities: a small network on the vectors of two of the encoder's layers.

Axes: B sentences, T tokens, W words, H hidden, M layers, N units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from manyheads.modeling import EncoderShape
from manyheads.modeling.heads import Features, TaggingHead
from manyheads.tasks import TagSet

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


class _TwoLayers(nn.Module):
    """Reads the probed layers."""

    def __init__(self, encoder: EncoderShape) -> None:
        super().__init__()
        self.numbers = probed_layers(encoder)
        self.mix = True
        """All layers are read (see `TaggingHead`)."""

    def forward(self, features: Features) -> Tensor:
        """Return [B, T, M H] float32 (see `joined`)."""
        assert features.layers is not None
        return joined([features.layers[n] for n in self.numbers])


class _Hidden(nn.Module):
    """A hidden layer in place of a neck."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project = nn.Linear(size, UNITS)
        self.output_size = UNITS

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map [B, W, H] to [B, W, N]."""
        return functional.gelu(self.project(words))


def probe(tags: TagSet, encoder: EncoderShape) -> TaggingHead:
    """Make the head."""
    reader = _TwoLayers(encoder)
    size = len(reader.numbers) * encoder.hidden_size
    return TaggingHead(tags, reader, _Hidden(size), hidden_size=size, crf=None, dropout=DROPOUT)  # type: ignore[arg-type]
