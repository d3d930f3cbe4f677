"""Steps whose outcome the device still has to tell.

A GPU works behind: what it is asked for is put in a queue, and whoever looks at a number waits for
all that comes before it. So losses are fetched when somebody needs them, many steps at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyheads.training.balancing import Compared
from manyheads.training.data.batching import Step

STEPS_AHEAD = 64
"""So many steps at most are asked for before somebody waits for them."""


@dataclass(frozen=True)
class PendingStep:
    """An optimiser step that was asked for."""

    step: Step
    done: int
    """Optimiser steps before it."""
    done_in_epoch: int
    losses: Mapping[str, Tensor]
    """Float32 scalars."""
    made: Tensor
    """Bool scalar: whether all was finite, so that the weights were changed."""
    compared: Compared | None
    """The tasks' gradients, if they were compared."""


def fetch(pending: Sequence[PendingStep]) -> list[tuple[bool, dict[str, float]]]:
    """Wait for some steps; returns for each whether it was made, and its losses."""
    if not pending:
        return []
    scalars = [value for one in pending for value in (one.made.float(), *one.losses.values())]
    values = iter(torch.stack(scalars).tolist())
    return [(bool(next(values)), {task: next(values) for task in one.losses}) for one in pending]
