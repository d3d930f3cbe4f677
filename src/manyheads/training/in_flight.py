"""Optimiser steps in flight: submitted to the device, their results not yet read.

A GPU executes a queue of work, and reading a value blocks until all work before it is done. So
losses are fetched only when they are needed, for many steps at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from manyheads.training.balancing import GradientStats
from manyheads.training.data.batching import Step

STEPS_AHEAD = 64
"""The most steps in flight at a time."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of a step's forward and backward passes."""

    losses: Mapping[str, Tensor]
    """By task its unweighted mean loss, and by name that of each further term: float32 scalars."""
    labelled: Sequence[str]
    """The tasks that have labels in the step, in any process; the others' losses mean nothing."""
    gradients: GradientStats | None = None
    """The tasks' encoder gradients, if they were compared."""


@dataclass(frozen=True)
class InFlightStep:
    """A submitted optimiser step."""

    step: Step
    done: int
    """Optimiser steps before it."""
    done_in_epoch: int
    """Those of its epoch."""
    result: StepResult
    made: Tensor
    """Bool scalar: whether everything was finite, so that the weights were updated."""


def fetch(steps: Sequence[InFlightStep]) -> list[tuple[bool, dict[str, float]]]:
    """Wait for some steps; returns for each whether it was made, and its losses."""
    if not steps:
        return []
    scalars = [value for one in steps for value in (one.made.float(), *one.result.losses.values())]
    values = iter(torch.stack(scalars).tolist())
    return [
        (bool(next(values)), {name: next(values) for name in one.result.losses}) for one in steps
    ]
