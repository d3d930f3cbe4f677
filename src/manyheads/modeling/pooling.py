"""Pooling: from token vectors to one sentence vector, as in sentence-transformers.

Axes: B sentences, T tokens, H hidden, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from manyheads.errors import ModelError, shorten
from manyheads.storage import DenseLayer


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """How the sentence embedding is computed from token vectors."""

    mode: str = "mean"
    """One of `POOLING_MODES`, or several joined by `+`, whose vectors are concatenated."""
    normalize: bool = False
    """Whether the embedding is scaled to length one."""
    dense: tuple[DenseLayer, ...] = ()
    """Dense layers between pooling and normalisation."""


class SentencePooling(nn.Module):
    """Computes a sentence vector from token vectors: pooling, then the Dense layers.

    Args:
        spec: the pooling.

    Raises:
        ModelError: a Dense layer's weights are not those that its settings describe.
    """

    def __init__(self, spec: PoolingSpec) -> None:
        super().__init__()
        self.mode = spec.mode
        self.dense = nn.ModuleList(_Dense(layer) for layer in spec.dense)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Map [B, T, H] and [B, T] to [B, E] float32; every sentence has a token."""
        vectors = pool(tokens, attention_mask, self.mode)
        for layer in self.dense:
            vectors = layer(vectors)
        return vectors


class _Dense(nn.Module):
    """A Dense layer. Its weights are buffers outside of training and of `state_dict`."""

    def __init__(self, layer: DenseLayer) -> None:
        super().__init__()
        shapes = {"linear.weight": [layer.out_features, layer.in_features]}
        if layer.bias:
            shapes["linear.bias"] = [layer.out_features]
        if layer.use_residual and layer.in_features != layer.out_features:
            shapes["residual.weight"] = shapes["linear.weight"]
        try:
            weights = load(layer.weights)
        except (SafetensorError, ValueError, KeyError) as error:
            raise _unusable(shorten(str(error), 160)) from None
        found = {name: list(tensor.shape) for name, tensor in weights.items()}
        if found != shapes:
            raise _unusable(f"{found} for {shapes}")
        for name, tensor in weights.items():
            self.register_buffer(name.replace(".", "_"), tensor.float(), persistent=False)
        self.activation: nn.Module = getattr(nn, layer.activation)()
        self.use_residual = layer.use_residual

    def forward(self, vectors: Tensor) -> Tensor:
        buffers = dict(self.named_buffers())
        with torch.autocast(vectors.device.type, enabled=False):
            output: Tensor = self.activation(
                functional.linear(vectors, buffers["linear_weight"], buffers.get("linear_bias"))
            )
            if not self.use_residual:
                return output
            residual = buffers.get("residual_weight")
            return output + (vectors if residual is None else functional.linear(vectors, residual))


def _unusable(found: str) -> ModelError:
    return ModelError(
        f"the weights of a Dense layer do not fit its settings ({found})",
        expected="what sentence-transformers writes", fix="Get the encoder again.",
    )  # fmt: skip


def pool(tokens: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """Reduce token vectors to a sentence vector, as sentence-transformers does.

    Args:
        tokens: [B, T, H] float.
        attention_mask: [B, T], 1 for tokens and 0 for padding, which is at the right. Every
            sentence has a token.
        mode: one of `POOLING_MODES`, or several joined by `+`.

    Returns:
        [B, H] float32, times the number of modes.
    """
    if "+" in mode:
        return torch.cat([pool(tokens, attention_mask, one) for one in mode.split("+")], dim=1)
    tokens = tokens.float()
    if mode == "cls":
        return tokens[:, 0]
    mask = attention_mask.unsqueeze(-1)
    if mode == "max":
        return tokens.masked_fill(mask == 0, -torch.inf).amax(dim=1)
    weights = mask.to(tokens.dtype)
    if mode == "lasttoken":
        # 1 for the last token of each sentence only.
        weights = weights - functional.pad(weights[:, 1:], (0, 0, 0, 1))
    elif mode == "weightedmean":
        weights = weights * weights.cumsum(dim=1)
    summed = (tokens * weights).sum(dim=1)
    if mode == "mean_sqrt_len_tokens":
        return summed / weights.sum(dim=1).sqrt()
    return summed / weights.sum(dim=1)
