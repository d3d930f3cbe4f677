"""Sections of the configuration with keys of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
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
    """Keys of keep_embeddings: how the sentence embedding is kept close to the original."""

    weight: Float = Field(default=1.0, gt=0)
    """The factor on the loss that keeps the embedding."""
    texts: Annotated[str | None, INPUT_FILE] = None
    """Unlabelled sentences to keep it on as well: plain lines (.txt), or records of any format,
    whose labels are ignored. Default: only the training sentences."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Unlabelled sentences in a step. Default: the common `batch_size`."""


class Teacher(Strict):
    """Keys of teacher: the trained models or soft labels that the heads learn from."""

    sources: Annotated[tuple[str, ...], replace(INPUT_FILE, allowed="a list of paths")] = Field(
        min_length=1
    )
    """Trained models, or JSON lines with soft labels. The target is the mean of several."""
    texts: Annotated[str | None, INPUT_FILE] = None
    """Unlabelled sentences to learn from as well: plain lines (.txt), or records of any format,
    whose labels are ignored. Default: those of all files with soft labels."""
    weight: Float = Field(default=1.0, gt=0)
    """The factor on the teacher's loss, in addition to each task's own weight."""
    temperature: Float = Field(default=2.0, gt=0)
    """Above 1, classes that the teacher considers unlikely count for more. It does not apply to tag
    sequences (`decoder: crf`)."""
    embedding: Float = Field(default=0.0, ge=0)
    """The factor on the distance between the sentence embeddings: by their cosine or, if those of
    teacher and student differ in length, by the cosines between the sentences of a batch."""
    batch_size: Int | None = Field(default=None, ge=1)
    """Unlabelled sentences in a step. Default: the common `batch_size`."""

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """The files of unlabelled sentences."""
        return (self.texts,) if self.texts else tuple(filter(is_soft_file, self.sources))


def is_soft_file(source: str) -> bool:
    """Return whether a teacher's path is a file of soft labels rather than a model."""
    return source.lower().endswith((".json", ".jsonl", ".jsonl.gz"))


class Lora(Strict):
    """Keys of lora: low-rank adapters, which are trained instead of the encoder's weights."""

    rank: Int = Field(default=8, ge=1)
    """The rank of each adapter, which determines its size."""
    alpha: Float | None = Field(default=None, gt=0)
    """An adapter's output is multiplied by `alpha` / `rank`. Default: twice the rank."""
    dropout: Float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs dropped in training."""
    targets: Literal["attention", "all"] = "attention"
    """The layers that get an adapter: those of query and value (or the one that computes query, key
    and value together, as in ModernBERT), or all linear layers of the encoder."""


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
    """Each task's `weight` only (static); weights that are learned (uncertainty), or follow the
    losses (dwa) or the norms of the encoder's gradients (gradnorm); or the encoder's gradients
    combined so that tasks conflict less (pcgrad, cagrad)."""
    temperature: Float | None = Field(default=None, gt=0)
    """dwa: the higher, the more similar the weights. Default: 2."""
    alpha: Float | None = Field(default=None, ge=0)
    """gradnorm: how strongly slowly learning tasks are favoured; 0 gives all gradients the same
    norm. Default: 1.5."""
    learning_rate: Float | None = Field(default=None, gt=0)
    """gradnorm: how fast the weights change. Default: 0.025."""
    c: Float | None = Field(default=None, ge=0, lt=1)
    """cagrad: how far the encoder's gradient may be from the tasks' mean, as a share of its norm; 0
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
    """Read a path, or a list of paths, as the sources."""
    if isinstance(value, str):
        parsed = parse_scalar(value)
        value = parsed if isinstance(parsed, list | dict) else [value]
    return {"sources": list(value)} if isinstance(value, list | tuple) else value


NESTED: Mapping[str, type[Strict]] = {
    "keep_embeddings": KeepEmbeddings, "teacher": Teacher, "lora": Lora, "balancing": Balancing,
}  # fmt: skip
"""Fields that are mappings; each of their keys can also be set as `FIELD.KEY`."""


UNFOLD: Mapping[str, Callable[[object], object]] = {
    "keep_embeddings": partial(_bare_number, "weight"),
    "teacher": unfold_teacher,
    "lora": partial(_bare_number, "rank"),
    "balancing": unfold_balancing,
}
