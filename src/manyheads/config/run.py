"""The configuration: one schema for the YAML file, the flags and the Python interface.

The text under each field is its documentation and the help of its flag.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    field_validator,
    model_validator,
)

from manyheads.config.fields import Float, Int, Strict, default_of, interval
from manyheads.config.options import (
    COMPARING,
    UNFOLD,
    Balancing,
    KeepEmbeddings,
    Lora,
    unfold_balancing,
)
from manyheads.config.task import TaskConfig
from manyheads.errors import ConfigError, listing, nearest, shorten
from manyheads.tasks.metrics import METRICS

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

BATCH_TOKENS = 512
"""Sub-tokens of a batch in prediction, padding included, unless the user says otherwise. On a
processor larger batches are slower."""

ALIASES = {"lr": "learning_rate", "epochs": "num_epochs", "checkpoint_dir": "save_dir"}
"""Other names of fields, for flags and files alike."""


class Config(Strict):
    """A whole training run."""

    model_name: str = Field(default=DEFAULT_MODEL, min_length=1)
    """The encoder: a name on the hub or a folder."""
    init_from: str | None = Field(default=None, min_length=1)
    """A trained model to start from: its encoder, and the heads of its tasks. Those that `tasks`
    names go on learning; the others are carried along as they are, without data. `model_name` and
    `max_length` are then the model's. Default: start from `model_name` with new heads."""
    max_length: Int = Field(default=128, ge=4)
    """Sub-tokens of a sentence that training reads; prediction reads longer ones in windows.
    Default: 128, or those of the model in `init_from`."""
    pooling: Literal["auto", "mean", "cls", "max"] = "auto"
    """How token vectors make the sentence embedding; `auto` is what the encoder's folder says."""
    batch_size: Int = Field(default=16, ge=1)
    """Sentences a batch."""
    tokens_per_batch: Int | None = Field(default=None, ge=1)
    """Sub-tokens a batch, padding included, in place of `batch_size`: many short sentences or few
    long ones. A sentence that is longer makes a batch of its own."""
    learning_rate: Float = Field(default=5e-5, ge=0)
    """Peak learning rate of the encoder."""
    head_learning_rate: Float = Field(default=1e-3, ge=0)
    """Peak learning rate of the heads."""
    weight_decay: Float = Field(default=0.01, ge=0)
    """AdamW's weight decay; biases and normalisation layers have none."""
    warmup_ratio: Float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises from zero."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after the warm-up."""
    max_grad_norm: Float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    gradient_accumulation: Int = Field(default=1, ge=1)
    """Batches that make one optimiser step."""
    num_epochs: Int = Field(default=3, ge=1)
    """How many epochs there are: in each, every record of every task is seen once, unless the
    schedule or `max_records` says otherwise."""
    num_classes: Int | None = Field(default=None, ge=2)
    """Without `tasks`: number of sentence classes."""
    num_ner_labels: Int | None = Field(default=None, ge=2)
    """Without `tasks`: number of tags, `O` included."""
    train_file: str | None = None
    """Training records: a file, a folder of seq.in/seq.out/label, or `datasets:NAME`."""
    valid_file: str | None = None
    """Validation records, by which the best model is chosen."""
    save_dir: str = Field(default="saved_model", min_length=1)
    """Where checkpoints and the best model go."""
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)
    """The tasks by name. Default: `classification` and `ner`."""
    keep_embeddings: Annotated[
        KeepEmbeddings | None, BeforeValidator(UNFOLD["keep_embeddings"])
    ] = None
    """Hold the sentence embedding near the one that training began with, so that vectors which
    were made before stay usable: a weight, or `weight`, `texts` and `batch_size`. Default: let it
    go where the tasks pull it."""
    lora: Annotated[Lora | None, BeforeValidator(UNFOLD["lora"])] = None
    """Train small adapters in place of the encoder's weights, and add them to the weights where
    the model is saved: a rank, or `rank`, `alpha`, `dropout` and `targets`. They want a larger
    `learning_rate` than weights do, such as 5e-4. Default: train the weights."""
    freeze: str = Field(default="none", pattern=r"^(none|embeddings|layers:[1-9]\d{0,3}|encoder)$")
    """What of the encoder training leaves as it is: nothing (none), its embedding layer
    (embeddings), the lower K layers too (layers:K), or all of it (encoder)."""
    head_layers: Int | None = Field(default=None, ge=1)
    """How many of the encoder's upper layers the heads have a copy of that learns with them, while
    the encoder's own serve the sentence embedding, which stays as it is (`freeze: encoder`) or is
    held there (`keep_embeddings`). Default: none; the heads read the encoder's own."""
    unfreeze_every: Annotated[int | str | None, PlainValidator(interval("e"))] = None
    """Of what is frozen, train a layer more, from the top down and the embedding layer last, every
    so many optimiser steps (200) or epochs (1e). Default: what is frozen stays so."""
    layer_decay: Float = Field(default=1.0, gt=0, le=1)
    """The factor on the learning rate from each layer of the encoder to the one below it; the
    embedding layer has the lowest."""
    cache_activations: Literal["auto", "off"] = "auto"
    """Whether what the frozen layers of the encoder give is computed once a sentence and kept, so
    that later epochs cost what is trained alone (auto), or computed anew each time (off)."""
    cache_memory: Int = Field(default=1024, ge=0)
    """Megabytes of kept activations that stay in memory; what is beyond is mapped from a temporary
    file."""
    schedule: Literal[
        "alternate", "proportional", "temperature", "annealed", "ratios", "joint", "together"
    ] = "alternate"
    """Which task next. A step of each in turn (alternate); steps in proportion to the tasks' sizes
    (proportional), to a power of them (temperature), to a power that falls over the run
    (annealed), or as the tasks' `ratio` says (ratios); all tasks of a batch of records at once
    (joint); records of every task in each step, the smaller tasks in smaller batches (together)."""
    schedule_alpha: Float | None = Field(default=None, ge=0, le=1)
    """The power of the tasks' sizes: 1 is proportional, 0 is as many steps for each. For
    temperature (default 0.5); for annealed, at the end of the run (default 0)."""
    balancing: Annotated[Balancing, BeforeValidator(unfold_balancing)] = Balancing()
    """How the tasks' losses weigh: static (each task's `weight`), uncertainty, dwa, gradnorm,
    pcgrad or cagrad; or a mapping with `method` and its options. Default: static."""
    best_metric: str = "mean"
    """What chooses the best model: the `mean` of the tasks' main metrics, their `weighted` mean, a
    task's name, or `TASK.METRIC`."""
    best_weights: dict[str, Annotated[Float, Field(ge=0)]] | None = None
    """For `best_metric: weighted`: tasks with their weights ({intent: 1, ner: 3}); a task that is
    left out does not count. Default: each task's `weight`."""
    keep_best_per_task: bool = False
    """Whether the model that is best for each task is kept beside `best`, as `best-TASK`."""
    early_stopping: Int | None = Field(default=None, ge=1)
    """Stop after this many epochs without a better model. Default: never."""
    keep_checkpoints: Int | None = Field(default=None, ge=1)
    """How many epoch checkpoints are kept. Default: all."""
    checkpoint_every: Annotated[int | str | None, PlainValidator(interval("smh"))] = None
    """Also save inside epochs: every so many optimiser steps (200), or so much time (5m)."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss that is not finite does: stop the run, or skip the step and count it."""
    seed: Int = Field(default=42, ge=0, lt=2**63)
    """Where every random number comes from."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the encoder; `auto` measures which is faster here."""
    threads: Int | None = Field(default=None, ge=1)
    """Processor threads. Default: all cores there are."""
    log_every: Int = Field(default=10, ge=1)
    """Optimiser steps between lines of metrics.jsonl."""
    tensorboard: bool = False
    """Whether the values in metrics.jsonl are written for TensorBoard too, to `tensorboard` in
    `save_dir`; needs `pip install "manyheads[tensorboard]"`."""
    log_gradients: Int | None = Field(default=None, ge=1)
    """Every so many steps, also measure the tasks' gradients of the encoder, each in a backward
    pass of its own: their lengths and cosines are in metrics.jsonl. Default: only where `balancing`
    needs them, and then at every step."""

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, tasks: dict[str, TaskConfig]) -> dict[str, TaskConfig]:
        for name in tasks:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(
                    f"the task name {shorten(name)} must begin with a letter and have at most 64 "
                    "letters, digits, '_' or '-'"
                )
            if name in ("embedding", "empty", "mean", "text", "weighted", "windows"):
                raise ValueError(f"the task name {name!r} is taken: it has a meaning of its own")
        return tasks

    @model_validator(mode="after")
    def _default_tasks(self) -> Config:
        if not self.tasks:
            standard = standard_tasks(self.num_classes, self.num_ner_labels)
            tasks = {name: TaskConfig(**task) for name, task in standard.items()}
            object.__setattr__(self, "tasks", tasks)
            return self
        for task, key in (("classification", "num_classes"), ("ner", "num_ner_labels")):
            number = getattr(self, key)
            if number is not None and (
                task not in self.tasks or self.tasks[task].num_labels != number
            ):
                raise ValueError(
                    "`num_classes` and `num_ner_labels` are for configurations without `tasks`; "
                    "set `tasks.NAME.num_labels`"
                )
        return self

    @model_validator(mode="after")
    def _what_is_frozen_is_not_tuned(self) -> Config:
        if self.freeze == "none" and self.unfreeze_every is not None:
            raise ValueError(
                f"`unfreeze_every` is {self.unfreeze_every}, but nothing is frozen; set "
                "`freeze: encoder` or `freeze: layers:K`, or leave it out"
            )
        whole = self.freeze == "encoder" and self.unfreeze_every is None
        if self.idle_layers is not None:
            raise ValueError(self.idle_layers)
        if self.head_layers is not None and self.lora is not None:
            raise ValueError(
                "`head_layers` and `lora` are both set, and adapters would be copied with the "
                "layers; leave one of them out"
            )
        if self.lora is not None and self.unfreeze_every is not None:
            raise ValueError(
                "`lora` and `unfreeze_every` are both set, but adapters begin as no change at all, "
                "and frozen layers have none to be given free; leave one of them out"
            )
        if not whole:
            return self
        if self.layer_decay != 1:
            raise ValueError(
                f"`layer_decay` is {self.layer_decay:g}, but with `freeze: encoder` no layer is "
                "trained; leave it out, or set `unfreeze_every`"
            )
        if self.lora is not None:
            raise ValueError(
                "`lora` is set, but with `freeze: encoder` nothing in the encoder learns; leave "
                "one of them out, or freeze less: adapters leave its weights alone anyway"
            )
        if self.keep_embeddings is not None:
            raise ValueError(
                "`keep_embeddings` is set, but with `freeze: encoder` the embedding stays what it "
                "is, to the bit; leave one of them out"
            )
        for name in self._pairs:
            raise ValueError(
                f"`tasks.{name}` trains the sentence embedding, which `freeze: encoder` holds as "
                "it is; leave the task out, or freeze less"
            )
        return self

    @property
    def _pairs(self) -> list[str]:
        """The tasks that train the sentence embedding itself."""
        return [n for n, t in self.tasks.items() if t.kind == "similarity" and not t.carried]

    @property
    def idle_layers(self) -> str | None:
        """What is wrong where layers of the heads' own leave the encoder's with nothing to do."""
        whole = self.freeze == "encoder" and self.unfreeze_every is None
        if not self.head_layers or whole or self.keep_embeddings or self._pairs:
            return None
        return (
            f"`head_layers` is {self.head_layers}, but the encoder's own upper layers, which only "
            "the embedding needs then, would not learn what the lower ones become; set `freeze: "
            "encoder` or `keep_embeddings`, or leave it out"
        )

    @model_validator(mode="after")
    def _frozen_heads_are_trained_ones(self) -> Config:
        frozen = [name for name, task in self.tasks.items() if task.frozen]
        if frozen and self.init_from is None:
            raise ValueError(
                f"`tasks.{frozen[0]}.frozen` is true, but a new head has learned nothing yet; set "
                "`init_from` to a model that has the task, or train it"
            )
        if frozen and all(task.frozen or task.carried for task in self.tasks.values()):
            self._something_is_trained(frozen)
        return self

    def _something_is_trained(self, frozen: list[str]) -> None:
        """See to it that the encoder is trained where no head is."""
        if self.freeze == "encoder" and self.unfreeze_every is None:
            raise ValueError(
                f"nothing is trained: with `freeze: encoder` the encoder is frozen, and the heads "
                f"of all tasks are, too ({listing(frozen)}); freeze less"
            )

    @property
    def idle_tasks(self) -> frozenset[str]:
        """The tasks whose records train nothing: their heads and the encoder are frozen.

        They are validated all the same.
        """
        if self.freeze != "encoder" or self.unfreeze_every is not None:
            return frozenset()
        return frozenset(name for name, task in self.tasks.items() if task.frozen)

    @model_validator(mode="after")
    def _only_what_is_frozen_is_cached(self) -> Config:
        for option in ("cache_activations", "cache_memory"):
            value = getattr(self, option)
            if self.freeze in ("none", "embeddings") and value != default_of(type(self), option):
                raise ValueError(
                    f"`{option}` is {value!r}, but `freeze` is {self.freeze!r}, with which no "
                    "activations are kept; freeze layers:K or encoder, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _schedule_uses_its_settings(self) -> Config:
        powers = ("temperature", "annealed")
        if self.schedule_alpha is not None and self.schedule not in powers:
            raise ValueError(
                f"`schedule_alpha` is {self.schedule_alpha:g}, but `schedule` is "
                f"{self.schedule!r}; it is for {' and '.join(powers)}"
            )
        for name, task in self.tasks.items():
            if task.ratio is not None and self.schedule != "ratios":
                raise ValueError(
                    f"`tasks.{name}.ratio` is {task.ratio:g}, but `schedule` is "
                    f"{self.schedule!r}; set `schedule: ratios`, or leave it out"
                )
            for option in ("batch_size", "max_records"):
                value = getattr(task, option)
                if value is not None and self.schedule == "joint":
                    raise ValueError(
                        f"`tasks.{name}.{option}` is {value}, but with `schedule: joint` all "
                        "tasks of a file learn from the same batches; leave it out, or choose "
                        "another schedule"
                    )
        if self.schedule == "ratios" and all(t.ratio is None for t in self.tasks.values()):
            raise ValueError(
                "`schedule` is 'ratios', but no task has a `ratio`; set `tasks.NAME.ratio`"
            )
        return self

    @model_validator(mode="after")
    def _balancing_has_several_tasks(self) -> Config:
        method = self.balancing.method
        if method != "static" and len(self.tasks) < 2:
            raise ValueError(
                f"`balancing` is {method!r}, but there is one task, {listing(self.tasks)}; leave "
                "it out"
            )
        if method in COMPARING:
            self._steps_have_several_tasks(f"`balancing` is {method!r}")
            self._encoder_is_shared(f"`balancing` is {method!r}")
        return self

    @model_validator(mode="after")
    def _gradients_can_be_logged(self) -> Config:
        if self.log_gradients is None:
            return self
        setting = f"`log_gradients` is {self.log_gradients}"
        if self.balancing.method in COMPARING:
            raise ValueError(
                f"{setting}, but `balancing` is {self.balancing.method!r}, which measures the "
                "gradients at every step, and so they are logged; leave `log_gradients` out"
            )
        if len(self.tasks) < 2:
            raise ValueError(
                f"{setting}, but there is one task, {listing(self.tasks)}; leave it out"
            )
        self._steps_have_several_tasks(setting)
        self._encoder_is_shared(setting)
        return self

    def _encoder_is_shared(self, setting: str) -> None:
        """See to it that the tasks train something in common, whose gradients are compared."""
        if self.freeze == "encoder" and self.unfreeze_every is None:
            raise ValueError(
                f"{setting}, which compares the tasks' gradients of the encoder, but with `freeze: "
                "encoder` there are none; freeze less, or leave it out"
            )

    def _steps_have_several_tasks(self, setting: str) -> None:
        """See to it that each optimiser step has several tasks, whose gradients are compared."""
        if self.schedule not in ("together", "joint"):
            raise ValueError(
                f"{setting}, which compares the tasks' gradients within a step, but `schedule` is "
                f"{self.schedule!r}, whose steps have one task each; set `schedule: together`, or "
                "`joint` where the records have the labels of several tasks"
            )
        files: dict[str | None, list[str]] = {}
        for name, task in self.tasks.items():
            if not task.carried:
                files.setdefault(task.train_file or self.train_file, []).append(name)
        for path, names in files.items():
            if self.schedule == "joint" and len(names) < 2:
                raise ValueError(
                    f"{setting}, which compares the tasks' gradients within a step, but with "
                    f"`schedule: joint` the steps of {path} have one task, {names[0]!r}; set "
                    "`schedule: together`"
                )

    @model_validator(mode="after")
    def _best_metric_names_a_task(self) -> Config:
        task = self.best_metric.split(".", 1)[0]
        if task not in ("mean", "weighted", *self.tasks):
            raise ValueError(
                f"`best_metric` is {self.best_metric!r}, but there is no task {task!r}"
                f"{nearest(task, self.tasks)}; use mean, weighted, a task or TASK.METRIC, where "
                f"the tasks are {listing(self.tasks)}"
            )
        metric = self.best_metric.partition(".")[2]
        known = METRICS[self.tasks[task].kind] if task in self.tasks else ()
        if metric and metric not in known:
            raise ValueError(
                f"`best_metric` is {self.best_metric!r}, but {task!r} has no metric {metric!r}"
                f"{nearest(metric, known)}; it has {listing(known) or 'none: it is one already'}"
            )
        return self

    @model_validator(mode="after")
    def _batches_have_one_measure(self) -> Config:
        if self.tokens_per_batch is not None and self.schedule == "together":
            raise ValueError(
                "`tokens_per_batch` does not go with `schedule: together`, whose batches are as "
                "large as the steps of the largest task allow; use `batch_size`"
            )
        for name, task in self.tasks.items():
            if self.tokens_per_batch is not None and task.max_records is not None:
                raise ValueError(
                    f"`tokens_per_batch` does not go with `tasks.{name}.max_records`, which is "
                    f"{task.max_records}; use `batch_size`"
                )
            if self.tokens_per_batch is not None and task.batch_size is not None:
                raise ValueError(
                    f"`tokens_per_batch` is {self.tokens_per_batch} and `tasks.{name}.batch_size` "
                    f"is {task.batch_size}: batches have a budget of sub-tokens or a number of "
                    "sentences; leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _best_weights_are_of_the_tasks(self) -> Config:
        weighted = self.best_metric == "weighted"
        weights = self.best_weights
        if weights is not None and not weighted:
            raise ValueError(
                f"`best_weights` is set, but `best_metric` is {self.best_metric!r}; set "
                "`best_metric: weighted`, or leave it out"
            )
        for name in weights or ():
            if name not in self.tasks:
                raise ValueError(
                    f"`best_weights` has {name!r}, but there is no such task"
                    f"{nearest(name, self.tasks)}; the tasks are {listing(self.tasks)}"
                )
        if weights is None:
            weights = {name: task.weight for name, task in self.tasks.items()}
        if weighted and not any(weights.values()):
            raise ValueError(
                "`best_metric` is 'weighted', but no task has a weight above 0; set "
                "`best_weights`, such as {intent: 1, ner: 3}"
            )
        return self

    def train_files(self) -> dict[str, tuple[str, ...]]:
        """Return the training files, each with the tasks that learn from it."""
        return self._files("train_file")

    def valid_files(self) -> dict[str, tuple[str, ...]]:
        """Return the validation files, each with the tasks it validates.

        A task that was carried along has those of the model that it comes from.
        """
        return self._files("valid_file")

    def _files(self, key: str) -> dict[str, tuple[str, ...]]:
        files: dict[str, tuple[str, ...]] = {}
        for name, task in self.tasks.items():
            path = getattr(task, key) or (None if task.carried else getattr(self, key))
            if path is None and task.carried:
                continue
            if path is None:
                raise ConfigError(
                    f"task {name!r} has no {key.replace('_', ' ')}",
                    fix=f"Set `{key}` or `tasks.{name}.{key}`.",
                )
            files[path] = (*files.get(path, ()), name)
        return files


def standard_tasks(num_classes: Any, num_ner_labels: Any) -> dict[str, Any]:
    """The tasks that the flat keys mean."""
    return {
        "classification": {"kind": "classification", "num_labels": num_classes},
        "ner": {"kind": "tagging", "num_labels": num_ner_labels},
    }
