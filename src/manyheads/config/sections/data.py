"""Settings of the data that a model learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from manyheads.config.fields import FREE, INPUT_FILE, Int, Strict

# What the numbers of labels mean is in the tasks, which are compared.
_OF_STANDARD_TASKS = replace(FREE, compare="several")
_FIRST_FILE = replace(INPUT_FILE, first=True)


class Data(Strict):
    """Data: the records that the model learns from."""

    train_file: Annotated[str | None, _FIRST_FILE] = None
    """Training records: a file, a folder with seq.in, seq.out and label, or `datasets:NAME`.
    Default: each task's own."""
    valid_file: Annotated[str | None, _FIRST_FILE] = None
    """Validation records, on which the best model is chosen. Default: each task's own."""
    num_classes: Annotated[Int | None, _OF_STANDARD_TASKS] = Field(default=None, ge=2)
    """Without `tasks`: the number of sentence classes. Default: those found in the data."""
    num_ner_labels: Annotated[Int | None, _OF_STANDARD_TASKS] = Field(default=None, ge=2)
    """Without `tasks`: the number of tags, `O` included. Default: those found in the data."""
