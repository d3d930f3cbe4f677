"""The labelled records that the gate compares on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from manyheads.config import Config
from manyheads.data.own_files import located, may_open
from manyheads.data.readers import Layout, without_split
from manyheads.data.records import read_records
from manyheads.errors import DataError, at, option
from manyheads.exporting.gate import RecordSets
from manyheads.sampling import spread
from manyheads.storage import StrPath
from manyheads.tasks import TaskSpec

MAX_RECORDS = 10_000
"""The most records of a file that are compared, spread evenly over it."""


def validation_sets(
    config: Config,
    specs: Sequence[TaskSpec],
    data: StrPath | None,
    model: StrPath,
    layout: Layout | None = None,
) -> RecordSets:
    """Read the validation records of a model, or those of a file.

    Args:
        config: the configuration of the training run.
        specs: the model's tasks.
        data: a labelled file; default, the validation files of the configuration.
        model: the model's folder.
        layout: how `data` are laid out, where content and names do not show it; the validation
            files have the layout of the configuration.

    Raises:
        DataError: there are no records, or they cannot be read.
    """
    names = [spec.name for spec in specs]
    own = located(config, model).valid_files()
    files = own if data is None else {os.fspath(data): tuple(names)}
    label_sets = {spec.name: spec.label_set() for spec in specs}
    layout = Layout.of(config) if data is None else layout
    sets = []
    for path, tasks in files.items():
        if data is None and not may_open(path, config, model):
            raise DataError(
                f"the model's configuration names {path} as its validation data",
                expected="data that you name, or data beside the run that made the model, because "
                "a model may come from anywhere",
                fix="Name it: "
                + option(
                    f"manyheads export MODEL --file {path}",
                    f"manyheads.export(MODEL, data={path!r})",
                ),
                where=at(model),
            )
        if data is None and not Path(without_split(path)[0]).exists():
            raise DataError(
                f"the validation file {path} that the model was chosen on is not there",
                expected="labelled records to compare the exported graphs on",
                fix="Name a file: "
                + option(
                    "manyheads export MODEL --file FILE", "manyheads.export(MODEL, data=FILE)"
                ),
                where=at(model),
            )
        settings = {name: config.tasks[name] for name in tasks if name in label_sets}
        records = list(read_records(path, settings, label_sets, layout=layout, allow_unseen=True))
        if not records:
            raise DataError("there is no record", where=path, expected="at least one")
        sets.append((spread(records, MAX_RECORDS), tuple(settings)))
    return sets
