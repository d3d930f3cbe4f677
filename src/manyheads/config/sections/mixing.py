"""Settings of the tasks and of how they share the training."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from manyheads.config.fields import Float, Int, Setting, Strict
from manyheads.config.options import Balancing, unfold_balancing
from manyheads.config.task import TaskConfig
from manyheads.errors import shorten

_SEVERAL = Setting(compare="several")

TAKEN_NAMES = ("embedding", "empty", "mean", "text", "weighted", "windows")
"""Names with a meaning of their own in results or settings, which no task can have."""


class Mixing(Strict):
    """Tasks: what the heads predict, and how the tasks share the training."""

    tasks: Annotated[
        dict[str, TaskConfig], Setting(allowed="a mapping from a task's name to its settings")
    ] = Field(default_factory=dict)
    """The tasks by name. Default: `classification` and `ner`."""
    schedule: Annotated[
        Literal[
            "alternate", "proportional", "temperature", "annealed", "ratios", "joint", "together"
        ],
        _SEVERAL,
    ] = "alternate"
    """Which task each step trains. One step of each task in turn (alternate); steps in proportion
    to the tasks' sizes (proportional), to a power of them (temperature), to a power that falls over
    the run (annealed), or to the tasks' `ratio` (ratios); all tasks of a batch of records at once
    (joint); or records of every task in each step, smaller batches for smaller tasks (together)."""
    schedule_alpha: Annotated[Float | None, _SEVERAL] = Field(default=None, ge=0, le=1)
    """The power of the tasks' sizes; for annealed, at the end of the run. 1 is proportional; with 0
    all tasks have equally many steps. Default: 0.5 for temperature, 0 for annealed."""
    balancing: Annotated[Balancing, BeforeValidator(unfold_balancing), _SEVERAL] = Balancing()
    """How the tasks' losses are weighted: static (each task's `weight`), uncertainty, dwa,
    gradnorm, pcgrad or cagrad; or a mapping with `method` and its options. Default: static."""
    log_gradients: Annotated[Int | None, Setting(resume="differ", compare="several")] = Field(
        default=None, ge=1
    )
    """Measure the tasks' gradients of the encoder every so many steps, each in a backward pass of
    its own, and log their norms and cosines in metrics.jsonl. Default: only if `balancing` needs
    them, and then at every step."""

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        for name in tasks:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(
                    f"the task name {shorten(name)} must begin with a letter and have at most 64 "
                    "letters, digits, '_' or '-'"
                )
            if name in TAKEN_NAMES:
                raise ValueError(f"the task name {name!r} is reserved")
        return tasks
