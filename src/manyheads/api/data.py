"""The verbs about data: `init` and those of `manyheads data`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import as_config, named_data, named_texts, with_layout
from manyheads.api.models import load
from manyheads.config import BATCH_TOKENS, Config, make_config, restored_threads, write_config
from manyheads.data.readers import Layout
from manyheads.errors import RequestError, at, option
from manyheads.inference import Runtime
from manyheads.storage import StrPath

if TYPE_CHECKING:
    from manyheads.data.augment import Augmented
    from manyheads.data.check import DataReport
    from manyheads.data.infer_tasks import InferredTasks
    from manyheads.data.suspects import Suspects
    from manyheads.evaluation.selection import Selection


def init(
    *files: StrPath,
    out: StrPath = "config.yaml",
    tasks: Mapping[str, Any] | None = None,
    layout: Layout | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Config:
    """Write a commented configuration for labelled files; the command is `manyheads init`.

    Args:
        *files: labelled data of any format.
        out: the configuration to write.
        tasks: the tasks by name, as in a configuration; default: those found in the data.
        layout: how the data are laid out, where content and names do not show it.
        overwrite: replace the file if it exists.
        **settings: configuration fields.

    Raises:
        ManyheadsError: a file or setting is invalid, or `out` exists.
    """
    given = with_layout(settings, layout)
    if tasks is not None:
        given["tasks"] = tasks
    return write_starting_config([os.fspath(one) for one in files], out, given, overwrite)[0]


def write_starting_config(
    files: Sequence[str], out: StrPath, overrides: Mapping[str, Any], overwrite: bool
) -> tuple[Config, InferredTasks]:
    """Write the configuration that `starting_config` infers; return both.

    Raises:
        ManyheadsError: see `init`.
    """
    from manyheads.data.starting_config import starting_config

    if Path(out).exists() and not overwrite:
        raise RequestError(
            "the file exists",
            where=at(out),
            fix=f"Replace it with {option('--overwrite')}, or name another: {option('--out')}.",
        )
    config, found = starting_config(files, overrides)
    write_config(config, Path(out), found.notes())
    return config, found


def check(
    *data: Any,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    limit: int = 10,
    layout: Layout | None = None,
) -> DataReport:
    """Find what is wrong with data before training; the command is `manyheads data check`.

    Args:
        *data: labelled records in memory or files, those for training first; default: the files
            of the configuration.
        config: a configuration: its tasks, encoder and files.
        tasks: the tasks by name, as in a configuration; default: those of `config`, or those that
            training finds in the data.
        max_length: tokens of a record that training reads; default: that of `config`.
        limit: findings of a kind that are listed for a file.
        layout: how files are laid out, as far as you know it.

    Raises:
        DataError: a file is missing, blank, of no known format, or given twice.
        RequestError: there are neither data nor a configuration.
    """
    from manyheads.api.checking import check_files

    settings = None if config is None else as_config(config, {}, stored=True)
    wanted = None if tasks is None else make_config({"tasks": tasks}).tasks
    with ExitStack() as named:
        paths = [named_data(one, f"data {n}", named) for n, one in enumerate(data, 1)]
        return check_files(paths, settings, wanted, max_length, limit=limit, layout=layout)


def suspects(
    data: Any,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    count: int | None = None,
    out: StrPath | None = None,
    label_studio: StrPath | None = None,
    fix: StrPath | None = None,
    reviewed: StrPath | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> Suspects:
    """Rank the labels that are likely wrong; the command is `manyheads data suspects`.

    Args:
        data: labelled records in memory or a file of any format; it is not changed.
        config: a configuration: its tasks and encoder.
        tasks: the tasks by name, as in a configuration; default: those of `config`, or what is
            found in the data.
        count: how many to return, the likeliest first; default: all that are likely wrong.
        out: where to write them as JSON lines.
        label_studio: where to write their records for Label Studio.
        fix: where to write the data with the proposals in place of the labels.
        reviewed: with `fix`, take the proposals from these lines of `out`, which you have edited;
            they are returned, and no others are looked for.
        layout: how a file is laid out, as far as you know it.
        seed: determines how the records are split.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        **settings: configuration fields, such as `model_name`, `device` and `threads`.

    Raises:
        ManyheadsError: the data, a setting or the encoder cannot be used.
    """
    from manyheads.api.searches import fix_labels, search, suspect_progress

    wanted = None if tasks is None else make_config({"tasks": tasks}).tasks
    given = None if config is None else as_config(config, {}, stored=True)
    settings["seed"] = seed
    with ExitStack() as named:
        path = named_data(data, "data", named)
        if reviewed is not None:
            searching = {"out": out, "label_studio": label_studio, "count": count, **settings}
            return fix_labels(path, fix, reviewed, given, wanted, layout, searching)[0]
        return search(
            path, given, wanted, layout, settings, count=count, out=out,
            label_studio=label_studio, fix=fix, progress=suspect_progress(progress),
        )  # fmt: skip


def select(
    pool: Any,
    model: StrPath = "saved_model",
    *,
    count: int = 100,
    tasks: Sequence[str] | None = None,
    out: StrPath | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = True,
) -> Selection:
    """Choose the texts most worth labelling next; the command is `manyheads data select`.

    Args:
        pool: texts, pairs of texts or records in memory, or a file of any format; labels are not
            read.
        model: the model that is to become better.
        count: how many texts to choose.
        tasks: the tasks whose answers count; default: all.
        out: where to write them as JSON lines.
        layout: how a file is laid out, as far as you know it.
        seed: determines where the clusters begin.
        backend: what runs the model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.
        batch_tokens: tokens of a batch, padding included.
        progress: whether progress is shown.

    Raises:
        ManyheadsError: the model or the pool cannot be used.
    """
    from manyheads.api.searches import chosen_texts
    from manyheads.display import Counter

    with ExitStack() as named:
        return chosen_texts(
            named_texts(pool, "pool", named), model, count, tasks=tasks, layout=layout, seed=seed,
            out=out, runtime=Runtime(backend, device, threads, batch_tokens),
            progress=lambda: Counter("Reading", unit="texts", enabled=progress),
        )  # fmt: skip


def formats() -> dict[str, str]:
    """Return the formats of data files by name; the command is `manyheads data formats`."""
    from manyheads.data.readers import FORMATS

    return {name: form.description for name, form in FORMATS.items()}


@restored_threads()
def convert(
    source: Any,
    target: StrPath,
    *,
    to: str = "manyheads",
    layout: Layout | None = None,
    model: StrPath | None = None,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> int:
    """Write data of any format as ours or for a labelling tool; see `manyheads.data.convert`.

    The source may be records in memory. With a model, its predictions are written beside or in
    place of labels, without its thresholds. Labels that training would refuse are written, and
    `warn` is told.
    """
    from manyheads.data.convert import convert as verb

    # A tool needs a label to correct, however sure the model is of it.
    predict = None if model is None else partial(load(model).predict_stream, thresholds=False)
    with ExitStack() as named:
        path = named_data(source, "convert", named)
        return verb(
            path, target, to=to, layout=layout, predict=predict, on_unread=on_unread, warn=warn
        )


def augment(
    source: Any,
    target: StrPath,
    *,
    copies: int = 1,
    seed: int = 42,
    layout: Layout | None = None,
) -> Augmented:
    """Write records, and new ones with exchanged entities; see `manyheads.data.augment`.

    Args:
        source: labelled records in memory, or a file of any format.
        target: the JSON lines to write.
        copies: new records made from each record.
        seed: determines the new records.
        layout: how `source` is laid out, where content and names do not show it.

    Raises:
        DataError: the records cannot be read, or have no entity that can be exchanged.
    """
    from manyheads.data.augment import augment as verb

    with ExitStack() as named:
        path = named_data(source, "augmented", named)
        return verb(path, target, copies=copies, seed=seed, layout=layout)
