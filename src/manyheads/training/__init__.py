"""Training: batches, steps, loss balancing, checkpoints, resuming and comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyheads.training.add_head import add_head_config
    from manyheads.training.comparison import Comparison, compare, config_alone
    from manyheads.training.distill import distill_config
    from manyheads.training.distributed import is_first_process
    from manyheads.training.head_start import name_texts
    from manyheads.training.in_flight import STEPS_AHEAD, InFlightStep, StepResult, fetch
    from manyheads.training.loop import TrainResult, train
    from manyheads.training.metrics_log import METRICS_FILE
    from manyheads.training.new_labels import AddedLabels, add_label
    from manyheads.training.reporter import Reporter, StepReport
    from manyheads.training.run import Run
    from manyheads.training.setup import prepare_run
    from manyheads.training.signals import STOPPING, Stopped, is_ignored
    from manyheads.training.step import forward_backward, update
    from manyheads.training.verdicts import Times, Verdict

__all__ = [
    "METRICS_FILE",
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
    "forward_backward",
    "is_first_process",
    "is_ignored",
    "name_texts",
    "prepare_run",
    "train",
    "update",
]

# Each name's module, imported on first use: the command line shows training results without
# PyTorch.
_HOMES = {
    "AddedLabels": "new_labels",
    "Comparison": "comparison",
    "InFlightStep": "in_flight",
    "METRICS_FILE": "metrics_log",
    "Reporter": "reporter",
    "Run": "run",
    "STEPS_AHEAD": "in_flight",
    "STOPPING": "signals",
    "StepReport": "reporter",
    "StepResult": "in_flight",
    "Stopped": "signals",
    "Times": "verdicts",
    "TrainResult": "loop",
    "Verdict": "verdicts",
    "add_head_config": "add_head",
    "add_label": "new_labels",
    "compare": "comparison",
    "config_alone": "comparison",
    "distill_config": "distill",
    "fetch": "in_flight",
    "forward_backward": "step",
    "is_first_process": "distributed",
    "is_ignored": "signals",
    "name_texts": "head_start",
    "prepare_run": "setup",
    "train": "loop",
    "update": "step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
