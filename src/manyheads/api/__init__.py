"""The Python API: one function per command."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from manyheads.config import Config, load_config
from manyheads.errors import ConfigError, shorten

if TYPE_CHECKING:
    from manyheads.data.readers import Layout
    from manyheads.evaluation import EvaluationReport
    from manyheads.inference import Predictor
    from manyheads.storage import Prefer, StrPath
    from manyheads.training import Comparison, Reporter, TrainResult


def train(
    config: Config | StrPath | Sequence[StrPath] | Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> TrainResult:
    """Train a model; the command is `manyheads train`.

    Args:
        config: a configuration, its YAML file, or a mapping of its values; or a labelled data file
            or several, whose tasks are worked out. Default: `settings` alone.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        reporter: shows progress.
        **settings: configuration fields, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    from manyheads.training import train as verb
    from manyheads.training.files import run_config

    if isinstance(config, str | os.PathLike):
        config = [config]
    if isinstance(config, Sequence):
        chosen = run_config([os.fspath(path) for path in config], settings, resume=resume).config
    else:
        chosen = _as_config(config, settings)
    return verb(chosen, resume=resume, overwrite=overwrite, reporter=reporter)


def add_head(
    model: StrPath,
    task: str,
    *,
    kind: str,
    train_file: StrPath,
    valid_file: StrPath,
    save_dir: StrPath,
    task_settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> TrainResult:
    """Add a task to a trained model; its other outputs stay bit-identical.

    The encoder is frozen unless `freeze` says otherwise. The command is `manyheads add-head`.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: name of the new task.
        kind: kind of the task.
        train_file: training records of the task.
        valid_file: validation records of the task.
        save_dir: folder of the new model, which has the old tasks and the new one.
        task_settings: other fields of the task, such as `field` and `decoder`.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        reporter: shows progress.
        **settings: configuration fields, such as `num_epochs`; `freeze` to train the encoder.

    Raises:
        ManyheadsError: the model, data, a setting or the folder is invalid.
    """
    from manyheads.training import add_head_config
    from manyheads.training import train as verb

    own = {"kind": kind, "train_file": os.fspath(train_file), "valid_file": os.fspath(valid_file)}
    config = add_head_config(
        model, task, {**(task_settings or {}), **own}, {**settings, "save_dir": os.fspath(save_dir)}
    )
    return verb(config, resume=resume, overwrite=overwrite, reporter=reporter)


def load(
    model: StrPath = "saved_model",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Predictor:
    """Load a model for prediction.

    Args:
        model: a model folder, a checkpoint, or a run's folder (its best model).
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.

    Raises:
        ModelError: there is no such model, or it is damaged.
        RequestError: the backend or device is unknown or not available.
    """
    from manyheads.inference import load_predictor

    return load_predictor(model, backend=backend, device=device, threads=threads)


def evaluate(
    model: StrPath | None = None,
    data: StrPath | None = None,
    *,
    checkpoint: Prefer | None = None,
    tasks: Sequence[str] | None = None,
    backend: str = "auto",
    device: str = "auto",
) -> EvaluationReport:
    """Score a model on labelled records; the command is `manyheads evaluate`.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default: `saved_model`.
        data: a labelled file of any format; default: the validation data of the run.
        checkpoint: which model of a run's folder is scored; default: the best one, or the latest
            where no model is named.
        tasks: the tasks to score; default: all that the data have labels for.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.

    Raises:
        ManyheadsError: the model or the data cannot be used, or have no label in common.
    """
    from manyheads.evaluation import evaluate as verb

    return verb(
        model, data=data, checkpoint=checkpoint, tasks=tasks, backend=backend, device=device
    )


def compare(
    config: Config | StrPath | Mapping[str, Any],
    *,
    seeds: int = 3,
    out: StrPath = "comparison",
    test_files: Mapping[str, StrPath] | StrPath | None = None,
    **settings: Any,
) -> Comparison:
    """Compare joint training with training each task alone; the command is `manyheads compare`.

    Args:
        config: a configuration with two tasks or more, its file, or a mapping of its values.
        seeds: number of runs of each option.
        out: folder of the runs and the result; an interrupted comparison is resumed there.
        test_files: labelled data to score on, one file or a file per task; default: the
            validation data.
        **settings: configuration fields, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    from manyheads.training import compare as verb

    return verb(_as_config(config, settings), seeds=seeds, out=out, test_files=test_files)


def convert(
    source: StrPath,
    target: StrPath,
    *,
    to: str = "manyheads",
    layout: Layout | None = None,
    model: StrPath | None = None,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
) -> int:
    """Write data of any format as ours or for a labelling tool; see `manyheads.data.convert`.

    With a model, its predictions are written beside or in place of labels.
    """
    from manyheads.data.convert import convert as verb

    predict = None if model is None else load(model).predict_stream
    return verb(source, target, to=to, layout=layout, predict=predict, on_unread=on_unread)


def _as_config(
    config: Config | StrPath | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> Config:
    if config is None or isinstance(config, str | os.PathLike):
        return load_config(config, settings)
    if isinstance(config, Config):
        return (
            load_config(None, {**config.model_dump(exclude_unset=True), **settings})
            if settings
            else config
        )
    if isinstance(config, Mapping):
        return load_config(None, {**config, **settings})
    raise ConfigError(
        f"the configuration is {shorten(config)}", expected="a Config, a path or a mapping"
    )
