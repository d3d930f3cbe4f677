"""Settings of how the best model is chosen."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from manyheads.config.fields import Float, Int, Setting, Strict

_SEVERAL = Setting(compare="several")


class Selection(Strict):
    """Best model: how it is selected, and when to stop waiting for a better one."""

    best_metric: Annotated[str, _SEVERAL] = "mean"
    """The score that selects the best model: the `mean` of the tasks' main metrics, their
    `weighted` mean, a task's name for its main metric, or `TASK.METRIC`."""
    best_weights: Annotated[
        dict[str, Annotated[Float, Field(ge=0)]] | None,
        Setting(compare="several", allowed="a mapping from a task's name to a number"),
    ] = None
    """For `best_metric: weighted`: the tasks' weights ({intent: 1, ner: 3}); a task that is left
    out does not count. Default: each task's `weight`."""
    keep_best_per_task: Annotated[bool, _SEVERAL] = False
    """Whether the best model for each task is also kept, as `best-TASK`."""
    early_stopping: Annotated[Int | None, Setting(resume="differ")] = Field(default=None, ge=1)
    """Stop after this many epochs without a higher score. Default: never."""
