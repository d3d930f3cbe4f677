"""The tasks' gradients of the shared encoder: taken one by one, compared, and put together again.

All that the methods need to know are the gradients' scalar products, and all that they decide is
what each gradient counts: vectors in the plane of the gradients have K coordinates, however many
parameters there are.

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
"""By parameter; None where it has none."""


@dataclass(frozen=True)
class Gram:
    """The scalar products of the tasks' gradients."""

    tasks: tuple[str, ...]
    products: Products
    """[K, K]."""

    @property
    def usable(self) -> bool:
        """Whether there are several gradients, all of them finite."""
        return len(self.tasks) > 1 and bool(np.isfinite(self.products).all())

    def norms(self) -> dict[str, float]:
        """Return each gradient's length."""
        return {t: math.sqrt(self.products[i, i]) for i, t in enumerate(self.tasks)}

    def cosines(self) -> dict[tuple[str, str], float]:
        """Return the cosine of each two gradients, where neither is zero."""
        found = {}
        for (i, one), (j, other) in combinations(enumerate(self.tasks), 2):
            length = math.sqrt(self.products[i, i]) * math.sqrt(self.products[j, j])
            if length > 0:
                found[one, other] = float(self.products[i, j] / length)
        return found


@dataclass(frozen=True)
class Compared:
    """How the tasks' gradients of a step stood to each other, and what was made of them."""

    gram: Gram
    counts: Mapping[str, float]
    """By task, what its gradient counted."""


class TaskGradients:
    """Each task's gradient of some shared parameters, in one step.

    Gradients may be sparse, of the rows of a table that the task's batches read.

    Args:
        parameters: which are shared.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._of: dict[str, Gradient] = {}
        self._rest: Gradient | None = None

    def _taken(self) -> Gradient:
        taken: Gradient = [p.grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return taken

    def take(self, task: str) -> None:
        """Add the gradients that the parameters have by now to a task's, and clear them."""
        self._of[task] = _added(self._of.get(task), self._taken())

    def take_rest(self) -> None:
        """Do the same with a gradient that is no task's, and counts as it is."""
        self._rest = _added(self._rest, self._taken())

    def measure(self, task: str, loss: Tensor) -> None:
        """Add the gradient of a loss to a task's, and leave those of the parameters alone."""
        found = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
        self._of[task] = _added(self._of.get(task), list(found))

    def gram(self, tasks: Sequence[str]) -> Gram:
        """Multiply some tasks' gradients with each other."""
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
        # All at once, since a device would be waited for.
        values = torch.stack([value for *_, value in found]).tolist() if found else []
        for (i, j, _), value in zip(found, values, strict=True):
            products[i, j] += value
            if i != j:
                products[j, i] += value
        return Gram(tuple(tasks), products)

    def lay(self, counts: Mapping[str, float]) -> None:
        """Give the parameters the sum of all gradients, each task's as often as it counts.

        Args:
            counts: by task; 1 where a task is left out.
        """
        for number, parameter in enumerate(self._parameters):
            total = None if self._rest is None else self._rest[number]
            for task, gradient in self._of.items():
                part, count = gradient[number], counts.get(task, 1.0)
                if part is not None:
                    scaled = part if count == 1.0 else part * count
                    total = scaled if total is None else total + scaled
            parameter.grad = total


def _added(one: Gradient | None, other: Gradient) -> Gradient:
    if one is None:
        return other
    return [
        b if a is None else a if b is None else a + b for a, b in zip(one, other, strict=True)
    ]  # fmt: skip


def _of_one_shape(parts: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Make sparse gradients dense, [R, H], over the rows that any of them has."""
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
        laid = values.new_zeros((len(union), *values.shape[1:]))
        dense.append(laid.index_copy_(0, torch.searchsorted(union, part.indices()[0]), values))
    return dense
