"""Settings of the optimiser's steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from manyheads.config.fields import EpochCount, Float, Int, Setting, Strict

_FIRST = Setting(first=True)


class Optimisation(Strict):
    """Optimisation: how long, in what steps and how fast the model learns."""

    num_epochs: Annotated[
        EpochCount, replace(_FIRST, resume="differ", allowed="auto, or a whole number from 1")
    ] = 3
    """The number of epochs; or `auto`: the fewer records, the more epochs. An epoch has every
    record of every task once, unless the schedule or `max_records` changes that. A resumed run may
    have more epochs than it was started with."""
    batch_size: Annotated[Int, _FIRST] = Field(default=16, ge=1)
    """Sentences in a batch."""
    tokens_per_batch: Int | None = Field(default=None, ge=1)
    """Sub-tokens in a batch, padding included, instead of `batch_size`: many short sentences or few
    long ones. A longer sentence is a batch by itself. Default: `batch_size` applies."""
    gradient_accumulation: Int = Field(default=1, ge=1)
    """Batches in one optimiser step."""
    learning_rate: Annotated[Float, _FIRST] = Field(default=5e-5, ge=0)
    """Peak learning rate of the encoder."""
    head_learning_rate: Float = Field(default=1e-3, ge=0)
    """Peak learning rate of the heads."""
    token_dropout: Float = Field(default=0.0, ge=0, lt=1)
    """Share of a sentence's sub-tokens that a step hides from the encoder behind its mask token (or
    the one for unknown words), so that labels are also learned from the context. The output of
    frozen layers is then not cached."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate changes after the warm-up."""
    warmup_ratio: Float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: Float = Field(default=0.01, ge=0)
    """Weight decay of AdamW; biases and normalisation layers have none."""
    max_grad_norm: Float = Field(default=1.0, ge=0)
    """Gradients with a larger norm are scaled down to this one; 0 turns clipping off."""
    on_nonfinite: Annotated[Literal["stop", "skip"], Setting(resume="differ")] = "stop"
    """What to do when a loss is not finite: stop the run, or skip the step and count it."""
    seed: Annotated[Int, _FIRST] = Field(default=42, ge=0, lt=2**63)
    """Seed of all random numbers."""
