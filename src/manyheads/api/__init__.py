"""The Python API: one function per command."""

from __future__ import annotations

from manyheads.api.data import augment, check, convert, init, select, suspects
from manyheads.api.description import Description
from manyheads.api.model import ExtendedModel, Model, TrainedModel
from manyheads.api.models import export, info, load, predict, push
from manyheads.api.scoring import calibrate, evaluate, report, thresholds
from manyheads.api.training import add_head, add_label, compare, demo, distill, train

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
    "info",
    "init",
    "load",
    "predict",
    "push",
    "report",
    "select",
    "suspects",
    "thresholds",
    "train",
]
