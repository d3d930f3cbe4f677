"""The sections of the configuration, one module of related settings each."""

from __future__ import annotations

from manyheads.config.sections.data import Data
from manyheads.config.sections.encoder import DEFAULT_MODEL, Encoder
from manyheads.config.sections.hardware import Hardware
from manyheads.config.sections.mixing import Mixing
from manyheads.config.sections.optimisation import Optimisation
from manyheads.config.sections.saving import Saving
from manyheads.config.sections.selection import Selection
from manyheads.config.sections.transfer import Transfer

SECTIONS = (Data, Encoder, Optimisation, Mixing, Transfer, Selection, Saving, Hardware)
"""In the order of the help."""

__all__ = [
    "DEFAULT_MODEL",
    "SECTIONS",
    "Data",
    "Encoder",
    "Hardware",
    "Mixing",
    "Optimisation",
    "Saving",
    "Selection",
    "Transfer",
]
