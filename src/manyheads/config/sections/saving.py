"""Settings of what a run writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, PlainValidator

from manyheads.config.fields import FREE, Int, Strict, interval


class Saving(Strict):
    """Saving and logging: what a run writes, where and how often."""

    save_dir: Annotated[str, replace(FREE, path="output", first=True)] = Field(
        default="saved_model", min_length=1
    )
    """The folder for checkpoints and the best model."""
    keep_checkpoints: Annotated[Int | None, FREE] = Field(default=None, ge=1)
    """How many epoch checkpoints are kept. Default: all."""
    checkpoint_every: Annotated[
        int | str | None,
        PlainValidator(interval("smh")),
        replace(FREE, allowed="a number of optimiser steps (200) or a time (30s, 5m, 1h)"),
    ] = None
    """Also save within epochs, every so many optimiser steps (200) or at an interval (5m).
    Default: only after each epoch."""
    log_every: Annotated[Int, FREE] = Field(default=10, ge=1)
    """Optimiser steps between lines of metrics.jsonl."""
    tensorboard: Annotated[bool, FREE] = False
    """Whether the values in metrics.jsonl are also written for TensorBoard, to the folder
    tensorboard in `save_dir`; needs the extra `tensorboard`."""
