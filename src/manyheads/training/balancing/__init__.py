"""Task balancing: how much each task's loss counts, one class for each method.

To add a method, write a class and a line in `_METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from manyheads.config import Config
from manyheads.training.balancing.backward import Backward
from manyheads.training.balancing.gradient_means import GradientMeans
from manyheads.training.balancing.gradients import GradientStats, Gram, TaskGradients
from manyheads.training.balancing.surgery import CAGrad, PCGrad
from manyheads.training.balancing.weights import (
    Balancer,
    DynamicAveraging,
    GradNorm,
    StaticWeights,
    Uncertainty,
)

__all__ = [
    "Backward",
    "Balancer",
    "CAGrad",
    "DynamicAveraging",
    "GradNorm",
    "GradientMeans",
    "GradientStats",
    "Gram",
    "PCGrad",
    "StaticWeights",
    "TaskGradients",
    "Uncertainty",
    "learned_group",
    "make_balancer",
]

_Make = Callable[[dict[str, float], Config], Balancer]


def _averaging(weights: dict[str, float], config: Config) -> Balancer:
    return DynamicAveraging(weights, **_set(temperature=config.balancing.temperature))


def _gradnorm(weights: dict[str, float], config: Config) -> Balancer:
    settings = config.balancing
    return GradNorm(weights, **_set(alpha=settings.alpha, learning_rate=settings.learning_rate))


_METHODS: dict[str, _Make] = {
    "static": lambda weights, config: StaticWeights(weights),
    "uncertainty": lambda weights, config: Uncertainty(weights),
    "dwa": _averaging,
    "gradnorm": _gradnorm,
    "pcgrad": lambda weights, config: PCGrad(weights, config.seed),
    "cagrad": lambda weights, config: CAGrad(weights, **_set(c=config.balancing.c)),
}


def _set(**options: Any) -> dict[str, Any]:
    """Leave out unset options, for which the method has a default."""
    return {name: value for name, value in options.items() if value is not None}


def make_balancer(config: Config) -> Balancer:
    """Return the configured balancer."""
    weights = {name: task.weight for name, task in config.tasks.items()}
    balancer = _METHODS[config.balancing.method](weights, config)
    balancer.measure_every = config.log_gradients
    return balancer


def learned_group(balancer: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Return the optimiser's group of a method's learned parameters, if it has any.

    They have the heads' learning rate and no weight decay.
    """
    named = dict(balancer.named_parameters(prefix="balancing"))
    if not named:
        return []
    rate = config.head_learning_rate
    return [
        {
            "params": list(named.values()), "names": list(named), "lr": rate, "peak_lr": rate,
            "weight_decay": 0.0,
        }
    ]  # fmt: skip
