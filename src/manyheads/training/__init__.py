"""The training loop: drawing batches, one step, balancing, state, resuming, comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyheads.training.add_head import add_head_config
    from manyheads.training.comparison import Comparison, compare, config_alone
    from manyheads.training.distributed import is_first_process
    from manyheads.training.loop import TrainResult, train
    from manyheads.training.metrics_log import METRICS_FILE
    from manyheads.training.pending import STEPS_AHEAD, PendingStep, fetch
    from manyheads.training.reporter import Quiet, Reporter
    from manyheads.training.run import Run
    from manyheads.training.setup import prepare_run
    from manyheads.training.signals import Stopped
    from manyheads.training.step import forward_backward, update
    from manyheads.training.verdicts import Times, Verdict

__all__ = [
    "METRICS_FILE",
    "STEPS_AHEAD",
    "Comparison",
    "PendingStep",
    "Quiet",
    "Reporter",
    "Run",
    "Stopped",
    "Times",
    "TrainResult",
    "Verdict",
    "add_head_config",
    "compare",
    "config_alone",
    "fetch",
    "forward_backward",
    "is_first_process",
    "prepare_run",
    "train",
    "update",
]

# By name the module that has it, imported when it is first used: the command line shows
# results of training without PyTorch.
_HOMES = {
    "Comparison": "comparison",
    "METRICS_FILE": "metrics_log",
    "PendingStep": "pending",
    "Quiet": "reporter",
    "Reporter": "reporter",
    "Run": "run",
    "STEPS_AHEAD": "pending",
    "Stopped": "signals",
    "Times": "verdicts",
    "TrainResult": "loop",
    "Verdict": "verdicts",
    "add_head_config": "add_head",
    "compare": "comparison",
    "config_alone": "comparison",
    "fetch": "pending",
    "forward_backward": "step",
    "is_first_process": "distributed",
    "prepare_run": "setup",
    "train": "loop",
    "update": "step",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
