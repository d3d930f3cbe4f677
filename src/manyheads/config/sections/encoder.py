"""Settings of the encoder that all tasks share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from manyheads.config.fields import Int, Setting, Strict

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def layer_choice(value: object) -> int | tuple[int, ...] | None:
    """Read a number of layers, or the ascending numbers of some."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    several = list(value) if isinstance(value, list | tuple) else [value]
    numbers = [n for n in several if isinstance(n, int) and not isinstance(n, bool) and n >= 1]
    if value is None:
        return None
    if not numbers or len(numbers) < len(several) or sorted(set(numbers)) != numbers:
        raise ValueError("not a number of layers")
    return tuple(numbers) if isinstance(value, list | tuple) else numbers[0]


class Encoder(Strict):
    """Encoder: the pretrained model that all tasks share."""

    # Its folder may have moved; a resumed run takes its weights from the checkpoint.
    model_name: Annotated[
        str,
        Setting(
            resume="same name",
            processes="same name",
            warm_start="fixed",
            path="model",
            first=True,
        ),
    ] = Field(default=DEFAULT_MODEL, min_length=1)
    """The encoder: a model name on the hub, or a folder."""
    max_length: Annotated[Int, Setting(warm_start="inherited", first=True)] = Field(
        default=128, ge=4
    )
    """The length in sub-tokens to which training truncates sentences; prediction reads longer ones
    in windows. Default: 128, or that of the model in `init_from`."""
    pooling: Literal["auto", "mean", "cls", "max"] = "auto"
    """How token vectors become the sentence embedding; `auto` does what the encoder's folder
    states."""
    student_layers: Annotated[
        int | tuple[int, ...] | None,
        BeforeValidator(layer_choice),
        Setting(allowed="a number of layers, or a list of ascending numbers such as [1, 2, 6]"),
    ] = None
    """Train a smaller encoder made of some of the encoder's layers: their count, spread evenly up
    to the last layer, or their numbers, from 1. `teacher` and `keep_embeddings` make up for the
    layers left out. Default: all layers."""
