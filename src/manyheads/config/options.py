"""Sections of the configuration with keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from manyheads.config.fields import INPUT_FILE, Float, Int, Strict
from manyheads.config.section_checks import BALANCING_CHECKS, accepted
from manyheads.config.yaml import parse_scalar


class KeepEmbeddings(Strict):
    """Keys of keep_embeddings: how the sentence embedding is held near the one it began with."""

    weight: Float = Field(default=1.0, gt=0)
    """The factor on the loss that holds the embedding."""
    texts: Annotated[str | None, INPUT_FILE] = None
    """Unlabelled sentences on which it is held too: plain lines (.txt), or records of any format
    whose labels are ignored. Default: the training sentences alone."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Unlabelled sentences in a step. Default: the common `batch_size`."""


class Teacher(Strict):
    """Keys of teacher: trained models, or soft labels, from which the heads learn."""

    sources: Annotated[tuple[str, ...], INPUT_FILE] = Field(min_length=1)
    """The models whose answers are learned, or JSON lines with soft labels. The mean of several is
    the target."""
    texts: Annotated[str | None, INPUT_FILE] = None
    """Unlabelled sentences on which the heads learn too: plain lines (.txt), or records of any
    format whose labels are ignored. Default: those of a file with soft labels."""
    weight: Float = Field(default=1.0, gt=0)
    """The factor on the loss, where a task's own weight is the factor on its labels' loss."""
    temperature: Float = Field(default=2.0, gt=0)
    """Above 1, the classes that the teacher considers unlikely count for more. Sequences of tags
    (`decoder: crf`) are compared without it."""
    embedding: Float = Field(default=0.0, ge=0)
    """The factor on the distance of the sentence embeddings, by their cosine, or where teacher and
    student have vectors of different lengths by the cosines between the sentences of a batch."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Unlabelled sentences in a step. Default: the common `batch_size`."""

    @property
    def unlabelled(self) -> str | None:
        """The file of unlabelled sentences, if there is one."""
        return self.texts or next(filter(is_soft_file, self.sources), None)


def is_soft_file(source: str) -> bool:
    """Return whether a teacher's path is a file with soft labels rather than a model."""
    return source.lower().endswith((".json", ".jsonl", ".jsonl.gz"))


class Lora(Strict):
    """Keys of lora: low-rank adapters of the encoder, which learn in place of its weights."""

    rank: Int = Field(default=8, ge=1)
    """The rank of each adapter, and so its size."""
    alpha: Float | None = Field(default=None, gt=0)
    """An adapter's output is multiplied by `alpha` over `rank`. Default: twice the rank."""
    dropout: Float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs dropped in training."""
    targets: Literal["attention", "all"] = "attention"
    """Which layers have an adapter: those of query and value (or the one that computes query, key
    and value together, as in ModernBERT), or all linear layers of the encoder's layers."""


def _bare_number(key: str, value: object) -> object:
    """Read a bare number as one key of a nested field, so that the others can be left out."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {key: value}
    if isinstance(value, str):
        parsed = parse_scalar(value)
        return value if isinstance(parsed, str) else _bare_number(key, parsed)
    return value


class Balancing(Strict):
    """Keys of balancing: how the tasks' losses are weighted against each other."""

    method: Literal["static", "uncertainty", "dwa", "gradnorm", "pcgrad", "cagrad"] = "static"
    """Each task's `weight` alone (static); weights that are learned (uncertainty), that follow the
    losses (dwa) or the sizes of the encoder's gradients (gradnorm); or gradients of the encoder
    that are combined so that none works against another (pcgrad, cagrad)."""
    temperature: Float | None = Field(default=None, gt=0)
    """dwa: the larger, the more similar the weights. Default: 2."""
    alpha: Float | None = Field(default=None, ge=0)
    """gradnorm: how strongly a task that learns slowly is helped; 0 makes all gradients the same
    size. Default: 1.5."""
    learning_rate: Float | None = Field(default=None, gt=0)
    """gradnorm: how fast the weights change. Default: 0.025."""
    c: Float | None = Field(default=None, ge=0, lt=1)
    """cagrad: how far the encoder's step may be from the tasks' mean, as a share of its length; 0
    is the mean itself. Default: 0.4."""

    @property
    def compares_gradients(self) -> bool:
        """Whether the method compares the tasks' gradients of the encoder within a step."""
        return self.method in ("gradnorm", "pcgrad", "cagrad")

    @model_validator(mode="after")
    def _settings_go_together(self) -> Balancing:
        return accepted(self, BALANCING_CHECKS)


def unfold_balancing(value: object) -> object:
    """Read a bare name as the method."""
    if isinstance(value, str):
        parsed = parse_scalar(value)
        return parsed if isinstance(parsed, dict) else {"method": value}
    return value


def unfold_teacher(value: object) -> object:
    """Read a path, or several, as the sources."""
    if isinstance(value, str):
        parsed = parse_scalar(value)
        value = parsed if isinstance(parsed, list | dict) else [value]
    return {"sources": list(value)} if isinstance(value, list | tuple) else value


NESTED: Mapping[str, type[Strict]] = {
    "keep_embeddings": KeepEmbeddings, "teacher": Teacher, "lora": Lora, "balancing": Balancing,
}  # fmt: skip
"""Fields that are mappings of their own; each key of theirs is set by `FIELD.KEY` as well."""


UNFOLD: Mapping[str, Callable[[object], object]] = {
    "keep_embeddings": partial(_bare_number, "weight"),
    "teacher": unfold_teacher,
    "lora": partial(_bare_number, "rank"),
    "balancing": unfold_balancing,
}
