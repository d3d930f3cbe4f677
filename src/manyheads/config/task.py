"""One task's section of the configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from manyheads.config.fields import (
    INPUT_FILE,
    RENAMING,
    Float,
    Int,
    Setting,
    Strict,
    WarmStart,
    pairs,
)
from manyheads.config.section_checks import TASK_CHECKS, accepted
from manyheads.errors import shorten
from manyheads.tasks import find_kind, kind_of
from manyheads.tasks.label_values import usual_form

OWN = Setting(warm_start="own")
READING = Setting(warm_start="own", resume="differ")
"""How records are read: a resumed run compares the result, by checksum."""
LAYOUT = replace(READING, layout=True)
KEPT = Setting(warm_start="inherited")
TRAINING = Setting(warm_start="training")
SHARE = Setting(warm_start="training", compare="several")
TRAIN_FILE = replace(INPUT_FILE, warm_start="training")
VALID_FILE = replace(INPUT_FILE, warm_start="own")


class TaskConfig(Strict):
    """Keys of a task: its labels, their field in the records, and its head.

    With `init_from`, an option has the trained head's value and another value is refused, unless
    the option declares otherwise.
    """

    warm_start: ClassVar[WarmStart] = "fixed"

    kind: str
    """What the head predicts: one class per sentence (classification), any number of classes
    (multilabel), a tag per token (tagging), a number per sentence (regression), or one class for
    two texts (pair). `similarity` has no head: scored pairs of sentences train the sentence
    embedding itself. Or the name of your own kind."""
    field: Annotated[str | None, OWN] = None
    """The records' field that holds the labels. Default: `label` for classification and pair,
    `labels` for multilabel, `ner` or `entities` for tagging, `value` for regression, `score` for
    similarity. The second text of a pair is `text2`."""
    labels: Annotated[tuple[str, ...] | None, OWN] = Field(default=None, min_length=1)
    """The label names in order; for tagging, the tags or only the entity types. Default: those
    found in the training data, sorted."""
    num_labels: Annotated[Int | None, OWN] = Field(default=None, ge=2)
    """The number of labels: an upper bound for names, the range of indices. Default: found in the
    training data."""
    train_file: Annotated[str | None, TRAIN_FILE] = None
    """Training records for this task only. Default: the common `train_file`."""
    valid_file: Annotated[str | None, VALID_FILE] = None
    """Validation records for this task only. Default: the common `valid_file`, or a part of the
    task's training records that is held out."""
    format: Annotated[str | None, LAYOUT] = None
    """The format of this task's own files. Default: the common `format`."""
    map: Annotated[
        dict[str, str] | None, BeforeValidator(pairs), replace(LAYOUT, allowed=RENAMING)
    ] = None
    """The fields or columns of this task's own files, each with the field that it is read as
    ({sentence: text, topic: label}). Default: the common `map` and fields."""
    label_separator: Annotated[str | None, LAYOUT] = Field(default=None, min_length=1)
    """The separator of several labels in one cell of this task's own files. Default: the common
    `label_separator`."""
    role_separator: Annotated[str | None, LAYOUT] = Field(default=None, min_length=1)
    """What joins an entity's type with its role and group in this task's own files. Default: the
    common `role_separator`."""
    weight: Annotated[Float, SHARE] = Field(default=1.0, ge=0)
    """The factor on this task's loss."""
    batch_size: Annotated[Int | None, TRAINING] = Field(default=None, ge=1)
    """Sentences in a batch of this task. Default: the common `batch_size`."""
    ratio: Annotated[Float | None, SHARE] = Field(default=None, gt=0)
    """With `schedule: ratios`, this task's share of the steps, in any unit. Default: 1."""
    max_records: Annotated[Int | None, TRAINING] = Field(default=None, ge=1)
    """The most records of this task in an epoch; the next epoch continues with others.
    Default: all."""
    scheme: Annotated[Literal["auto", "io", "plain"], READING] = "auto"
    """Tagging: how tags without a prefix are read. As entity types, adjacent words of one type as
    one entity (io); as a class for every word, such as parts of speech (plain); or by their form,
    where only `O` beside names without a prefix is ambiguous (auto)."""
    decoder: Literal["linear", "crf"] = "linear"
    """Tagging: how tags are chosen: each by itself, or as a sequence (conditional random field)."""
    neck: Literal["none", "bilstm", "transformer"] = "none"
    """Tagging: a small network between the encoder and the head's classifier."""
    neck_size: Int = Field(default=128, ge=1)
    """Tagging: units of the neck (for a BiLSTM, in each direction)."""
    neck_layers: Int = Field(default=1, ge=1, le=8)
    """Tagging: layers of the neck."""
    word_features: Literal["auto", "on", "off"] = "auto"
    """Tagging: whether the head also reads the shape of words in the original text, such as
    capitals and digits: always (on), never (off), or if the encoder lower-cases, and so sees no
    capitals (auto)."""
    dropout: Annotated[Float, OWN] = Field(default=0.1, ge=0, lt=1)
    """Share of the head's inputs dropped in training."""
    reads: Literal["last", "mix"] = "last"
    """What the head reads: the encoder's last layer, or a learned mix of all its layers."""
    pooling: tuple[
        Literal["sentence", "embedding", "cls", "mean", "max", "attention", "middle"], ...
    ] = Field(default=("sentence",), min_length=1)
    """Sentence heads: the vectors that are concatenated as the head's input; `sentence` is the
    encoder's own embedding before normalisation, `embedding` the same scaled to length 1, `middle`
    the mean over the tokens of its middle layer, scaled to length 1."""
    hidden: Int | None = Field(default=None, ge=1)
    """Sentence heads: units of a hidden layer. Default: none."""
    label_smoothing: Annotated[Float, OWN] = Field(default=0.0, ge=0, lt=1)
    """Classification: the share of the target that is spread over all classes."""
    start: Annotated[Literal["random", "fitted"], TRAINING] = "random"
    """Classification: how the head is initialised. With small random weights; or by logistic
    regression on the encoder's vectors of the training data (fitted), with the classes' names as
    further sentences if they are words, which is better with few records per class."""
    threshold: Annotated[Float, KEPT] = Field(default=0.5, gt=0, lt=1)
    """Multilabel: the lowest probability at which a label is predicted."""
    score_range: Annotated[
        tuple[Float, Float],
        replace(KEPT, allowed="a list of two numbers, the lower one first"),
    ] = (0.0, 1.0)
    """Similarity: the lowest and the highest possible score of a pair; for the STS benchmark,
    [0, 5]. Tasks that are found in data files get a range that contains their scores."""
    frozen: Annotated[bool, TRAINING] = False
    """Whether the head, which must come from `init_from`, is left unchanged. Its records still
    train the encoder unless that is frozen. Its dropout is off."""
    carried: Annotated[bool, replace(OWN, internal=True)] = False
    """Internal: this task was inherited unchanged from `init_from`. Do not set it; leave such a
    task out of `tasks`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that may hold this task's labels, in order of preference."""
        return (self.field,) if self.field else kind_of(self.kind).fields

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if find_kind(kind) is None:
            raise ValueError("not a kind of task")
        return kind

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        seen: dict[str, None] = {}
        for label in labels or ():
            name = usual_form(label)
            if not name or name in seen:
                raise ValueError(
                    f"`labels` has {shorten(label)} {'twice' if name in seen else 'as an entry'}"
                )
            seen[name] = None
        return None if labels is None else tuple(seen)

    @model_validator(mode="after")
    def _settings_go_together(self) -> TaskConfig:
        return accepted(self, TASK_CHECKS)
