"""Training: batches, steps, loss balancing, checkpoints, resuming and comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyheads.lazy import loader

if TYPE_CHECKING:
    from manyheads.training.add_head import add_head_config
    from manyheads.training.comparison import Comparison, compare, config_alone
    from manyheads.training.distill import distill_config
    from manyheads.training.head_start import fit_head, name_texts
    from manyheads.training.in_flight import STEPS_AHEAD, InFlightStep, StepResult, fetch
    from manyheads.training.launch import is_first_process
    from manyheads.training.loop import TrainResult, train
    from manyheads.training.new_labels import AddedLabels, add_label
    from manyheads.training.refit import refit_config
    from manyheads.training.reporter import Reporter, StepReport
    from manyheads.training.run import Run
    from manyheads.training.setup import prepare_run
    from manyheads.training.signals import STOPPING, Stopped, is_ignored
    from manyheads.training.step import forward_backward, update
    from manyheads.training.verdicts import Times, Verdict

__all__ = [
    "STEPS_AHEAD",
    "STOPPING",
    "AddedLabels",
    "Comparison",
    "InFlightStep",
    "Reporter",
    "Run",
    "StepReport",
    "StepResult",
    "Stopped",
    "Times",
    "TrainResult",
    "Verdict",
    "add_head_config",
    "add_label",
    "compare",
    "config_alone",
    "distill_config",
    "fetch",
    "fit_head",
    "forward_backward",
    "is_first_process",
    "is_ignored",
    "name_texts",
    "prepare_run",
    "refit_config",
    "train",
    "update",
]

# Each name's module, imported on first use: the command line shows training results without
# PyTorch.
__getattr__ = loader(
    __name__,
    {
        "add_head": ("add_head_config",),
        "comparison": ("Comparison", "compare", "config_alone"),
        "distill": ("distill_config",),
        "head_start": ("fit_head", "name_texts"),
        "in_flight": ("InFlightStep", "STEPS_AHEAD", "StepResult", "fetch"),
        "launch": ("is_first_process",),
        "loop": ("TrainResult", "train"),
        "new_labels": ("AddedLabels", "add_label"),
        "refit": ("refit_config",),
        "reporter": ("Reporter", "StepReport"),
        "run": ("Run",),
        "setup": ("prepare_run",),
        "signals": ("STOPPING", "Stopped", "is_ignored"),
        "step": ("forward_backward", "update"),
        "verdicts": ("Times", "Verdict"),
    },
)
