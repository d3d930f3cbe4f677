"""Settings of the machine that a run uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from manyheads.config.fields import FREE, Int, Strict

DEVICES = "auto, cpu, cuda, cuda:N or mps"


class Hardware(Strict):
    """Hardware: the device, its threads and its precision."""

    device: Annotated[str, replace(FREE, allowed=DEVICES, first=True)] = Field(
        default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"
    )
    """The device to train on: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """The encoder's floating-point type; `auto` measures which one is faster on this machine."""
    threads: Annotated[Int | None, FREE] = Field(default=None, ge=1)
    """CPU threads. Default: one for each available core; training uses fewer if it measures that to
    be faster, as on a busy machine, and records their number."""
