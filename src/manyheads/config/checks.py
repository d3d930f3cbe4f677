"""Combinations of settings of a run that are refused: one row a rule, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyheads.config.section_checks import Check, changed
from manyheads.errors import listing, nearest
from manyheads.tasks import kind_of

if TYPE_CHECKING:
    from manyheads.config.run import Config
    from manyheads.config.task import TaskConfig


@dataclass(frozen=True)
class TaskInRunCheck:
    """A rule about settings of a run and of one of its tasks."""

    name: str
    broken: Callable[[Config, TaskConfig], bool]
    message: Callable[[Config, TaskConfig, str], str]
    """From the run, the task and the task's name."""


@dataclass(frozen=True)
class UnreadCheck(Check["Config"]):
    """A rule about settings of a run that nothing reads."""

    settings: tuple[str, ...]
    """Their dotted keys."""


def first_problem(config: Config, *, stored: bool) -> str | None:
    """Return the message of the first rule that a configuration breaks, or None.

    Args:
        config: the configuration.
        stored: whether a run was started with it, which may have settings refused since.
    """
    return next(_problems(config, stored=stored), None)


def unread_settings(config: Config) -> list[str]:
    """Return the dotted keys of settings that nothing reads, which are refused in new runs."""
    return [key for check in NEW_RUN_CHECKS if check.broken(config) for key in check.settings]


def _problems(config: Config, *, stored: bool) -> Iterator[str]:
    for check in (*CHECKS, *(() if stored else NEW_RUN_CHECKS)):
        if check.broken(config):
            yield check.message(config)
    for rule in TASK_IN_RUN_CHECKS:
        for name, task in config.tasks.items():
            if rule.broken(config, task):
                yield rule.message(config, task, name)


CACHE = ("cache_activations", "cache_memory")
HOLD_OUT = ("hold_out", "hold_out_seed")
COMMON_FILES = ("train_file", "valid_file", "files", *HOLD_OUT)
CHOICE = ("early_stopping", "keep_best_per_task", "best_metric", "best_weights")
BY_SIZE = ("temperature", "annealed")
SEVERAL_A_STEP = ("together", "joint")

CHECKS: tuple[Check[Config], ...] = (
    Check(
        "numbers of labels are for the standard tasks",
        lambda c: any(
            number is not None and (task not in c.tasks or c.tasks[task].num_labels != number)
            for task, number in (("classification", c.num_classes), ("ner", c.num_ner_labels))
        ),
        lambda c: (
            "`num_classes` and `num_ner_labels` are for configurations without `tasks`; "
            "set `tasks.NAME.num_labels`"
        ),
    ),
    Check(
        "files replace training files",
        lambda c: c.files is not None and bool(_own_files(c)),
        lambda c: (
            f"`files` and {_own_files(c)[0]} are both set; `files` is for all tasks, and a part of "
            "it is held out for validation; leave one of them out"
        ),
    ),
    Check(
        "unfreezing needs something frozen",
        lambda c: c.freeze == "none" and c.unfreeze_every is not None,
        lambda c: (
            f"`unfreeze_every` is {c.unfreeze_every}, but nothing is frozen; set "
            "`freeze: encoder` or `freeze: layers:K`, or leave it out"
        ),
    ),
    Check(
        "the encoder's own upper layers have something to do",
        lambda c: (
            bool(c.head_layers) and not (c.encoder_is_frozen or c.keep_embeddings or c.pair_tasks)
        ),
        lambda c: (
            f"`head_layers` is {c.head_layers}, so the encoder's own upper layers serve only the "
            "embedding, and would not adapt to the lower layers, which are trained; set "
            "`freeze: encoder` or `keep_embeddings`, or leave it out"
        ),
    ),
    Check(
        "adapters are not copied",
        lambda c: c.head_layers is not None and c.lora is not None,
        lambda c: (
            "`head_layers` and `lora` are both set, but adapters cannot be copied with the "
            "layers; leave one of them out"
        ),
    ),
    Check(
        "adapters are not unfrozen",
        lambda c: c.lora is not None and c.unfreeze_every is not None,
        lambda c: (
            "`lora` and `unfreeze_every` are both set, but frozen layers have no adapters to "
            "unfreeze; leave one of them out"
        ),
    ),
    Check(
        "learning rates of layers need trained layers",
        lambda c: c.encoder_is_frozen and c.layer_decay != 1,
        lambda c: (
            f"`layer_decay` is {c.layer_decay:g}, but with `freeze: encoder` no layer is "
            "trained; leave it out, or set `unfreeze_every`"
        ),
    ),
    Check(
        "adapters need a trained encoder",
        lambda c: c.encoder_is_frozen and c.lora is not None,
        lambda c: (
            "`lora` is set, but with `freeze: encoder` nothing in the encoder is trained; leave "
            "one of them out, or freeze less: adapters do not train its own weights anyway"
        ),
    ),
    Check(
        "only an embedding that changes is kept",
        lambda c: c.encoder_is_frozen and c.keep_embeddings is not None,
        lambda c: (
            "`keep_embeddings` is set, but with `freeze: encoder` the embedding does not change "
            "at all; leave one of them out"
        ),
    ),
    Check(
        "only an embedding that changes learns from a teacher",
        lambda c: c.encoder_is_frozen and c.teacher is not None and c.teacher.embedding > 0,
        lambda c: (
            f"`teacher.embedding` is {c.teacher.embedding if c.teacher else 0:g}, but with "
            "`freeze: encoder` the embedding does not change; leave one of them out"
        ),
    ),
    Check(
        "an embedding has one target",
        lambda c: (
            c.keep_embeddings is not None and c.teacher is not None and c.teacher.embedding > 0
        ),
        lambda c: (
            "`keep_embeddings` and `teacher.embedding` are both set, but pull the embedding in "
            "different directions; leave one of them out"
        ),
    ),
    Check(
        "pairs need an embedding that changes",
        lambda c: c.encoder_is_frozen and bool(c.pair_tasks),
        lambda c: (
            f"`tasks.{c.pair_tasks[0]}` trains the sentence embedding, which `freeze: "
            "encoder` does not let change; leave the task out, or freeze less"
        ),
    ),
    Check(
        "only a trained head is frozen",
        lambda c: bool(c.frozen_tasks) and c.init_from is None,
        lambda c: (
            f"`tasks.{c.frozen_tasks[0]}.frozen` is true, but a new head has learned "
            "nothing yet; set `init_from` to a model that has the task, or train it"
        ),
    ),
    Check(
        "something is trained",
        lambda c: (
            bool(c.frozen_tasks)
            and c.encoder_is_frozen
            and all(task.frozen or task.carried for task in c.tasks.values())
        ),
        lambda c: (
            "nothing is trained: the encoder is frozen (`freeze: encoder`), and so are the heads "
            f"of all tasks ({listing(c.frozen_tasks)}); freeze less"
        ),
    ),
    Check(
        "trained heads read all layers",
        lambda c: c.student_layers is not None and c.init_from is not None,
        lambda c: (
            "`student_layers` and `init_from` are both set, but the heads of a trained model do "
            "not fit an encoder of fewer layers; set `model_name` to the model's folder to make "
            "the student from its encoder, and `teacher` to learn from its outputs"
        ),
    ),
    Check(
        "only the output of frozen layers is cached",
        lambda c: c.freeze in ("none", "embeddings") and bool(changed(c, CACHE)),
        lambda c: (
            f"`{changed(c, CACHE)[0]}` is {getattr(c, changed(c, CACHE)[0])!r}, but "
            f"`freeze` is {c.freeze!r}, so no activations are cached; freeze layers:K or encoder, "
            "or leave it out"
        ),
    ),
    Check(
        "a power needs a schedule by size",
        lambda c: c.schedule_alpha is not None and c.schedule not in BY_SIZE,
        lambda c: (
            f"`schedule_alpha` is {c.schedule_alpha:g}, but `schedule` is {c.schedule!r}; it "
            f"is for {' and '.join(BY_SIZE)}"
        ),
    ),
    Check(
        "a schedule by ratios needs one",
        lambda c: c.schedule == "ratios" and all(t.ratio is None for t in c.tasks.values()),
        lambda c: "`schedule` is 'ratios', but no task has a `ratio`; set `tasks.NAME.ratio`",
    ),
    Check(
        "balancing needs several tasks",
        lambda c: c.balancing.method != "static" and len(c.tasks) < 2,
        lambda c: (
            f"`balancing` is {c.balancing.method!r}, but there is one task, "
            f"{listing(c.tasks)}; leave it out"
        ),
    ),
    Check(
        "gradients are measured once",
        lambda c: c.log_gradients is not None and c.balancing.compares_gradients,
        lambda c: (
            f"`log_gradients` is {c.log_gradients}, but `balancing` is "
            f"{c.balancing.method!r}, which measures and logs the gradients at every step; leave "
            "`log_gradients` out"
        ),
    ),
    Check(
        "gradients are logged of several tasks",
        lambda c: c.log_gradients is not None and len(c.tasks) < 2,
        lambda c: (
            f"`log_gradients` is {c.log_gradients}, but there is one task, "
            f"{listing(c.tasks)}; leave it out"
        ),
    ),
    Check(
        "steps have several tasks whose gradients are compared",
        lambda c: bool(_comparing(c)) and c.schedule not in SEVERAL_A_STEP,
        lambda c: (
            f"{_comparing(c)}, which compares the tasks' gradients within a step, but "
            f"`schedule` is {c.schedule!r}, whose steps have one task each; set "
            "`schedule: together`, or `joint` where the records have the labels of several tasks"
        ),
    ),
    Check(
        "records have several tasks whose gradients are compared",
        lambda c: bool(_comparing(c)) and c.schedule == "joint" and bool(_single(c)),
        lambda c: (
            f"{_comparing(c)}, which compares the tasks' gradients within a step, but with "
            f"`schedule: joint` the steps of {_single(c)[0][0]} have one task, "
            f"{_single(c)[0][1]!r}; set `schedule: together`"
        ),
    ),
    Check(
        "the encoder has gradients to compare",
        lambda c: bool(_comparing(c)) and c.encoder_is_frozen,
        lambda c: (
            f"{_comparing(c)}, which compares the tasks' gradients of the encoder, but with "
            "`freeze: encoder` there are none; freeze less, or leave it out"
        ),
    ),
    Check(
        "the best metric is of a task",
        lambda c: _best(c)[0] not in ("mean", "weighted", *c.tasks),
        lambda c: (
            f"`best_metric` is {c.best_metric!r}, but there is no task {_best(c)[0]!r}"
            f"{nearest(_best(c)[0], c.tasks)}; use mean, weighted, a task or TASK.METRIC, where "
            f"the tasks are {listing(c.tasks)}"
        ),
    ),
    Check(
        "the best metric is one of its task",
        lambda c: bool(_best(c)[1]) and _best(c)[1] not in _best_known(c),
        lambda c: (
            f"`best_metric` is {c.best_metric!r}, but {_best(c)[0]!r} has no metric "
            f"{_best(c)[1]!r}{nearest(_best(c)[1], _best_known(c))}; it has "
            f"{listing(_best_known(c)) or 'none; use the name without a dot'}"
        ),
    ),
    Check(
        "batches of all tasks count sentences",
        lambda c: c.tokens_per_batch is not None and c.schedule == "together",
        lambda c: (
            "`tokens_per_batch` cannot be combined with `schedule: together`, where the largest "
            "task determines the steps; use `batch_size`"
        ),
    ),
    Check(
        "a run on all records chooses nothing",
        lambda c: c.refit is not None and bool(changed(c, CHOICE)),
        lambda c: (
            f"`{changed(c, CHOICE)[0]}` is {getattr(c, changed(c, CHOICE)[0])!r}, but with `refit` "
            "no record is left to validate on, and the last epoch is kept; leave it out"
        ),
    ),
    Check(
        "a run on all records has files of its own",
        lambda c: c.refit is not None and bool(changed(c, COMMON_FILES)),
        lambda c: (
            f"`{changed(c, COMMON_FILES)[0]}` is {getattr(c, changed(c, COMMON_FILES)[0])!r}, but "
            "with `refit` each task has files that the run writes; leave it out"
        ),
    ),
    Check(
        "weights need a weighted metric",
        lambda c: c.best_weights is not None and c.best_metric != "weighted",
        lambda c: (
            f"`best_weights` is set, but `best_metric` is {c.best_metric!r}; set "
            "`best_metric: weighted`, or leave it out"
        ),
    ),
    Check(
        "weights are of tasks",
        lambda c: bool(_weights_of_none(c)),
        lambda c: (
            f"`best_weights` has {_weights_of_none(c)[0]!r}, but there is no such task"
            f"{nearest(_weights_of_none(c)[0], c.tasks)}; the tasks are {listing(c.tasks)}"
        ),
    ),
    Check(
        "a weighted metric needs a weight",
        lambda c: c.best_metric == "weighted" and not any(_weights(c)),
        lambda c: (
            "`best_metric` is 'weighted', but no task has a weight above 0; set "
            "`best_weights`, such as {intent: 1, ner: 3}"
        ),
    ),
)

NEW_RUN_CHECKS: tuple[UnreadCheck, ...] = (
    UnreadCheck(
        "records are held out where there are no validation data",
        lambda c: c.valid_file is not None and bool(changed(c, HOLD_OUT)),
        lambda c: (
            f"`{changed(c, HOLD_OUT)[0]}` is {getattr(c, changed(c, HOLD_OUT)[0]):g}, but "
            "`valid_file` is set, so nothing is held out; leave one of them out"
        ),
        HOLD_OUT,
    ),
    UnreadCheck(
        "a task's best model is another than the run's",
        lambda c: c.keep_best_per_task and len(c.tasks) < 2 and c.init_from is None,
        lambda c: (
            f"`keep_best_per_task` is true, but there is one task, {listing(c.tasks)}, whose best "
            "model is the run's; leave it out"
        ),
        ("keep_best_per_task",),
    ),
    UnreadCheck(
        "batches of texts to keep the embedding on need texts",
        lambda c: (
            c.keep_embeddings is not None
            and c.keep_embeddings.batch_size is not None
            and c.keep_embeddings.texts is None
        ),
        lambda c: (
            f"`keep_embeddings.batch_size` is {c.keep_embeddings and c.keep_embeddings.batch_size} "
            "unlabelled sentences, but there are none; set `keep_embeddings.texts`, or leave it out"
        ),
        ("keep_embeddings.batch_size",),
    ),
    UnreadCheck(
        "batches of texts to learn from a teacher need texts",
        lambda c: (
            c.teacher is not None and c.teacher.batch_size is not None and not c.teacher.unlabelled
        ),
        lambda c: (
            f"`teacher.batch_size` is {c.teacher and c.teacher.batch_size} unlabelled sentences, "
            "but there are none; set `teacher.texts`, or leave it out"
        ),
        ("teacher.batch_size",),
    ),
)
"""Rules about settings that nothing reads, which runs of earlier versions may have."""

TASK_IN_RUN_CHECKS: tuple[TaskInRunCheck, ...] = (
    TaskInRunCheck(
        "a ratio needs a schedule by ratios",
        lambda c, task: task.ratio is not None and c.schedule != "ratios",
        lambda c, task, name: (
            f"`tasks.{name}.ratio` is {task.ratio:g}, but `schedule` is "
            f"{c.schedule!r}; set `schedule: ratios`, or leave it out"
        ),
    ),
    TaskInRunCheck(
        "joint batches have one size",
        lambda c, task: c.schedule == "joint" and bool(_rations(task)),
        lambda c, task, name: (
            f"`tasks.{name}.{_rations(task)[0]}` is "
            f"{getattr(task, _rations(task)[0])}, but with `schedule: joint` all tasks of a file "
            "learn from the same batches; leave it out, or choose another schedule"
        ),
    ),
    TaskInRunCheck(
        "records are not rationed by sub-tokens",
        lambda c, task: c.tokens_per_batch is not None and task.max_records is not None,
        lambda c, task, name: (
            f"`tokens_per_batch` cannot be combined with `tasks.{name}.max_records`, "
            f"which is {task.max_records}; use `batch_size`"
        ),
    ),
    TaskInRunCheck(
        "batches have one measure",
        lambda c, task: c.tokens_per_batch is not None and task.batch_size is not None,
        lambda c, task, name: (
            f"`tokens_per_batch` is {c.tokens_per_batch} and "
            f"`tasks.{name}.batch_size` is {task.batch_size}: batches have a budget of sub-tokens "
            "or a number of sentences; leave one of them out"
        ),
    ),
)


def _own_files(config: Config) -> list[str]:
    """Return the settings of data files that `files` would replace."""
    tasks = [
        f"`tasks.{name}.{key}`"
        for name, task in config.tasks.items()
        for key in ("train_file", "valid_file")
        if getattr(task, key) is not None
    ]
    return [*(["`train_file`"] if config.train_file is not None else []), *tasks]


def _comparing(config: Config) -> str:
    """Return the setting that compares gradients, in words; empty if none does."""
    if config.balancing.compares_gradients:
        return f"`balancing` is {config.balancing.method!r}"
    return "" if config.log_gradients is None else f"`log_gradients` is {config.log_gradients}"


def _single(config: Config) -> list[tuple[str | None, str]]:
    """Return the training files with one task, with that task."""
    files: dict[str | None, list[str]] = {}
    for name, task in config.tasks.items():
        if not task.carried:
            files.setdefault(task.train_file or config.train_file, []).append(name)
    return [(path, names[0]) for path, names in files.items() if len(names) < 2]


def _best(config: Config) -> tuple[str, str]:
    """Return the task, or mean, and the metric of `best_metric`."""
    task, _, metric = config.best_metric.partition(".")
    return task, metric


def _best_known(config: Config) -> tuple[str, ...]:
    task = _best(config)[0]
    return kind_of(config.tasks[task].kind).metrics if task in config.tasks else ()


def _weights_of_none(config: Config) -> list[str]:
    return [name for name in config.best_weights or () if name not in config.tasks]


def _weights(config: Config) -> list[float]:
    if config.best_weights is not None:
        return list(config.best_weights.values())
    return [task.weight for task in config.tasks.values()]


def _rations(task: TaskConfig) -> list[str]:
    return [name for name in ("batch_size", "max_records") if getattr(task, name) is not None]
