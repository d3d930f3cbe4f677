"""The number of epochs of a run: as configured, decided from the data, or raised on resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from manyheads.config import AUTO, Config
from manyheads.errors import counted, option
from manyheads.training.data.batching import Source
from manyheads.training.state import RunMismatch, TrainingState

FEWEST, MOST = 3, 40
MOST_FITTED = 6
"""The most epochs if all heads are fitted to the data at the start, and so have little to learn."""
_BUDGET = 490.0
"""The epochs for one record. They fall with the square root of the number of records: 20 at 600, 5
at 10,000. Measured on 600 sentences with two tasks, where 20 epochs are better than 10 and as good
as 30."""
_RECORDS, _POWER = 600, 0.3
"""The records from which heads that are not fitted have more epochs than that, and the power of the
records with which theirs fall: 8 at 13,000 (see docs/experiments.md)."""

_GAIN = 0.005
"""The gain in the best score over the last fifth of the epochs from which a run counts as
unfinished."""


def decide_epochs(
    config: Config, sources: Sequence[Source], stored: int | None, report: Callable[[str], None]
) -> Config:
    """Replace `num_epochs: auto` by a number.

    Args:
        config: the run.
        sources: the sources of its batches.
        stored: the number of epochs of the checkpoint that the run continues from.
        report: receives a message with the decision.
    """
    if config.num_epochs != AUTO:
        return config
    fitted = all(task.start == "fitted" for task in config.tasks.values())
    count = stored or budget([len(source.rows) for source in sources], fitted=fitted)
    report(f"Training for {counted(count, 'epoch')} (`num_epochs: auto`).")
    return config.model_copy(update={"num_epochs": count})


def budget(records: Sequence[int], *, fitted: bool) -> int:
    """Return the number of epochs.

    Args:
        records: the tasks' numbers of records.
        fitted: whether all heads are fitted at the start.
    """
    mean = max(1.0, sum(records) / max(1, len(records)))
    few = _BUDGET / math.sqrt(mean)
    many = _BUDGET / math.sqrt(_RECORDS) * math.pow(_RECORDS / mean, _POWER)
    epochs, most = (few, MOST_FITTED) if fitted else (max(few, many), MOST)
    return min(most, max(FEWEST, round(epochs)))


def check_resumed(
    config: Config, stored: int, state: TrainingState, report: Callable[[str], None]
) -> None:
    """Check and report a number of epochs that differs from the one a run was started with.

    Args:
        config: the run.
        stored: the number of epochs in the checkpoint.
        state: the run's position in the checkpoint.
        report: receives messages for the user.

    Raises:
        RunMismatch: the run is beyond its new end, or its number of epochs is fixed (`refit`).
    """
    if config.epochs == stored:
        return
    if config.refit is not None:
        raise RunMismatch(
            f"`num_epochs` is {config.epochs}, but a run on all records has the number that the "
            f"run before has chosen, {stored}",
            fix="Leave it out.",
        )
    begun = state.epoch + (state.step_in_epoch > 0)
    if config.epochs < max(begun, 1):
        position = (
            f"is in its epoch {begun}"
            if begun > state.epoch
            else f"has {counted(begun, 'complete epoch')}"
        )
        raise RunMismatch(
            f"`num_epochs` is {config.epochs}, but the run {position}",
            expected=f"at least {begun}",
            fix=f"Raise it, or start anew with {option('--overwrite')} or another `save_dir`.",
        )
    if config.lr_schedule == "constant" or config.epochs == state.epoch:
        return
    change = (
        f"continues to {config.epochs}. The learning rate follows the schedule of the longer run "
        "from here on, so it rises now."
        if config.epochs > stored
        else f"ends after {config.epochs}. The learning rate follows the schedule of the shorter "
        "run from here on, so it drops now."
    )
    report(
        f"The run was started with {stored} epochs and {change} The result differs from that of a "
        "run that was started with as many."
    )


def is_complete(config: Config, epoch: int, history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a run has all its epochs, or waited long enough for a higher score.

    Args:
        config: the run.
        epoch: the epochs that are complete.
        history: an entry for each of them, with its `score`; it is read with `early_stopping`.
    """
    patience = config.early_stopping
    waited = patience is not None and bool(history) and epochs_without_gain(history) >= patience
    return epoch >= config.epochs or waited


def epochs_without_gain(history: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of epochs since the score last rose above all before.

    Args:
        history: an entry for each epoch, with its `score`.
    """
    scores = [float(entry["score"]) for entry in history]
    return len(scores) - 1 - scores.index(max(scores))


def is_improving(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the last epoch was the best one, and clearly better than the earlier ones.

    Args:
        history: an entry for each epoch, with its `score`.
    """
    scores = [float(entry["score"]) for entry in history]
    late = math.ceil(len(scores) / 5)
    before = scores[:-late]
    return bool(before) and scores[-1] == max(scores) and scores[-1] - max(before) >= _GAIN
