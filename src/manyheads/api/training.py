"""The verbs that train: `train`, `demo`, `add_head`, `add_label`, `distill`, `refit`
and `compare`."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import (
    as_config,
    is_config,
    messages,
    named_data,
    only_config,
    optional_data,
    optional_texts,
    warn,
    with_layout,
)
from manyheads.api.model import ExtendedModel, TrainedModel, load_again
from manyheads.config import Config, load_config
from manyheads.data.demo import SETTINGS as DEMO
from manyheads.data.readers import Layout, are_records, is_dataset_name, without_split
from manyheads.errors import RequestError, option, shorten
from manyheads.storage import StrPath, is_comparison

if TYPE_CHECKING:
    from manyheads.api.progress import OnEpoch, OnStep
    from manyheads.training import Comparison, Reporter

_ENDING = re.compile(r"\.\w+$")
CONFIG = "config.yaml"
"""The configuration that `train` reads if nothing is named."""


def train(
    data: Any = None,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    valid: Any = None,
    layout: Layout | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    report: bool = False,
    **settings: Any,
) -> TrainedModel:
    """Train a model and return it; the command is `manyheads train`.

    Args:
        data: labelled records: dicts, pairs such as (text, label), a dict of columns, a DataFrame,
            an Arrow table, a `datasets.Dataset`, or the path of a file or several. Tasks that are
            not named are inferred. Or a configuration; default: config.yaml, unless `settings`
            name the data.
        config: a configuration, its YAML file, or a mapping of its values.
        valid: labelled records, or a file, on which the best model is chosen; default: a part of
            the data is held out.
        layout: how the data are laid out, where content and names do not show it.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter: shows the progress instead.
        on_step: called with a `StepReport` for each loss of a step.
        on_epoch: called with the losses, metrics and score of an epoch, once it is saved. An
            exception in `on_step` or `on_epoch` ends the run, which saves its state first.
        report: whether to write report.html to `save_dir` when done.
        **settings: configuration fields, such as `num_epochs`, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    with ExitStack() as named:
        laid_out = with_layout(settings, layout)
        chosen = _train_config(data, config, valid, laid_out, named, resume)
        model = run(chosen, resume, overwrite, progress, reporter, on_step, on_epoch)
        if report:
            report_run(model.save_dir, warn)
    return model


def demo(
    *,
    save_dir: StrPath = str(DEMO["save_dir"]),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a small model on the demonstration data; the command is `manyheads demo`.

    Args:
        save_dir: the folder of the model.
        resume: continue the run in `save_dir`.
        overwrite: replace the model in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter, on_step, on_epoch: see `train`.
        **settings: configuration fields.

    Raises:
        ManyheadsError: a setting or the folder is invalid.
    """
    config = demo_config({**settings, "save_dir": os.fspath(save_dir)}, resume)
    return run(config, resume, overwrite, progress, reporter, on_step, on_epoch)


def add_head(
    model: StrPath,
    task: str,
    *,
    kind: str,
    train_file: Any,
    save_dir: StrPath,
    valid_file: Any = None,
    field: str | None = None,
    task_settings: Mapping[str, Any] | None = None,
    layout: Layout | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> TrainedModel:
    """Add a task to a trained model; its other outputs stay bit-identical.

    The encoder is frozen unless `freeze` says otherwise. The command is `manyheads add-head`.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: name of the new task.
        kind: kind of the task.
        train_file: training records of the task, in memory or a file.
        save_dir: folder of the new model, which has the old tasks and the new one.
        valid_file: validation records of the task; default: a part of the training records is
            held out.
        field: the records' field with the labels; default: the kind's own.
        task_settings: other fields of the task, such as `decoder`.
        layout: how the data are laid out, where content and names do not show it.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter, on_step, on_epoch: see `train`.
        **settings: configuration fields, such as `num_epochs`; `freeze` to train the encoder.

    Raises:
        ManyheadsError: the model, data, a setting or the folder is invalid.
    """
    from manyheads.training import add_head_config

    with ExitStack() as named:
        config = add_head_config(
            model, task, {**with_layout(settings, layout), "save_dir": os.fspath(save_dir)},
            kind=kind, train_file=named_data(train_file, "train", named),
            valid_file=optional_data(valid_file, "valid", named), field=field,
            task_settings=task_settings, resume=resume,
        )  # fmt: skip
        return run(config, resume, overwrite, progress, reporter, on_step, on_epoch)


def distill(
    teachers: StrPath | Sequence[StrPath],
    texts: Any = None,
    *,
    save_dir: StrPath = "distilled",
    train_file: Any = None,
    valid_file: Any = None,
    layout: Layout | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a student on the answers of trained models; the command is `manyheads distill`.

    Args:
        teachers: a trained model or several, whose mean is learned; or files of soft labels beside
            a model. Tasks, data and settings are those of the first model.
        texts: unlabelled sentences: strings, records in memory, or a file.
        save_dir: folder of the student.
        train_file: labelled records in memory, or a file; default: the teacher's.
        valid_file: the same, to choose the best epoch by; default: the teacher's.
        layout: how the labelled data are laid out; default: as the teacher's.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter, on_step, on_epoch: see `train`.
        **settings: configuration fields, such as `student_layers`.

    Raises:
        ManyheadsError: a teacher, the data, a setting or the folder is invalid.
    """
    from manyheads.training import distill_config

    sources = [teachers] if isinstance(teachers, str | os.PathLike) else list(teachers)
    with ExitStack() as named:
        given = {"train_file": train_file, "valid_file": valid_file}
        files = {
            key: named_data(data, key.removesuffix("_file"), named)
            for key, data in given.items()
            if data is not None
        }
        path = optional_texts(texts, "texts", named)
        chosen = {**with_layout(settings, layout), **files, "save_dir": os.fspath(save_dir)}
        config = distill_config(sources, path, chosen, resume=resume)
        return run(config, resume, overwrite, progress, reporter, on_step, on_epoch)


def refit(
    model: StrPath = "saved_model",
    *,
    save_dir: StrPath = "refitted",
    device: str | None = None,
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedModel:
    """Train once more, on all labelled records of a run; the command is `manyheads refit`.

    The records that the run was validated on are learned from too. Settings and the number of
    epochs are those that the run chose, and the calibration is that of its best model. No record is
    left to score the new model on: the scores of the run tell what to expect.

    Args:
        model: the folder of a finished run, or of its best model; it is not changed.
        save_dir: folder of the new run.
        device, threads: see `train`; default: those of the run before.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter, on_step, on_epoch: see `train`; the entries of epochs have losses, and no score.

    Raises:
        ManyheadsError: the model is not that of a run, its data are not all there, or the folder is
            invalid.
    """
    from manyheads.training import refit_config

    settings = {"save_dir": os.fspath(save_dir), "device": device, "threads": threads}
    config = refit_config(model, settings, resume=resume)
    return run(config, resume, overwrite, progress, reporter, on_step, on_epoch)


def add_label(
    model: StrPath,
    task: str,
    *,
    train_file: Any,
    kept: Any = None,
    save_dir: StrPath = "extended_model",
    limit: float = 0.3,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> ExtendedModel:
    """Add classes or entity types to a trained task from a few examples.

    The weights of the old labels, the other tasks and the embedding stay as they are. The command
    is `manyheads add-label`.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: the task.
        train_file: examples of the new labels, in memory or a file.
        kept: labelled records of the old labels, from which the new ones are told apart, and on
            which changed answers are counted; default: the validation data of the run, and training
            records where they have few of an old label.
        save_dir: folder of the new model.
        limit: the right answers that may be lost, in percentage points of the kept records, for
            tasks with one class a text; a lower limit also costs the new classes some right
            answers.
        overwrite: replace the model in `save_dir`.
        threads: processor threads; default: all available cores.
        progress: whether each step is written to standard error.

    Raises:
        ManyheadsError: the model, a file or the folder cannot be used, or no label is new.
    """
    from manyheads.training import add_label as verb

    with ExitStack() as named:
        result = verb(
            model,
            task,
            train_file=named_data(train_file, "new", named),
            kept=optional_data(kept, "kept", named),
            save_dir=save_dir,
            limit=limit,
            overwrite=overwrite,
            threads=threads,
            report=messages("add-label", progress),
            warn=warn,
        )
    return ExtendedModel(result, partial(load_again, result.path.absolute(), threads=threads))


def compare(
    data: Any,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    valid: Any = None,
    layout: Layout | None = None,
    seeds: int = 3,
    out: StrPath = "comparison",
    test_files: Any = None,
    picture: StrPath | None = None,
    progress: bool = True,
    **settings: Any,
) -> Comparison:
    """Compare joint training with training each task alone; the command is `manyheads compare`.

    Args:
        data: labelled records or a file, as for `train`, or a configuration.
        config: a configuration with two tasks or more, its file, or a mapping of its values.
        valid: labelled records, or a file, on which the best models are chosen.
        layout: how the data are laid out, where content and names do not show it.
        seeds: number of runs of each option.
        out: folder of the runs and the result; an interrupted comparison is resumed there.
        test_files: labelled data to score on, in memory or a file, or a mapping from tasks to
            such data; default: the validation data.
        picture: where to draw the result as a PNG (needs matplotlib); default: nowhere.
        progress: whether the progress of the runs is shown.
        **settings: configuration fields, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    from manyheads.api.progress import comparison_progress
    from manyheads.display.comparison import draw_comparison, require_matplotlib
    from manyheads.training import compare as verb

    if picture is not None:
        require_matplotlib()
    with ExitStack() as named:
        files = {} if valid is None else {"valid_file": named_data(valid, "valid", named)}
        if not is_config(data):
            files["train_file"] = named_data(data, "train", named)
        elif data is not None:
            config = only_config(data, config)
        overrides = {**with_layout(settings, layout), **files}
        chosen = as_config(config, overrides, stored=is_comparison(out))
        tests: Any
        if isinstance(test_files, Mapping) and not are_records(test_files):
            tests = {
                task: named_data(one, f"test {task}", named) for task, one in test_files.items()
            }
        else:
            tests = optional_data(test_files, "test", named)
        found = verb(
            chosen, seeds=seeds, out=out, test_files=tests, report=messages("compare", progress),
            reporter_of=comparison_progress(progress),
        )  # fmt: skip
    if picture is not None:
        draw_comparison(found, picture)
    return found


def _train_config(
    data: Any, config: Any, valid: Any, settings: Mapping[str, Any], named: ExitStack, resume: bool
) -> Config:
    """Return the configuration of a training; records in memory keep names until `named` closes."""
    from manyheads.training.files import run_config

    if valid is not None:
        settings = {**settings, "valid_file": named_data(valid, "valid", named)}
    if is_config(data) and isinstance(data, Mapping | Config):
        config, data = only_config(data, config), None
    if data is None:
        if config is not None or _names_data(settings):
            return as_config(config, settings, stored=resume)
        return run_config(default_config(resume), settings, resume=resume).config
    several = _are_sources(data)
    if several and not resume:
        _refuse_texts(data)
    paths = [named_data(one, "train", named) for one in (data if several else [data])]
    if config is not None:
        return as_config(config, {**settings, "files": paths}, stored=resume)
    return run_config(paths, settings, resume=resume).config


def _are_sources(data: Any) -> bool:
    """Return whether data are several files or collections of records."""
    if not isinstance(data, list | tuple) or are_records(data):
        return False
    return isinstance(data[0], str | os.PathLike) or are_records(data[0])


def _refuse_texts(data: Sequence[Any]) -> None:
    """Refuse a list of strings that are no paths: they have no ending, and there are no such files.

    Raises:
        RequestError: it is one.
    """
    if not all(isinstance(one, str) and not is_dataset_name(one) for one in data):
        return
    for one in data:
        path, _ = without_split(one)
        # Path.exists fails for a text that is too long for a name.
        if _ENDING.search(path) or os.path.exists(path):  # noqa: PTH110
            return
    raise RequestError(
        f"the data are a list of strings, such as {shorten(data[0])}, and there are no such files",
        expected="paths of files, or labelled records",
        fix="Give records: pairs such as (text, label), or dicts.",
    )


def _names_data(settings: Mapping[str, Any]) -> bool:
    """Return whether settings name the training data."""
    tasks = settings.get("tasks")
    own = tasks.values() if isinstance(tasks, Mapping) else ()
    return bool({"train_file", "files"} & settings.keys()) or any(
        isinstance(task, Mapping) and "train_file" in task for task in own
    )


def default_config(resume: bool, path: Path = Path(CONFIG)) -> list[str]:
    """Return the configuration of a training for which nothing is named.

    A resumed run has one in its folder.

    Args:
        resume: whether a run is resumed.
        path: where the configuration is looked for.

    Raises:
        RequestError: there is no such file.
    """
    if path.exists():
        return [str(path)]
    if resume:
        return []
    named = option(
        "manyheads train CONFIG, or manyheads train FILE ...",
        "manyheads.train(CONFIG), or manyheads.train(DATA).",
    )
    raise RequestError(
        f"no configuration and no data are named, and there is no {path} here",
        expected="a YAML file, or labelled data",
        fix=f"Name them: {named}",
    )


def report_run(save_dir: StrPath, warn: Callable[[str], None]) -> Path | None:
    """Write the report of a run's best model to its folder, and return its path.

    Only the first process does.
    """
    from manyheads.display.report import write_report
    from manyheads.evaluation.report import report
    from manyheads.training import is_first_process

    if not is_first_process():
        return None
    path = Path(save_dir) / "report.html"
    write_report(report(save_dir, warn=warn), path)
    return path


def demo_config(settings: Mapping[str, Any], resume: bool) -> Config:
    """Return the configuration of the demonstration, with settings laid over it."""
    return load_config(None, {**DEMO, **settings}, stored=resume)


def run(
    config: Config,
    resume: bool,
    overwrite: bool,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedModel:
    """Run the training of a configuration (see `train`), and return the best model."""
    # rich draws a number when it is imported.
    state = random.getstate()
    from manyheads.api.progress import Calling, progress_of
    from manyheads.training import Reporter
    from manyheads.training import train as verb

    random.setstate(state)
    if reporter is None:
        shown = progress_of(config) if progress else Reporter()
    else:
        shown = Reporter.checked(reporter)
    try:
        calling = Calling(shown, on_step, on_epoch)
        result = verb(config, resume=resume, overwrite=overwrite, reporter=calling)
    finally:
        shown.end()
    loader = partial(load_again, result.best.absolute(), threads=config.threads)
    return TrainedModel(result, loader)
