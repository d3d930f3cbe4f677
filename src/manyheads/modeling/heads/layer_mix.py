"""A learned mix of all encoder layers, for heads that benefit from more than the last one.

Peters et al. (2018), "Deep contextualized word representations", equation 1.

Axes: K hidden states, B sentences, T tokens, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from manyheads.modeling.features import Features


class ScalarMix(nn.Module):
    """The mean of the hidden states with softmax weights, times a learned scale.

    Args:
        num_states: K, the number of layers including the embedding layer.
    """

    def __init__(self, num_states: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_states))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Mix K hidden states [B, T, H] of any precision into one, float32."""
        weights = self.gamma * self.weights.softmax(dim=0)
        return torch.einsum("k,kbth->bth", weights, torch.stack(tuple(layers)).float())


class TokenReader(nn.Module):
    """The token vectors that a head reads: the last layer's, or a mix of all layers'.

    Args:
        mix: the mix; None reads the last layer.
    """

    def __init__(self, mix: ScalarMix | None) -> None:
        super().__init__()
        self.mix = mix

    def forward(self, features: Features) -> Tensor:
        """Return [B, T, H] float32."""
        if self.mix is None:
            return features.tokens.float()
        if features.layers is None:
            raise ValueError("a head that mixes layers needs all of them")
        mixed: Tensor = self.mix(features.layers)
        return mixed
