"""Upper layers that belong to the heads alone.

The heads read a copy of the encoder's upper layers, which is trained with them. The encoder's own
upper layers compute the sentence embedding, which can therefore stay unchanged. Both share the
lower layers, which run once.

Axes: B sentences, T tokens, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from manyheads.modeling.encoder import Encoder
from manyheads.modeling.upper_layers import UpperLayers


class HeadLayers(nn.Module):
    """A copy of an encoder's upper layers, equal to them until it is trained.

    Args:
        encoder: the encoder; it is not changed.
        count: the number of layers to copy, at least 1.

    Raises:
        ModelError: the encoder has fewer layers, or they cannot be run alone.
    """

    def __init__(self, encoder: Encoder, count: int) -> None:
        super().__init__()
        self.count = count
        self.reads = encoder.shape.num_layers - count
        """The index of the hidden state that the lowest of them reads; 0 is the embedding
        layer's output."""
        self.layers = copy.deepcopy(UpperLayers(encoder.backbone, self.reads))
        self.layers.requires_grad_(True)
        self.pooler = encoder.pooler

    def forward(
        self, below: Sequence[Tensor], attention_mask: Tensor, *, all_layers: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None, Tensor]:
        """Run the layers.

        Args:
            below: hidden states of the encoder, each [B, T, H]; the last one has index `reads`.
            attention_mask: [B, T] int64, 0 for padding.
            all_layers: also return every hidden state, including `below`.

        Returns:
            The last layer's output [B, T, H]; the hidden states, each [B, T, H], if requested; the
            sentence vector [B, H] float32, pooled like the encoder's.
        """
        tokens, own = self.layers(below[-1], attention_mask, all_layers=all_layers)
        layers = None if own is None else (*below, *own[1:])
        sentence: Tensor = self.pooler(tokens, attention_mask)
        return tokens, layers, sentence

    def set_attention(self, implementation: str) -> None:
        """Set the attention implementation, by its name in `transformers`."""
        self.layers.shell.set_attn_implementation(implementation)
