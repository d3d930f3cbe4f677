"""The optimiser: parameter groups, learning rates over time, and clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from manyheads.config import Config
from manyheads.modeling import MultiTaskModel, encoder_groups


def parameter_groups(model: MultiTaskModel, config: Config) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and weight decay.

    The encoder (with copies of its layers) and the heads have separate rates; with `layer_decay`,
    each layer of the encoder has a lower one than the layer above it (Howard and Ruder 2018,
    "discriminative fine-tuning"). Biases, normalisation layers and other parameters of one
    dimension are not decayed, as in BERT's training.

    Returns:
        Groups for an optimiser, each with its peak rate under `peak_lr` and the parameters'
        names under `names`.
    """
    layers = model.encoder.shape.num_layers
    below_top: dict[str, int] = {}
    if config.layer_decay != 1:
        group_of = encoder_groups(model.encoder)
        below_top = {f"encoder.{name}": layers - group for name, group in group_of.items()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pretrained = name.startswith(("encoder.", "head_layers."))
        rate = config.learning_rate if pretrained else config.head_learning_rate
        rate *= config.layer_decay ** below_top.get(name, 0)
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
        total: optimiser steps in the run.
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


class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter, 2019) that accepts sparse gradients and treats them as dense.

    A batch reads about one row in a hundred of an embedding table. Its sparse gradient spares the
    backward pass a table of zeros; here its rows are copied into a reused table of zeros, so that
    rows without a gradient decay and follow their momentum as usual.

    Args:
        groups: of parameters, with their names (see `parameter_groups`).
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)
        self._dense: dict[nn.Parameter, Tensor] = {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state of the parameters by their names.

        A run with more or fewer epochs than before may unfreeze more or fewer layers: parameters
        that are trained only now begin without a state, and that of others is dropped.
        """
        saved = {
            name: (state_dict["state"].get(number), group["lr"])
            for group in state_dict["param_groups"]
            for name, number in zip(group["names"], group["params"], strict=True)
        }
        state, groups = {}, self.state_dict()["param_groups"]
        for group in groups:
            for name, number in zip(group["names"], group["params"], strict=True):
                values, rate = saved.get(name, (None, group["lr"]))
                group["lr"] = rate
                if values is not None:
                    state[number] = values
        super().load_state_dict({"state": state, "param_groups": groups})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient; sparse gradients must be coalesced."""
        laid: list[tuple[nn.Parameter, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None or not gradient.is_sparse:
                    continue
                if parameter not in self._dense:
                    self._dense[parameter] = torch.zeros_like(parameter)
                rows = gradient.indices()[0]
                parameter.grad = self._dense[parameter].index_copy_(0, rows, gradient.values())
                laid.append((parameter, rows))
        super().step()
        for parameter, rows in laid:
            self._dense[parameter].index_fill_(0, rows, 0.0)
            parameter.grad = None

    def step_if(self, wanted: Tensor) -> None:
        """Do the same if a bool scalar on the parameters' device is true, without reading it."""
        # The fused kernel's interface for gradient scalers.
        self.found_inf = (~wanted).float()
        try:
            self.step()
        finally:
            del self.found_inf


def clip(parameters: Iterable[Tensor], max_norm: float, weight: float | Tensor = 1.0) -> Tensor:
    """Clip the total norm of the gradients; returns the norm before, a float32 scalar.

    The limit is `max_norm` times the weight, a number or a scalar on the parameters' device: a
    loss with three times the weight may have three times the gradient norm. At the same limit, the
    weight would have no effect.

    Sparse gradients are coalesced, so that each row counts once. The norm is 0 if there are no
    gradients, because everything that the step would train is still frozen.
    """
    parameters = list(parameters)
    gradients = [_values(p) for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    norm = nn.utils.get_total_norm(gradients)
    if max_norm > 0:
        factor = (max_norm * weight / (norm + 1e-6)).clamp(max=1.0)
        # On a CPU a plain number is three times as fast; elsewhere, reading it blocks.
        torch._foreach_mul_(gradients, float(factor) if norm.device.type == "cpu" else factor)
    return norm


def _values(parameter: Tensor) -> Tensor:
    """Return a gradient's values, after coalescing a sparse one in place."""
    gradient = parameter.grad
    assert gradient is not None
    if not gradient.is_sparse:
        return gradient
    parameter.grad = gradient.coalesce()
    return parameter.grad.values()
