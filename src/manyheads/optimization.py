"""The optimiser: parameter groups, learning rates over time, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from manyheads.config import Config
from manyheads.model import MultiTaskModel


def parameter_groups(model: MultiTaskModel, config: Config) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and weight decay.

    The encoder and the heads have rates of their own. Biases, normalisation layers and other
    parameters of one dimension are not decayed (as in BERT's own training).

    Returns:
        Groups for an optimiser, each with its peak rate under `peak_lr` and the parameters'
        names under `names`.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = config.learning_rate if name.startswith("encoder.") else config.head_learning_rate
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        group = groups.setdefault(
            (rate, decay),
            {"params": [], "names": [], "lr": rate, "peak_lr": rate, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def rate_factor(step: int, total: int, warmup_ratio: float, schedule: str) -> float:
    """Return the share of the peak learning rate at a step: a pure function of the step.

    Args:
        step: optimiser steps done before this one.
        total: optimiser steps of the whole run.
        warmup_ratio: share of the steps over which the rate rises linearly.
        schedule: `linear` and `cosine` fall to zero at the end; `constant` stays.
    """
    warmup = math.ceil(total * warmup_ratio)
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    progress = (step - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to a share of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def clip(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to a total norm, and return the norm before, a float32 scalar."""
    with_gradient = [p for p in parameters if p.grad is not None]
    if max_norm > 0:
        return nn.utils.clip_grad_norm_(with_gradient, max_norm)
    return nn.utils.get_total_norm([p.grad for p in with_gradient if p.grad is not None])
