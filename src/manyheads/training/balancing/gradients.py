"""The tasks' gradients of the shared encoder: collected, compared and combined.

A method reads the gradients' inner products alone, and decides a coefficient for each gradient:
in the span of K gradients a vector has K coordinates, however many parameters there are.

Axes: K tasks, R rows of a table, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Products = NDArray[np.float64]
Gradient = list[Tensor | None]
"""By parameter; None where there is no gradient."""


@dataclass(frozen=True)
class Gram:
    """The inner products of the tasks' gradients."""

    tasks: tuple[str, ...]
    products: Products
    """[K, K]."""

    @property
    def usable(self) -> bool:
        """Whether there are several gradients, all of them finite."""
        return len(self.tasks) > 1 and bool(np.isfinite(self.products).all())

    def norms(self) -> dict[str, float]:
        """Return each gradient's norm."""
        return {t: math.sqrt(self.products[i, i]) for i, t in enumerate(self.tasks)}

    def cosines(self) -> dict[tuple[str, str], float]:
        """Return the cosine of each pair of gradients, where neither is zero."""
        found = {}
        for (i, one), (j, other) in combinations(enumerate(self.tasks), 2):
            length = math.sqrt(self.products[i, i]) * math.sqrt(self.products[j, j])
            if length > 0:
                found[one, other] = float(self.products[i, j] / length)
        return found


@dataclass(frozen=True)
class GradientStats:
    """How the tasks' gradients of a step compare, and how they were combined."""

    gram: Gram
    coefficients: Mapping[str, float]
    """By task, the factor on its gradient in the sum."""


class TaskGradients:
    """Each task's gradient of the shared parameters in one step.

    Gradients may be sparse: rows of a table that the task's batches read.

    Args:
        parameters: the shared ones; those that are frozen are ignored.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.shared = [p for p in parameters if p.requires_grad]
        self._of: dict[str, Gradient] = {}
        self._rest: Gradient | None = None

    def _taken(self) -> Gradient:
        taken: Gradient = [p.grad for p in self.shared]
        for parameter in self.shared:
            parameter.grad = None
        return taken

    def take(self, task: str) -> None:
        """Move the parameters' present gradients to a task's."""
        self._of[task] = _added(self._of.get(task), self._taken())

    def take_rest(self) -> None:
        """Move the parameters' present gradients to those of other losses (coefficient 1)."""
        self._rest = _added(self._rest, self._taken())

    def measure(self, task: str, loss: Tensor) -> None:
        """Add the gradient of a loss to a task's; the parameters' own stay as they are."""
        found = torch.autograd.grad(loss, self.shared, retain_graph=True, allow_unused=True)
        self._of[task] = _added(self._of.get(task), list(found))

    def gram(self, tasks: Sequence[str]) -> Gram:
        """Return the inner products of some tasks' gradients."""
        gradients = [self._of[task] for task in tasks]
        products = np.zeros((len(tasks), len(tasks)))
        pairs = list(combinations_with_replacement(range(len(tasks)), 2))
        found = []
        for parts in zip(*gradients, strict=True):
            dense = _of_one_shape(parts)
            for i, j in pairs:
                one, other = dense[i], dense[j]
                if one is not None and other is not None:
                    found.append((i, j, torch.dot(one.flatten(), other.flatten())))
        # Read all at once: each read of a device's value blocks.
        values = torch.stack([value for *_, value in found]).tolist() if found else []
        for (i, j, _), value in zip(found, values, strict=True):
            products[i, j] += value
            if i != j:
                products[j, i] += value
        return Gram(tuple(tasks), products)

    def write(self, coefficients: Mapping[str, float]) -> None:
        """Set the parameters' gradients to the weighted sum of all.

        Args:
            coefficients: by task; 1 where a task is missing.
        """
        for number, parameter in enumerate(self.shared):
            total = None if self._rest is None else self._rest[number]
            for task, gradient in self._of.items():
                part, factor = gradient[number], coefficients.get(task, 1.0)
                if part is not None:
                    scaled = part if factor == 1.0 else part * factor
                    total = scaled if total is None else total + scaled
            parameter.grad = total


def _added(one: Gradient | None, other: Gradient) -> Gradient:
    if one is None:
        return other
    return [
        b if a is None else a if b is None else a + b for a, b in zip(one, other, strict=True)
    ]  # fmt: skip


def _of_one_shape(parts: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Densify sparse gradients, [R, H], over the union of their rows."""
    sparse = [p.coalesce() if p is not None and p.is_sparse else None for p in parts]
    rows = [p.indices()[0] for p in sparse if p is not None]
    if not rows:
        return list(parts)
    if any(p is not None and not p.is_sparse for p in parts):
        return [p if p is None or not p.is_sparse else p.to_dense() for p in parts]
    union = torch.unique(torch.cat(rows))
    dense: list[Tensor | None] = []
    for part in sparse:
        if part is None:
            dense.append(None)
            continue
        values = part.values()
        padded = values.new_zeros((len(union), *values.shape[1:]))
        dense.append(padded.index_copy_(0, torch.searchsorted(union, part.indices()[0]), values))
    return dense
