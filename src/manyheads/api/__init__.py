"""The Python API: one function per command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyheads.lazy import loader

if TYPE_CHECKING:
    from manyheads.api.data import augment, check, convert, formats, init, select, suspects
    from manyheads.api.description import Description
    from manyheads.api.model import ExtendedModel, Model, TrainedModel
    from manyheads.api.models import export, info, load, predict, push
    from manyheads.api.scoring import calibrate, evaluate, report, thresholds
    from manyheads.api.training import (
        add_head,
        add_label,
        compare,
        demo,
        distill,
        refit,
        train,
    )

__all__ = [
    "Description",
    "ExtendedModel",
    "Model",
    "TrainedModel",
    "add_head",
    "add_label",
    "augment",
    "calibrate",
    "check",
    "compare",
    "convert",
    "demo",
    "distill",
    "evaluate",
    "export",
    "formats",
    "info",
    "init",
    "load",
    "predict",
    "push",
    "refit",
    "report",
    "select",
    "suspects",
    "thresholds",
    "train",
]

# Imported when first used: the command line needs few of them.
__getattr__ = loader(
    __name__,
    {
        "data": (
            "augment",
            "check",
            "convert",
            "formats",
            "init",
            "select",
            "suspects",
        ),
        "description": ("Description",),
        "model": (
            "ExtendedModel",
            "Model",
            "TrainedModel",
        ),
        "models": (
            "export",
            "info",
            "load",
            "predict",
            "push",
        ),
        "scoring": (
            "calibrate",
            "evaluate",
            "report",
            "thresholds",
        ),
        "training": (
            "add_head",
            "add_label",
            "compare",
            "demo",
            "distill",
            "refit",
            "train",
        ),
    },
)
