"""Settings of the encoder that all tasks share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manyheads.config.fields import Int, Setting, Strict

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


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
    """The encoder: a name on the hub or a folder."""
    max_length: Annotated[Int, Setting(warm_start="inherited", first=True)] = Field(
        default=128, ge=4
    )
    """The length in sub-tokens to which training cuts sentences; prediction reads longer ones in
    windows. Default: 128, or that of the model in `init_from`."""
    pooling: Literal["auto", "mean", "cls", "max"] = "auto"
    """How token vectors become the sentence embedding; `auto` follows the encoder's folder."""
