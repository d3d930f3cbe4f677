"""Weights that are learned as the tasks' uncertainties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn

from manyheads.training.balancing.weights import Balancer


@final
class Uncertainty(Balancer):
    """Homoscedastic uncertainty, after Kendall, Gal and Cipolla (2018).

    Each task has a learned log variance s of its noise. Its loss L, the negative log likelihood of
    what is discrete, becomes exp(-s) L + s/2. So a task with a larger loss weighs less, and s/2
    keeps all weights from falling to zero. With s = 0, where training begins, each task has its own
    weight. (A squared error would be halved; no head has one.)

    Args:
        own: each task's own weight: a factor on its whole term.
    """

    def __init__(self, own: Mapping[str, float]) -> None:
        super().__init__(own)
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in own})

    def factor(self, task: str) -> Tensor:
        """Return what the loss counts: the task's own weight times exp(-s), a float32 scalar."""
        return self.own[task] * torch.exp(-self.log_variance[task].detach())

    def term(self, task: str, loss: Tensor, share: float) -> Tensor:
        """Return a batch's part of the loss and of s/2."""
        variance = self.log_variance[task]
        whole: Tensor = torch.exp(-variance) * loss + variance / 2
        return self.own[task] * share * whole
