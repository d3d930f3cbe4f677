"""The configuration: one schema for the YAML file, the flags and the Python interface.

The text under each field is its documentation and the help of its flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from manyheads.errors import ConfigError, listing, nearest, shorten
from manyheads.metrics import METRICS
from manyheads.yaml_files import YamlDocument, parse_scalar, read_yaml

TaskKind = Literal["classification", "multilabel", "tagging", "similarity"]

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

BATCH_TOKENS = 512
"""Sub-tokens of a batch in prediction, padding included, unless the user says otherwise. On a
processor larger batches are slower."""

ALIASES = {"lr": "learning_rate", "epochs": "num_epochs", "checkpoint_dir": "save_dir"}
"""Other names of fields, for flags and files alike."""

INPUT_PATHS = ("train_file", "valid_file", "texts", "init_from")

# Where a task looks for its labels in a record when its `field` is not set.
DEFAULT_FIELDS: Mapping[str, tuple[str, ...]] = {
    "classification": ("label",),
    "multilabel": ("labels",),
    "tagging": ("ner", "entities"),
    "similarity": ("score",),
}


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def _interval(units: str) -> Callable[[object], int | str | None]:
    def read(value: object) -> int | str | None:
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        if isinstance(value, str) and re.fullmatch(rf"[1-9][0-9]{{0,9}}[{units}]", value):
            return value
        raise ValueError("not an interval")

    return read


Int = Annotated[int, BeforeValidator(_not_bool)]
Float = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


def _default(model: type[BaseModel], field: str) -> object:
    return model.model_fields[field].default


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class TaskConfig(_Strict):
    """One task: what its labels are, where they stand, and the head that learns them."""

    kind: TaskKind
    """What the head answers: one class a sentence (classification), any number of classes
    (multilabel), or a tag a token (tagging). `similarity` has no head: scored pairs of sentences
    train the sentence embedding itself."""
    field: str | None = None
    """The records' field that holds the labels. Default: `label` for classification, `labels`
    for multilabel, `ner` or `entities` for tagging, `score` for similarity."""
    labels: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The label names in order; for tagging, the tags or just the entity types. Default: those
    found in the training data, sorted."""
    num_labels: Int | None = Field(default=None, ge=2)
    """How many labels there are: an upper bound for names, the range of indices."""
    train_file: str | None = None
    """Training records of this task alone. Default: the common `train_file`."""
    valid_file: str | None = None
    """Validation records of this task alone. Default: the common `valid_file`."""
    weight: Float = Field(default=1.0, ge=0)
    """The factor on this task's loss."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Sentences a batch for this task. Default: the common `batch_size`."""
    ratio: Float | None = Field(default=None, gt=0)
    """With `schedule: ratios`, this task's share of the steps, in any unit. Default: 1."""
    max_records: Int | None = Field(default=None, ge=1)
    """Records of this task that an epoch sees at most; the next epoch goes on with others.
    Default: all."""
    decoder: Literal["linear", "crf"] = "linear"
    """Tagging: how tags are chosen, each by itself or as a sequence (conditional random field)."""
    neck: Literal["none", "bilstm", "transformer"] = "none"
    """Tagging: a small network of the head's own below its classifier."""
    neck_size: Int = Field(default=128, ge=1)
    """Units of the neck (for a BiLSTM, in each direction)."""
    neck_layers: Int = Field(default=1, ge=1, le=8)
    """Layers of the neck."""
    dropout: Float = Field(default=0.1, ge=0, lt=1)
    """Share of the head's inputs dropped in training."""
    reads: Literal["last", "mix"] = "last"
    """What the head reads: the encoder's last layer, or a learned mix of all its layers."""
    pooling: tuple[Literal["sentence", "cls", "mean", "max", "attention"], ...] = Field(
        default=("sentence",), min_length=1
    )
    """Sentence heads: the vectors joined to describe the sentence; `sentence` is the encoder's
    own embedding before normalisation."""
    hidden: Int | None = Field(default=None, ge=1)
    """Sentence heads: units of a hidden layer. Default: none."""
    label_smoothing: Float = Field(default=0.0, ge=0, lt=1)
    """Classification: the share of the target spread over all classes."""
    threshold: Float = Field(default=0.5, gt=0, lt=1)
    """Multilabel: the probability from which a label counts as predicted."""
    score_range: tuple[Float, Float] = (0.0, 1.0)
    """Similarity: the lowest and the highest score that a pair can have; for the STS benchmark
    [0, 5]."""
    frozen: bool = False
    """Whether the head, which has to come from `init_from`, stays as it is, to the bit. What is
    labelled for it still tunes the encoder, where that is tuned. Its dropout is off."""
    carried: bool = False
    """Said by a trained model of a task that it took over from its `init_from` as it was, because
    the configuration did not name it. Not for training: leave such a task out of `tasks`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record in which this task's labels may stand, in order of preference."""
        return (self.field,) if self.field else DEFAULT_FIELDS[self.kind]

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen: set[str] = set()
        for label in labels or ():
            if not label.strip() or label in seen:
                raise ValueError(
                    f"`labels` has {shorten(label)} {'twice' if label in seen else 'as an entry'}"
                )
            seen.add(label)
        return labels

    @model_validator(mode="after")
    def _labels_fit_their_number(self) -> TaskConfig:
        count = len(self.labels or ())
        if self.kind != "tagging" and self.num_labels is not None and count > self.num_labels:
            raise ValueError(f"there are {count} `labels`, but `num_labels` is {self.num_labels}")
        return self

    @model_validator(mode="after")
    def _score_range_ascends(self) -> TaskConfig:
        if not self.score_range[0] < self.score_range[1]:
            raise ValueError(
                f"`score_range` is {list(self.score_range)}, not a lower and a higher score"
            )
        return self

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> TaskConfig:
        headed = ("classification", "multilabel", "tagging")
        for options, kinds in (
            (("labels", "num_labels", "reads", "dropout", "frozen"), headed),
            (("score_range",), ("similarity",)),
            (("decoder", "neck", "neck_size", "neck_layers"), ("tagging",)),
            (("pooling", "hidden"), ("classification", "multilabel")),
            (("label_smoothing",), ("classification",)),
            (("threshold",), ("multilabel",)),
        ):
            for option in options:
                default = _default(type(self), option)
                if self.kind not in kinds and getattr(self, option) != default:
                    raise ValueError(f"`{option}` is for {' and '.join(kinds)} tasks only")
        for option in ("neck_size", "neck_layers"):
            if self.neck == "none" and getattr(self, option) != _default(type(self), option):
                raise ValueError(f"`{option}` needs a `neck`")
        return self


class KeepEmbeddings(_Strict):
    """How the sentence embedding of a tuned encoder is held near the one it began with."""

    weight: Float = Field(default=1.0, gt=0)
    """The factor on the loss that holds the embedding."""
    texts: str | None = None
    """Unlabelled sentences on which it is held too: plain lines (.txt), or records of any format
    whose labels are not looked at. Default: the training sentences alone."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Unlabelled sentences a step. Default: the common `batch_size`."""


class Lora(_Strict):
    """Low-rank adapters of the encoder, which learn in place of its weights."""

    rank: Int = Field(default=8, ge=1)
    """How many directions of its inputs each adapter reads, and so its size."""
    alpha: Float | None = Field(default=None, gt=0)
    """What an adapter adds is multiplied by `alpha` over `rank`. Default: twice the rank."""
    dropout: Float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs dropped in training."""
    targets: Literal["attention", "all"] = "attention"
    """Which layers have an adapter: those of query and value (where one layer makes query, key
    and value, as in ModernBERT, that one), or every linear layer of the encoder's layers."""


def _bare_number(key: str, value: object) -> object:
    """Read a bare number as one key of a nested field; nothing else need be said."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {key: value}
    if isinstance(value, str):
        parsed = parse_scalar(value)
        return value if isinstance(parsed, str) else _bare_number(key, parsed)
    return value


class Balancing(_Strict):
    """How the tasks' losses weigh against each other."""

    method: Literal["static", "uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad"] = "static"
    """Each task's `weight` alone (static); weights that are learned (uncertainty), that follow the
    losses (dwa) or the sizes of the encoder's gradients (gradnorm); or gradients of the encoder
    that are combined so that none works against another (pcgrad, cagrad)."""
    temperature: Float | None = Field(default=None, gt=0)
    """dwa: the larger, the more alike the weights are. Default: 2."""
    alpha: Float | None = Field(default=None, ge=0)
    """gradnorm: how strongly a task that learns slowly is helped; 0 makes all gradients the same
    size. Default: 1.5."""
    learning_rate: Float | None = Field(default=None, gt=0)
    """gradnorm: how fast the weights change. Default: 0.025."""
    c: Float | None = Field(default=None, ge=0, lt=1)
    """cagrad: how far the encoder's step may be from the tasks' mean, as a share of its length; 0
    is the mean itself. Default: 0.4."""

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> Balancing:
        for option, method in (
            ("temperature", "dwa"), ("alpha", "gradnorm"), ("learning_rate", "gradnorm"),
            ("c", "cagrad"),
        ):  # fmt: skip
            value = getattr(self, option)
            if value is not None and self.method != method:
                raise ValueError(
                    f"`{option}` is {value:g}, but `method` is {self.method!r}; it is for {method}"
                )
        return self


COMPARING = ("gradnorm", "pcgrad", "cagrad")
"""The methods that compare the tasks' gradients of the encoder within a step."""


def _balancing(value: object) -> object:
    """Read a bare name as the method."""
    if isinstance(value, str):
        parsed = parse_scalar(value)
        return parsed if isinstance(parsed, dict) else {"method": value}
    return value


NESTED: Mapping[str, type[_Strict]] = {
    "keep_embeddings": KeepEmbeddings, "lora": Lora, "balancing": Balancing,
}  # fmt: skip
"""Fields that are mappings of their own; each key of theirs is set by `FIELD.KEY` as well."""

_UNFOLD: Mapping[str, Callable[[object], object]] = {
    "keep_embeddings": partial(_bare_number, "weight"),
    "lora": partial(_bare_number, "rank"),
    "balancing": _balancing,
}


class Config(_Strict):
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
        KeepEmbeddings | None, BeforeValidator(_UNFOLD["keep_embeddings"])
    ] = None
    """Hold the sentence embedding near the one that training began with, so that vectors which
    were made before stay usable: a weight, or `weight`, `texts` and `batch_size`. Default: let it
    go where the tasks pull it."""
    lora: Annotated[Lora | None, BeforeValidator(_UNFOLD["lora"])] = None
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
    unfreeze_every: Annotated[int | str | None, PlainValidator(_interval("e"))] = None
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
    balancing: Annotated[Balancing, BeforeValidator(_balancing)] = Balancing()
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
    checkpoint_every: Annotated[int | str | None, PlainValidator(_interval("smh"))] = None
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
            standard = _standard_tasks(self.num_classes, self.num_ner_labels)
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
            if self.freeze in ("none", "embeddings") and value != _default(type(self), option):
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


def load_config(
    path: str | os.PathLike[str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read a configuration file and lay `overrides` over it.

    Args:
        path: a YAML file, or None for the defaults alone. Input paths in it are relative to it.
        overrides: values by field name, alias or dotted key (`tasks.ner.decoder`), hyphens and
            underscores alike. Text is read as YAML. Paths among them are relative to the working
            directory.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not allowed.
    """
    document = YamlDocument({}, {}, None) if path is None else read_yaml(Path(path))
    values = _canonical(document.values, document)
    if path is not None:
        _resolve_inputs(values, Path(path).parent)
    # Keys of one task come last: they refine the tasks that the other keys make.
    for key, value in sorted((overrides or {}).items(), key=lambda item: "." in item[0]):
        parts = _key_path(key)
        _set(values, parts, _parse(parts, value) if isinstance(value, str) else value)
        document = document.without(parts)
    return make_config(values, document)


def make_config(values: Mapping[str, Any], document: YamlDocument | None = None) -> Config:
    """Validate plain values.

    Raises:
        ConfigError: naming the key, its value, what is allowed and the nearest known key.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _config_error(error, document) from None


def _standard_tasks(num_classes: Any, num_ner_labels: Any) -> dict[str, Any]:
    """The tasks that the flat keys mean."""
    return {
        "classification": {"kind": "classification", "num_labels": num_classes},
        "ner": {"kind": "tagging", "num_labels": num_ner_labels},
    }


def _canonical(values: Mapping[str, Any], document: YamlDocument) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = _field_name(key)
        if name in result:
            raise ConfigError(
                f"`{key}` sets {name} a second time",
                where=document.where((key,)),
                fix="Keep one of the two.",
            )
        result[name] = value
    return result


def _field_name(key: str) -> str:
    name = key.replace("-", "_")
    return ALIASES.get(name, name)


def _resolve_inputs(values: dict[str, Any], folder: Path) -> None:
    """Make the input paths of a file, in place, relative to the file's folder."""
    holders = [values]
    if isinstance(values.get("tasks"), dict):
        values["tasks"] = {
            name: dict(task) if isinstance(task, dict) else task
            for name, task in values["tasks"].items()
        }
        holders += [task for task in values["tasks"].values() if isinstance(task, dict)]
    for name in NESTED:
        if isinstance(values.get(name), dict):
            values[name] = dict(values[name])
            holders.append(values[name])
    for holder in holders:
        for key in INPUT_PATHS:
            path = holder.get(key)
            if isinstance(path, str) and not path.startswith("datasets:"):
                holder[key] = _from(folder, path)
    model = values.get("model_name")
    if isinstance(model, str) and model.startswith(("./", "../", "~")):
        values["model_name"] = _from(folder, model)


def _from(folder: Path, path: str) -> str:
    # os.path leaves the name of an unknown user alone, where Path raises.
    return os.path.normpath(folder / os.path.expanduser(path))  # noqa: PTH111


def _key_path(key: str) -> tuple[str, ...]:
    """Split a dotted key. A task's name keeps its hyphens; the names of fields do not."""
    first, *rest = key.split(".")
    name = _field_name(first)
    if rest and not (name == "tasks" and len(rest) <= 2) and not (name in NESTED and len(rest) < 2):
        nested = " or ".join(f"{field}.FIELD" for field in ("tasks.NAME", *NESTED))
        raise ConfigError(f"there is no key `{key}`", expected=f"the name of a field, or {nested}")
    if len(rest) > 1 or name in NESTED:
        rest[-1:] = [part.replace("-", "_") for part in rest[-1:]]
    return (name, *rest)


def _parse(parts: tuple[str, ...], text: str) -> Any:
    """Read an override given as text: as YAML where the field holds a list or a mapping."""
    info = _holder(parts).model_fields.get(parts[-1])
    if info is None or "tuple" in str(info.annotation) or "dict" in str(info.annotation):
        return parse_scalar(text)
    # Kept as text, so that a folder may be called 2024; numbers are read by their fields.
    optional = type(None) in get_args(info.annotation)
    return None if optional and text in ("", "~", "null") else text


def _set(values: dict[str, Any], parts: tuple[str, ...], value: Any) -> None:
    if parts == ("tasks",) and not isinstance(value, dict):
        raise ConfigError(
            f"`tasks` is {shorten(value)}",
            expected="a mapping",
            fix="Set one field of one task: tasks.NAME.FIELD=VALUE.",
        )
    if len(parts) == 3 and not values.get("tasks"):
        values["tasks"] = _standard_tasks(
            values.pop("num_classes", None), values.pop("num_ner_labels", None)
        )
    holder = values
    for part in parts[:-1]:
        inner = holder.get(part)
        if part in NESTED:
            inner = _UNFOLD[part](inner)
        holder[part] = dict(inner) if isinstance(inner, dict) else {}
        holder = holder[part]
    holder[parts[-1]] = value


def _config_error(error: ValidationError, document: YamlDocument | None) -> ConfigError:
    """Turn pydantic's report into one message: the first problem whole, the others in short."""
    problems = error.errors(include_url=False, include_context=False)
    # A key that is misspelt explains what else is missing.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = _problem(problems[0], document)
    if len(problems) == 1:
        return first
    others = "; ".join(str(_problem(p, document)) for p in problems[1:6])
    more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
    return ConfigError(
        first.found,
        expected=first.expected,
        where=first.where,
        fix=f"{first.fix} Also: {others}{more}".strip(),
    )


def _problem(problem: Mapping[str, Any], document: YamlDocument | None) -> ConfigError:
    location: tuple[str | int, ...] = tuple(problem["loc"])
    key = ".".join(str(part) for part in location)
    where = document.where(location) if document else ""
    value = problem["input"]
    kind, message = problem["type"], problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _known_keys(location)
        return ConfigError(
            f"unknown key `{key}`{nearest(str(location[-1]), known)} with the value "
            f"{shorten(value, 40)}",
            where=where,
            expected=f"one of: {listing(known, 60)}",
        )
    if kind == "value_error" and (not location or location[-1] in ("tasks",) or "`" in message):
        prefix = f"`{key}`: " if key else ""
        return ConfigError(f"{prefix}{message}", where=where)
    if kind == "missing":
        return ConfigError(f"`{key}` is missing", where=where, expected=_allowed(location))
    return ConfigError(
        f"`{key}` is {shorten(value)}",
        where=where,
        expected=_allowed(location) or message.lower(),
        fix="Put it in quotes." if kind == "string_type" and _is_plain(value) else "",
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _holder(location: tuple[str | int, ...]) -> type[BaseModel]:
    """Return the mapping that a key's place is in."""
    if len(location) > 1 and location[0] in NESTED:
        return NESTED[str(location[0])]
    return TaskConfig if location[0] == "tasks" and len(location) > 2 else Config


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    model = _holder(location)
    return [*model.model_fields, *(ALIASES if model is Config else ())]


def _allowed(location: tuple[str | int, ...]) -> str:
    """Say in words what values a field takes."""
    if not location:
        return "a mapping of keys to values"
    holder = _holder(location)
    if location[0] == "tasks" and holder is Config:
        return "a mapping from a task's name to its settings"
    depth = {Config: 1, TaskConfig: 3}.get(holder, 2)
    name = str(location[depth - 1])
    info = holder.model_fields.get(name)
    if info is None:
        return ""
    if name == "checkpoint_every":
        return "a number of optimiser steps (200) or a time (30s, 5m, 1h)"
    if name == "device":
        return "auto, cpu, cuda, cuda:N or mps"
    if name == "unfreeze_every":
        return "a number of optimiser steps (200) or of epochs (1e)"
    if name == "freeze":
        return "one of: none, embeddings, layers:K (such as layers:3), encoder"
    if name == "best_weights":
        whole = len(location) == 1
        return "a mapping from a task's name to a number" if whole else "a number at least 0"
    if holder is Config and name in NESTED:
        method = NESTED[name].model_fields.get("method")
        short = _type_words(method.annotation, False) if method else "a number"
        return f"{short}; or a mapping with: {listing(NESTED[name].model_fields)}"
    words = _type_words(info.annotation, len(location) > depth)
    bounds = {type(m).__name__: m for m in info.metadata}
    limits = [
        f"{text} {getattr(bounds[kind], attribute)}"
        for kind, attribute, text in (
            ("Ge", "ge", "at least"),
            ("Gt", "gt", "above"),
            ("Le", "le", "at most"),
            ("Lt", "lt", "below"),
        )
        if kind in bounds
    ]
    return " ".join([words, " and ".join(limits)]).strip()


def _type_words(annotation: Any, inner: bool) -> str:
    choices = literals(annotation)
    if choices:
        return "one of: " + ", ".join(choices)
    if annotation is bool:
        return "true or false"
    text = str(annotation)
    if "tuple" in text:
        return "a name" if inner else "a list of names"
    if "float" in text:
        return "a number"
    if "int" in text:
        return "a whole number"
    return "a text"


def literals(annotation: Any) -> list[str]:
    """Return the choices that a field's type spells out, if it does."""
    if getattr(annotation, "__origin__", None) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [c for part in get_args(annotation) for c in literals(part)]
