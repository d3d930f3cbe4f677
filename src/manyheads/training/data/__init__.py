"""Training data: records as arrays, batches and schedules."""

from __future__ import annotations

from manyheads.training.data.batching import Source, Step, draw_batches, step_seed
from manyheads.training.data.dataset import Dataset, TaskTargets
from manyheads.training.data.schedules import InTurn, Schedule, plan_epoch, steps_per_epoch
from manyheads.training.data.training_data import TrainingData, load_training_data

__all__ = [
    "Dataset",
    "InTurn",
    "Schedule",
    "Source",
    "Step",
    "TaskTargets",
    "TrainingData",
    "draw_batches",
    "load_training_data",
    "plan_epoch",
    "step_seed",
    "steps_per_epoch",
]
