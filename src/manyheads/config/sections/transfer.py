"""Settings of what is taken over from a pretrained or trained model, and what stays as it was."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from manyheads.config.fields import FREE, Float, Int, Setting, Strict, interval
from manyheads.config.options import UNFOLD, KeepEmbeddings, Lora, Teacher


class Transfer(Strict):
    """Freezing and transfer: what is kept of the model that training starts from."""

    init_from: Annotated[
        str | None, Setting(resume="same name", processes="same name", path="input")
    ] = Field(default=None, min_length=1)
    """A trained model to start from: its encoder, and the heads of its tasks. Tasks named in
    `tasks` continue to learn; the others are kept unchanged and need no data. `model_name` is
    then the model's, and so is `max_length` unless you set it. Default: start from `model_name`
    with new heads."""
    freeze: Annotated[
        str, Setting(allowed="one of: none, embeddings, layers:K (such as layers:3), encoder")
    ] = Field(default="none", pattern=r"^(none|embeddings|layers:[1-9]\d{0,3}|encoder)$")
    """The part of the encoder that is not trained: nothing (none), its embedding layer
    (embeddings), the lower K layers too (layers:K), or all of it (encoder)."""
    unfreeze_every: Annotated[
        int | str | None,
        PlainValidator(interval("e")),
        Setting(allowed="a number of optimiser steps (200) or of epochs (1e)"),
    ] = None
    """Unfreeze one more layer every so many optimiser steps (200) or epochs (1e), from the top down
    and the embedding layer last. Default: what is frozen stays frozen."""
    layer_decay: Float = Field(default=1.0, gt=0, le=1)
    """The factor on the learning rate from each layer of the encoder to the one below it; the
    embedding layer has the lowest."""
    lora: Annotated[Lora | None, BeforeValidator(UNFOLD["lora"])] = None
    """Train small adapters instead of the encoder's weights, and merge them into the weights when
    the model is saved: a rank, or `rank`, `alpha`, `dropout` and `targets`. Adapters need a larger
    `learning_rate` than weights, such as 5e-4. Default: train the weights."""
    head_layers: Annotated[Int | None, Setting(warm_start="fixed")] = Field(default=None, ge=1)
    """How many of the encoder's upper layers are copied for the heads; the copy is trained with
    them. The original layers serve the sentence embedding, which does not change (`freeze:
    encoder`) or is kept close to the original (`keep_embeddings`). Default: none; the heads read
    the encoder."""
    keep_embeddings: Annotated[
        KeepEmbeddings | None, BeforeValidator(UNFOLD["keep_embeddings"])
    ] = None
    """Keep the sentence embedding close to the original encoder's, so that existing vectors stay
    usable: a weight, or `weight`, `texts` and `batch_size`. Default: the embedding changes with the
    tasks."""
    teacher: Annotated[
        Teacher | None,
        BeforeValidator(UNFOLD["teacher"]),
        Setting(
            allowed="a path, or a list of them; or a mapping with: "
            + ", ".join(Teacher.model_fields)
        ),
    ] = None
    """Learn from the outputs of trained models of the same tasks, or from the soft labels in a
    file, as well as from the labels: paths, or `sources`, `texts`, `weight`, `temperature`,
    `embedding` and `batch_size`. Default: labels only."""
    cache_activations: Literal["auto", "off"] = "auto"
    """Whether the output of the encoder's frozen layers is computed once per sentence and cached,
    so that later epochs cost only what is trained (auto), or computed each time (off)."""
    cache_memory: Annotated[Int, FREE] = Field(default=1024, ge=0)
    """Megabytes of cached activations to hold in memory; the rest is mapped from a temporary
    file."""
