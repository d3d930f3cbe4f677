"""Attention with dropout for training on CPUs.

With dropout, torch uses many small operations on CPUs, and its softmax over short rows is slow.
Here the keys are the first axis, so that softmax vectorises over contiguous rows, and the backward
pass is written by hand.

Axes: B sentences, A attention heads, T tokens (Tq queries, Tk keys), D size of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manyheads.modeling.cpu.dropout import keep_mask

NAME = "manyheads"


def use_attention(backbone: Any) -> None:
    """Make a `transformers` encoder use this attention, if its attention can be set."""
    from transformers import AttentionInterface, AttentionMaskInterface

    if backbone.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask_of)
    backbone.set_attn_implementation(NAME)


def mask_of(*, device: torch.device | str = "cpu", **options: Any) -> Tensor | None:
    """Make a batch's mask, in the form that `transformers` expects.

    A batch without padding gets no mask, but only on CPUs: on other devices, reading the mask would
    block until all queued work is done.
    """
    from transformers.masking_utils import sdpa_mask

    if torch.device(device).type != "cpu":
        options["allow_is_bidirectional_skip"] = False
    return sdpa_mask(device=device, **options)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention, with the signature that `transformers` expects.

    Args:
        module: the layer's attention.
        query, key, value: [B, A, T, D].
        attention_mask: bool, true where a token may be attended to, or float to be added to the
            scores; [B or 1, A or 1, Tq or 1, Tk].
        dropout: the share of weights that are dropped.
        scaling: the factor on the scores.
        **options: further arguments of torch's own attention.

    Returns:
        [B, T, A, D], and None in place of the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    ours = (
        dropout > 0.0
        and query.device.type == "cpu"
        and query.shape == key.shape == value.shape
        and options.get("position_bias") is None
        # Without a mask, a layer may still be causal.
        and (attention_mask is not None or not getattr(module, "is_causal", True))
    )
    if not ours:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attended: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        query, key, value, _bias(attention_mask), scale, dropout
    )
    return attended.transpose(1, 2), None


def _bias(mask: Tensor | None) -> Tensor | None:
    """Turn a mask into a bias of the scores: float32 [Tk, B or 1, A or 1, Tq or 1]."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        # Finite, so that a token that may attend to nothing gets a mean instead of NaN.
        mask = torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)
    return mask.float().permute(3, 0, 1, 2).contiguous()


class _Attention(Function):
    """Dropout on the softmax of scaled scores, times the values (Vaswani et al., 2017)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float,
        p: float,
    ) -> Tensor:  # fmt: skip
        heads = query.shape[:2]
        queries, keys, values = _flat(query), _flat(key), _flat(value)
        scores = _keys_first(torch.bmm(keys, queries.transpose(1, 2)), heads).mul_(scale)
        if bias is not None:
            scores += bias
        weights = scores.softmax(0)
        kept = keep_mask(weights.shape, p, weights.dtype)
        dropped = _queries_first(weights * kept, query.dtype)
        ctx.save_for_backward(queries, keys, values, weights, kept, dropped)
        ctx.scale = scale
        return torch.bmm(dropped, values).view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights, kept, dropped = ctx.saved_tensors
        heads, shape = grad.shape[:2], grad.shape
        grads = _flat(grad)
        by_value = torch.bmm(dropped.transpose(1, 2), grads)
        by_weight = _keys_first(torch.bmm(values, grads.transpose(1, 2)), heads).mul_(kept)
        by_score = torch._softmax_backward_data(by_weight, weights, 0, weights.dtype)
        scores = _queries_first(by_score.mul_(ctx.scale), grad.dtype)
        by_query, by_key = torch.bmm(scores, keys), torch.bmm(scores.transpose(1, 2), queries)
        return by_query.view(shape), by_key.view(shape), by_value.view(shape), None, None, None


def _flat(vectors: Tensor) -> Tensor:
    """Join sentences and heads: [B, A, T, D] to [B A, T, D]."""
    return vectors.reshape(-1, *vectors.shape[2:])


def _keys_first(scores: Tensor, heads: torch.Size) -> Tensor:
    """Turn [B A, Tk, Tq] of any precision into contiguous float32 [Tk, B, A, Tq]."""
    apart = scores.view(*heads, *scores.shape[1:]).permute(2, 0, 1, 3)
    return apart.contiguous().float()


def _queries_first(weights: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn [Tk, B, A, Tq] into contiguous [B A, Tq, Tk] of the given precision."""
    apart = weights.permute(1, 2, 3, 0).to(dtype, memory_format=torch.contiguous_format)
    return apart.reshape(-1, *apart.shape[2:])
