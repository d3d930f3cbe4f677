"""How fast the machine multiplies matrices of an encoder's own shapes, in float32 and bf16.

Axes: T tokens of a batch, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from manyheads.modeling import Encoder

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


def product_rates(tokens: int, hidden: int, wide: int) -> dict[str, dict[str, float]]:
    """Measure the products of one encoder layer, forward and backward.

    A layer has four [T, H] by [H, H] (query, key, value, output), one [T, H] by [H, wide] and one
    [T, wide] by [wide, H]. Training multiplies for the output, for the gradient of the input, and
    for the gradient of the weight.

    Args:
        tokens: T.
        hidden: H.
        wide: units of the feed-forward layer.

    Returns:
        Operations per second by precision: for each shape, and for `all` in a layer's proportion.
    """
    return {name: _layer(dtype, tokens, hidden, wide) for name, dtype in DTYPES.items()}


def _layer(dtype: torch.dtype, tokens: int, hidden: int, wide: int) -> dict[str, float]:
    rates: dict[str, float] = {}
    work = seconds = 0.0
    for count, inner, outer in ((4, hidden, hidden), (1, hidden, wide), (1, wide, hidden)):
        inputs = torch.randn(tokens, inner).to(dtype)
        weight = torch.randn(outer, inner).to(dtype)
        gradient = torch.randn(tokens, outer).to(dtype)
        operations = 2.0 * tokens * inner * outer
        for part, left, right in (
            ("output", inputs, weight.t()),
            ("input's gradient", gradient, weight),
            ("weight's gradient", gradient.t(), inputs),
        ):
            taken = _best_seconds(partial(torch.mm, left, right))
            rates[f"{inner} to {outer}, {part}"] = operations / taken
            work += count * operations
            seconds += count * taken
    return {"all": work / seconds, **rates}


def _best_seconds(action: Callable[[], object], seconds: float = 0.05) -> float:
    """Return the shortest time of five trials."""
    action()
    best = float("inf")
    for _ in range(5):
        done, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            action()
            done += 1
        best = min(best, elapsed / done)
    return best


def parameters(encoder: Encoder) -> dict[str, int]:
    """Count the encoder's parameters: those in matrix products, and all.

    Embedding tables are looked up, not multiplied, and BERT's pooler is unused.
    """
    backbone: Any = encoder.backbone
    products = sum(
        module.weight.numel()
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith("pooler")
    )
    return {"products": products, "all": sum(p.numel() for p in backbone.parameters())}


def shares(
    tokens_per_second: float, counts: Mapping[str, int], rates: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Divide 6 x parameters x tokens per second by the machine's rates.

    Six: one product and one sum per parameter and token, forward and twice backward.
    """
    return {
        which: {
            precision: 6.0 * count * tokens_per_second / rate["all"]
            for precision, rate in rates.items()
        }
        for which, count in counts.items()
    }
