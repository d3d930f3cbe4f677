"""Settings of the machine that a run uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from manyheads.config.fields import FREE, Int, Strict


class Hardware(Strict):
    """Hardware: what computes, and how exactly."""

    device: Annotated[str, replace(FREE, allowed="auto, cpu, cuda, cuda:N or mps", first=True)] = (
        Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    )
    """Where training computes: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Arithmetic of the encoder; `auto` measures which is faster here."""
    threads: Annotated[Int | None, FREE] = Field(default=None, ge=1)
    """Processor threads. Default: one for each available core; training uses fewer where that is
    measured to be faster, as beside other work, and records their number."""
