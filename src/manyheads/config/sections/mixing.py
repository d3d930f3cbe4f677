"""Settings of the tasks and of how they share the training."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from manyheads.config.fields import Float, Int, Setting, Strict
from manyheads.config.options import Balancing, unfold_balancing
from manyheads.config.task import TaskConfig
from manyheads.errors import listing, shorten
from manyheads.tasks import EXTRAS

_SEVERAL = Setting(compare="several")

TAKEN_NAMES = ("text", "text2", *EXTRAS, "error", "neighbours", "mean", "weighted")
"""Names with a meaning of their own in results or settings, which no task can have."""

_ALLOWED_BEFORE = ("text2", "in_scope", "embedding2", "error", "neighbours")
"""Those of them that tasks of earlier models may have."""

_ENDINGS = ("_score", "_scores", "_candidates", "_logit", "_logits")
"""What follows a task's name in the names of its further columns (see `Result.cells`)."""

STORED = "stored"
"""The key of the validation context of a trained model's configuration."""


def is_stored(info: ValidationInfo) -> bool:
    """Return whether the configuration that is validated is that of a run or trained model."""
    return bool(info.context and info.context.get(STORED))


def colliding_tasks(names: Collection[str]) -> str:
    """Describe two tasks whose columns have one name in a table; empty if there are none."""
    for name in names:
        for ending in _ENDINGS:
            if name + ending in names:
                return (
                    f"the tasks {name!r} and {name + ending!r} would share the column "
                    f"`{name}{ending}` of a table of predictions; rename one of them"
                )
    return ""


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
    def _task_names(
        cls, tasks: dict[str, TaskConfig], info: ValidationInfo
    ) -> dict[str, TaskConfig]:
        stored = is_stored(info)
        for name in tasks:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(
                    f"the task name {shorten(name)} must begin with a letter and have at most 64 "
                    "letters, digits, '_' or '-'"
                )
            if name in TAKEN_NAMES and not (stored and name in _ALLOWED_BEFORE):
                raise ValueError(
                    f"the task name {name!r} is reserved, as are {listing(sorted(TAKEN_NAMES))}"
                )
        problem = "" if stored else colliding_tasks(tasks)
        if problem:
            raise ValueError(problem)
        return tasks
