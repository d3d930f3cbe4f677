"""Comparison of joint and separate training: each task alone, and all together, on equal budgets.

The budget is equal if a task's records are seen equally often: alone, a task has as many epochs as
with the others or, under a schedule that repeats or rations records, as many as it had passes,
rounded. All other settings are the configuration's, except those about several tasks.

The runs stay in the comparison's folder. One that was stopped is resumed.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.config import (
    AUTO,
    Config,
    Strict,
    TaskConfig,
    fields_where,
    restored_threads,
    stored_config,
)
from manyheads.data.hold_out import holding_out, splits_of
from manyheads.data.readers import Layout
from manyheads.data.records import Record, discover_labels, read_records
from manyheads.errors import DataError, ModelError, RequestError, at, counted, listing, nearest
from manyheads.evaluation import (
    EvaluationReport,
    Ratio,
    TaskOutcomes,
    evaluate,
    mean_interval,
    paired_bootstrap,
    text_of,
)
from manyheads.inference import Predictor, Runtime, Text, load_model
from manyheads.modeling import Encoder, find_encoder
from manyheads.sampling import spread
from manyheads.storage import METRICS_FILE, SEED_FOLDER, StrPath, write_json
from manyheads.tasks import kind_of
from manyheads.text import TextTokenizer
from manyheads.training.data.schedules import Schedule, rounds
from manyheads.training.data.training_data import load_training_data
from manyheads.training.launch import refuse_several
from manyheads.training.loop import train
from manyheads.training.reporter import Reporter
from manyheads.training.setup import usable_length
from manyheads.training.signals import Stopped
from manyheads.training.state import RunMismatch
from manyheads.training.verdicts import Times, Verdict

_Records = tuple[Sequence[Record], Sequence[str]]
"""Records, and the tasks that models are scored on with them."""

TOGETHER = "together"
COMPARISON_FILE = "comparison.json"

INFERENCE_TEXTS = 512
INFERENCE_ROUNDS = 5

ReporterOf = Callable[[str, Config], AbstractContextManager[Reporter]]
"""Returns the reporter of a run for its name and configuration."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of a comparison."""

    verdicts: tuple[Verdict, ...]
    training: Times
    """Seconds of a run, including its evaluations: the mean over the seeds."""
    inference: Times
    """Seconds to predict `texts` texts."""
    texts: int
    seeds: tuple[int, ...]
    epochs: Mapping[str, int]
    """The epochs that each task was trained alone."""
    data: tuple[str, ...]
    """The files that the models were scored on."""
    tested: bool
    """Whether the scoring data were held out from model selection."""

    def __repr__(self) -> str:
        return "\n".join(
            [f"Comparison({counted(len(self.seeds), 'seed')})", *map("  {}".format, self.words())]
        )

    def words(self) -> list[str]:
        """Describe the result in one sentence for each task."""
        return [verdict.words(self.inference) for verdict in self.verdicts]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON values that `compare --json` writes."""
        return {
            "tasks": {v.task: v.to_json(self.inference) for v in self.verdicts},
            "training_seconds": self.training.to_json(),
            "inference_seconds": {**self.inference.to_json(), "texts": self.texts},
            "seeds": list(self.seeds),
            "epochs_alone": dict(self.epochs),
            "data": list(self.data),
            "chosen_on_the_same_data": not self.tested,
        }


@dataclass(frozen=True)
class _Scored:
    """The scores of one seed's models, by task, alone and together."""

    alone: Mapping[str, TaskOutcomes]
    together: Mapping[str, TaskOutcomes]
    data: tuple[str, ...]
    sets: Sequence[_Records]


@restored_threads()
def compare(
    config: Config,
    *,
    seeds: int = 3,
    out: StrPath = "comparison",
    test_files: Mapping[str, StrPath] | StrPath | None = None,
    reporter_of: ReporterOf = lambda name, config: nullcontext(Reporter()),
    report: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Train each task alone and all together for each seed, and judge the differences.

    Args:
        config: the run with all tasks. Its `seed` is the first of the seeds; the others follow.
        seeds: the number of seeds.
        out: the comparison's folder, for the runs and `comparison.json`.
        test_files: the files to score the models on: one for all tasks, or one for each. Default:
            the validation data, which also selected the models.
        reporter_of: returns the reporter of each run.
        report: receives messages for the user.

    Raises:
        RequestError: there is nothing to compare, or the folder holds another comparison.
        ManyheadsError: the configuration, data, encoder or folder is at fault.
        Stopped: a signal stopped a run; the next call resumes it.
    """
    refuse_several("a comparison")
    files = _test_files(config, test_files)
    _refuse_incomparable(config)
    if seeds < 1:
        raise RequestError(f"{seeds} seeds", expected="at least 1; 3 or more to judge the noise")
    if files is not None:
        _check_test_files(config, files)
    epochs = epochs_alone(config)
    folder = Path(out)
    numbers = tuple(config.seed + i for i in range(seeds))
    trained = [_train_seed(config, epochs, folder, seed, reporter_of) for seed in numbers]
    report("Scoring the models ...")
    scored = [_score(config, models.bests, files) for models in trained]
    report("Measuring inference ...")
    inference, texts = _inference(config, trained[0].bests, scored[0].sets)
    comparison = Comparison(
        verdicts=tuple(judge(task, scored) for task in config.tasks),
        training=_training_times(config, trained),
        inference=inference,
        texts=texts,
        seeds=numbers,
        epochs=epochs,
        data=scored[0].data,
        tested=files is not None,
    )
    write_json(folder / COMPARISON_FILE, comparison.to_json())
    return comparison


@dataclass(frozen=True)
class _Trained:
    """The models of one seed by task, and that of all tasks."""

    bests: Mapping[str, Path]
    seconds: Mapping[str, float]


def _train_seed(
    config: Config, epochs: Mapping[str, int], folder: Path, seed: int, reporter_of: ReporterOf
) -> _Trained:
    """Train or resume the runs of one seed."""
    runs = _runs(config, epochs, folder, seed)
    titles = {name: f"{name} alone" for name in runs} | {TOGETHER: "all together"}
    bests = {
        name: _trained(f"seed {seed}: {titles[name]}", one, folder, reporter_of)
        for name, one in runs.items()
    }
    seconds = {name: training_seconds(Path(one.save_dir)) for name, one in runs.items()}
    return _Trained(bests, seconds)


def _training_times(config: Config, trained: Sequence[_Trained]) -> Times:
    """Return the mean seconds of the runs over the seeds."""
    means = {
        name: statistics.fmean(models.seconds[name] for models in trained)
        for name in (*config.tasks, TOGETHER)
    }
    return Times({task: means[task] for task in config.tasks}, means[TOGETHER])


def _refuse_incomparable(config: Config) -> None:
    """Refuse a configuration for which training together and alone cannot be compared.

    Raises:
        RequestError: the runs would have different data or budgets; it has no validation data or
            one task, starts from a trained model, or has a task that is measured by a correlation.
    """
    is_auto = config.num_epochs == AUTO
    if is_auto or splits_of(holding_out(config)):
        raise RequestError(
            "`num_epochs` is auto, and each run would have another number of epochs"
            if is_auto
            else "tasks have no validation data, and each run would hold out other records",
            expected="a `train_file`, a `valid_file` and a number of epochs, the same for all runs",
            fix="Name the files in the folder data of a trained run, and set `num_epochs`.",
        )
    if config.refit is not None:
        raise RequestError(
            f"the configuration is that of a run on all records of {config.refit}",
            expected="validation data that no run learns from",
            fix="Compare with the configuration of the run before.",
        )
    if len(config.tasks) < 2:
        raise RequestError(
            f"the configuration has one task, {listing(config.tasks)}",
            expected="at least two: training together is compared with training each alone",
        )
    if config.init_from is not None:
        raise RequestError(
            f"`init_from` is {config.init_from}, whose heads have already been trained together",
            expected="a comparison that starts from an encoder",
            fix="Leave `init_from` out; `model_name` may be a trained model's folder.",
        )
    others = [name for name, task in config.tasks.items() if not kind_of(task.kind).decides]
    if others:
        raise RequestError(
            f"the predictions of {listing(others)} are neither right nor wrong",
            expected="tasks whose metric is a share of sentences or labels, not a correlation",
            fix="Leave it out of `tasks`, and compare evaluations of models with and without it.",
        )


def epochs_alone(config: Config) -> dict[str, int]:
    """Return the epochs in which each task alone sees its records as often as with the others."""
    schedule = Schedule.of(config)
    if not schedule.by_shares:
        return dict.fromkeys(config.tasks, config.epochs)
    encoder = Encoder.from_source(find_encoder(config.model_name, config.pooling))
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    data = load_training_data(config, tokenizer, usable_length(config, encoder), lambda text: None)
    counts = rounds(data.sources, schedule)
    return {
        source.name: max(1, round(count))
        for source, count in zip(data.sources, counts, strict=True)
    }


def config_alone(config: Config, task: str, epochs: int) -> Config:
    """Return the same configuration for one of its tasks alone."""
    values = config.model_dump(exclude=_of_several(Config))
    own = config.tasks[task].model_dump(exclude=_of_several(TaskConfig))
    if config.best_metric.partition(".")[0] == task:
        values["best_metric"] = config.best_metric
    return stored_config({**values, "tasks": {task: own}, "num_epochs": epochs})


def _of_several(section: type[Strict]) -> set[str]:
    return set(fields_where(section, lambda setting: setting.compare == "several"))


def training_seconds(save_dir: Path) -> float:
    """Return a run's seconds from its log, over all of its sessions.

    Raises:
        ModelError: the log is missing or damaged.
    """
    path = save_dir / METRICS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return float(sum(json.loads(line)["seconds"] for line in lines))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the log of the run cannot be read ({error})", where=at(path),
            fix="Remove the run's folder to train it again.",
        ) from None  # fmt: skip


def _test_files(
    config: Config, files: Mapping[str, StrPath] | StrPath | None
) -> dict[str, str] | None:
    """Return each task's test file; None if there is none."""
    if files is None:
        return None
    if not isinstance(files, Mapping):
        return dict.fromkeys(config.tasks, os.fspath(files))
    for task in files:
        if task not in config.tasks:
            raise RequestError(
                f"a test file is given for {task!r}, but there is no such task"
                f"{nearest(task, config.tasks)}",
                expected=f"one of: {listing(config.tasks)}",
            )
    missing = [task for task in config.tasks if task not in files]
    if missing:
        raise RequestError(
            f"there is no test file for {listing(missing)}",
            expected="one for every task, or one for all",
        )
    return {task: os.fspath(path) for task, path in files.items()}


def _check_test_files(config: Config, files: Mapping[str, str]) -> None:
    """Read the test files as the models will, before anything is trained.

    Args:
        config: the run with all tasks.
        files: by task.

    Raises:
        DataError: a record is invalid, or none has a label for one of the tasks.
    """
    layout = Layout.of(config)
    label_sets = discover_labels(config.tasks, config.train_files(), layout)
    for file in dict.fromkeys(files.values()):
        tasks = {name: task for name, task in config.tasks.items() if files[name] == file}
        records = read_records(file, tasks, label_sets, layout=layout, allow_unseen=True)
        labelled = {name for record in records for name in record.labels}
        for name, task in tasks.items():
            if name not in labelled:
                raise DataError(
                    f"no record has a label for task {name!r}", where=file,
                    expected=f"labels in the field {' or '.join(task.fields)}",
                    fix="Name another test file, or one for each task.",
                )  # fmt: skip


def _runs(config: Config, epochs: Mapping[str, int], folder: Path, seed: int) -> dict[str, Config]:
    """Return the runs of a seed by name; each one's folder is named after it."""
    runs = {task: config_alone(config, task, epochs[task]) for task in config.tasks}
    runs[TOGETHER] = config
    place = folder / f"{SEED_FOLDER}{seed}"
    return {
        name: one.model_copy(
            update={
                "seed": seed,
                "save_dir": os.fspath(place / (name if name == TOGETHER else f"alone-{name}")),
                # A checkpoint is several times as large as a model, and there are many runs.
                "keep_checkpoints": one.keep_checkpoints or 1,
            }
        )
        for name, one in runs.items()
    }


def _trained(title: str, config: Config, folder: Path, reporter_of: ReporterOf) -> Path:
    """Train or resume one run, and return its best model."""
    try:
        with reporter_of(title, config) as reporter:
            return train(config, resume=True, reporter=reporter).best
    except RunMismatch as error:  # whose advice is for `train`
        raise RequestError(
            error.found, expected=error.expected, where=error.where or at(config.save_dir),
            fix=f"Use another folder than {folder} for this comparison, or remove it.",
        ) from None  # fmt: skip
    except Stopped as stopped:
        raise Stopped(
            f"Stopped in {config.save_dir}, which is saved. The same command resumes it.",
            stopped.exit_status - 128,
        ) from None


def _score(config: Config, bests: Mapping[str, Path], files: Mapping[str, str] | None) -> _Scored:
    """Score the models of one seed."""
    # The tasks by file; None stands for the validation files that the model records.
    tasks_of: dict[str | None, list[str]] = {}
    for task in config.tasks:
        tasks_of.setdefault(files[task] if files else None, []).append(task)
    alone: dict[str, TaskOutcomes] = {}
    together: dict[str, TaskOutcomes] = {}
    data: list[str] = []
    sets: list[_Records] = []
    for file, tasks in tasks_of.items():
        scores = _evaluated(config, bests[TOGETHER], file, tasks)
        together |= scores.outcomes.tasks
        data += scores.data
        sets.append((scores.records, tasks))
        for task in tasks:
            alone |= _evaluated(config, bests[task], file, [task]).outcomes.tasks
    return _Scored(alone, together, tuple(data), sets)


def _evaluated(
    config: Config, model: Path, file: str | None, tasks: Sequence[str]
) -> EvaluationReport:
    runtime = Runtime("torch", config.device, config.threads)
    layout = None if file is None else Layout.of(config)
    return evaluate(model, data=file, layout=layout, tasks=tasks, runtime=runtime, drift=False)


def judge(task: str, scored: Sequence[_Scored]) -> Verdict:
    """Judge one task by the scores of each seed's models."""
    spec = scored[0].together[task].spec
    alone = [_ratio(part.alone[task]) for part in scored]
    together = [_ratio(part.together[task]) for part in scored]
    pairs = zip(alone, together, strict=True)
    return Verdict(
        task=task,
        metric=spec.main_metric,
        alone=tuple(ratio.value() for ratio in alone),
        together=tuple(ratio.value() for ratio in together),
        seeds=mean_interval([b.value() - a.value() for a, b in pairs]),
        sentences=paired_bootstrap(_sum(alone), _sum(together)),
    )


def _ratio(outcomes: TaskOutcomes) -> Ratio:
    ratio = outcomes.ratio()
    if ratio is None:
        raise TypeError(f"the kind {outcomes.spec.kind!r} decides and has no ratio")
    return ratio


def _sum(ratios: Sequence[Ratio]) -> Ratio:
    total = ratios[0]
    for ratio in ratios[1:]:
        total = total + ratio
    return total


def _inference(
    config: Config, bests: Mapping[str, Path], sets: Sequence[_Records]
) -> tuple[Times, int]:
    """Time one model's pass for all tasks against a pass of each task's own model.

    Args:
        config: the run with all tasks.
        bests: the models.
        sets: the records whose texts are answered.

    Returns:
        the times, and the number of texts.
    """
    runtime = Runtime("torch", config.device, config.threads)
    models = {name: load_model(path, runtime).predictor for name, path in bests.items()}
    given = {
        name: [
            text_of(record, tasks) if model.pairs else record.text
            for records, tasks in sets
            for record in spread(records, max(1, INFERENCE_TEXTS // len(sets)))
        ]
        for name, model in models.items()
    }
    times = measure(models, given)
    return Times({task: times[task] for task in config.tasks}, times[TOGETHER]), len(
        given[TOGETHER]
    )


def measure(
    models: Mapping[str, Predictor],
    texts: Mapping[str, Sequence[Text]],
    count: int = INFERENCE_ROUNDS,
) -> dict[str, float]:
    """Return the seconds that each model takes for its texts: the median of a few rounds.

    The models take turns, so that other load on the machine affects all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(count + 1):
        for name, model in models.items():
            begin = time.perf_counter()
            model.predict(texts[name])
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in times.items()}
