"""Pooling: one vector for a sentence out of the vectors of its tokens.

Axes: B sentences, T tokens, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool(tokens: Tensor, attention_mask: Tensor, mode: str) -> Tensor:
    """Reduce token vectors to a sentence vector, as sentence-transformers does.

    Args:
        tokens: [B, T, H] float.
        attention_mask: [B, T], 1 for tokens and 0 for padding. Every sentence has a token.
        mode: `mean`, `cls` or `max`.

    Returns:
        [B, H] float32.
    """
    tokens = tokens.float()
    if mode == "cls":
        return tokens[:, 0]
    mask = attention_mask.unsqueeze(-1)
    if mode == "max":
        return tokens.masked_fill(mask == 0, -torch.inf).amax(dim=1)
    weights = mask.to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
