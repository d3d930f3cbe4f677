"""Settings of the data that a model learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, Field

from manyheads.config.fields import (
    FREE,
    INPUT_FILE,
    RENAMING,
    Float,
    Int,
    Setting,
    Strict,
    pairs,
)

# The tasks hold what the numbers of labels mean, and are compared.
_OF_STANDARD_TASKS = replace(FREE, compare="several")
_FIRST_FILE = replace(INPUT_FILE, first=True)
_LAYOUT = replace(FREE, layout=True)


class Data(Strict):
    """Data: the records that the model learns from."""

    train_file: Annotated[str | None, _FIRST_FILE] = None
    """Training records: a file, a folder with seq.in, seq.out and label, or `datasets:NAME`.
    Default: each task's own."""
    valid_file: Annotated[str | None, _FIRST_FILE] = None
    """Validation records, on which the best model is chosen. Default: each task's own, or a part of
    its training records that is held out."""
    files: Annotated[tuple[str, ...] | None, replace(INPUT_FILE, allowed="a list of paths")] = (
        Field(default=None, min_length=1)
    )
    """Labelled files that are read as one, instead of `train_file`. Without `valid_file`, part of
    them is held out for validation; both parts are written to the folder data in `save_dir`.
    Default: none; `train_file` is read."""
    hold_out: Annotated[Float, FREE] = Field(default=0.15, gt=0, lt=0.9)
    """Without validation data: the share of the training records that is held out. Copies of a text
    stay together, and of each label at least two records are held out where there are ten."""
    hold_out_seed: Annotated[Int, FREE] = Field(default=0, ge=0)
    """The seed that determines which records are held out."""
    refit: Annotated[
        str | None,
        Setting(resume="same name", processes="same name", path="input", internal=True),
    ] = Field(default=None, min_length=1)
    """The trained model whose run is repeated on all of its records, as `manyheads refit` does: the
    training files have its validation records too, and nothing is validated."""
    format: Annotated[str | None, _LAYOUT] = None
    """The format of the data files, one of those that `manyheads data formats` lists. Default:
    detected from each file's content and extension."""
    text_field: Annotated[str | None, _LAYOUT] = None
    """The field or column of the text. Default: `text`. Columns of a table without a header are
    named by their numbers, from 1."""
    text2_field: Annotated[str | None, _LAYOUT] = None
    """The field or column of a pair's second text. Default: `text2`."""
    tokens_field: Annotated[str | None, _LAYOUT] = None
    """The field or column of the tokens, where texts are lists of words. Default: `tokens`."""
    map: Annotated[dict[str, str], BeforeValidator(pairs), replace(_LAYOUT, allowed=RENAMING)] = (
        Field(default_factory=dict)
    )
    """Fields or columns of the data files, each with the field that it is read as
    ({category: label}); on the command line, category=label,topic=intent. Default: none."""
    label_separator: Annotated[str | None, _LAYOUT] = Field(default=None, min_length=1)
    """The separator of several labels in one cell of a table's column `labels`.
    Default: none; a cell is one label."""
    role_separator: Annotated[str | None, _LAYOUT] = Field(default=None, min_length=1)
    """What joins an entity's type with its role and group, which Rasa and LUIS write apart: with
    `_`, a `city` in the role `departure` is a `city_departure`. Default: none; roles and groups are
    not read."""
    num_classes: Annotated[Int | None, _OF_STANDARD_TASKS] = Field(default=None, ge=2)
    """Without `tasks`: the number of sentence classes. Default: those found in the data."""
    num_ner_labels: Annotated[Int | None, _OF_STANDARD_TASKS] = Field(default=None, ge=2)
    """Without `tasks`: the number of tags, `O` included. Default: those found in the data."""
