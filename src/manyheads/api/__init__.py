"""The Python API: one function per command."""

from __future__ import annotations

from manyheads.api.data import augment, check, convert, select, suspects
from manyheads.api.model import ExtendedModel, Model, TrainedModel
from manyheads.api.models import export, load, push
from manyheads.api.scoring import calibrate, evaluate, report, thresholds
from manyheads.api.training import add_head, add_label, compare, distill, train

__all__ = [
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
    "distill",
    "evaluate",
    "export",
    "load",
    "push",
    "report",
    "select",
    "suspects",
    "thresholds",
    "train",
]
