"""The state of a run besides weights and optimiser: its position, history and running means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import Config, May, Setting, default_at, setting_at
from manyheads.errors import ManyheadsError, RequestError, option, shorten
from manyheads.training.balancing import GradientMeans


class RunMismatch(RequestError):
    """The run in a folder cannot be continued as asked; another folder, or a new run, can."""


class TrainingError(ManyheadsError):
    """Training cannot continue."""


def not_finite(what: str, step: int) -> TrainingError:
    """Return the error for numbers that are not finite after a step that was made."""
    return TrainingError(
        f"{what} are not finite after step {step}",
        fix="Lower `learning_rate` or `head_learning_rate`, and start anew with "
        f"{option('--overwrite')}.",
    )


def restore() -> str:
    """Return the advice for files of a run that are missing or damaged."""
    anew = option("--overwrite")
    return f"Restore them, or start anew with {anew} or another `save_dir`."


@dataclass
class RunningMean:
    """The running mean of a loss, and the amount of data behind it."""

    loss: float = 0.0
    """The sum over steps."""
    steps: int = 0
    """Those that had labels for it."""
    sentences: int = 0
    tokens: int = 0

    @property
    def mean(self) -> float:
        """The mean over steps."""
        return self.loss / self.steps

    def add(self, loss: float, sentences: int, tokens: int) -> None:
        """Add a step."""
        self.loss += loss
        self.steps += 1
        self.sentences += sentences
        self.tokens += tokens


@dataclass
class Best:
    """The best epoch so far."""

    epoch: int = 0
    """Counted from 1; 0 before any epoch has ended."""
    score: float | None = float("-inf")
    """None where nothing is validated."""


@dataclass
class TrainingState:
    """The position of a run, between two optimiser steps."""

    epoch: int = 0
    """Completed epochs."""
    step_in_epoch: int = 0
    """Optimiser steps done in the current epoch."""
    step: int = 0
    """Optimiser steps done in total."""
    best: Best = field(default_factory=Best)
    best_of: dict[str, Best] = field(default_factory=dict)
    """By task, with `keep_best_per_task`."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry per epoch: losses, metrics, and the score that selects the best model."""
    since_log: dict[str, RunningMean] = field(default_factory=dict)
    """Losses since the last line of the metrics log."""
    gradients_since_log: GradientMeans = field(default_factory=GradientMeans)
    """The tasks' encoder gradients since the last line of the metrics log."""
    this_epoch: dict[str, RunningMean] = field(default_factory=dict)
    """Losses since the epoch began."""
    skipped: int = 0
    """Steps skipped because a loss or gradient was not finite."""
    log_bytes: int = 0
    """Size of the metrics log."""
    ahead: list[int] = field(default_factory=list)
    """By how many turns each source is ahead of the schedule, if the number of epochs was changed
    (see `turns_ahead`)."""
    finished: bool = False
    """Whether the run is complete, or was stopped early."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        values = asdict(self)
        # JSON has no infinity.
        values["best"]["score"] = self.best.score if self.best.epoch else None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingState:
        """Restore what `to_dict` returned."""
        fields = dict(values)
        best = fields.pop("best")
        for key in ("since_log", "this_epoch"):
            fields[key] = {name: RunningMean(**mean) for name, mean in fields[key].items()}
        gradients = GradientMeans(**fields.pop("gradients_since_log", {}))
        best_of = {task: Best(**one) for task, one in fields.pop("best_of").items()}
        best = Best(best["epoch"], best["score"]) if best["epoch"] else Best()
        return cls(best=best, best_of=best_of, gradients_since_log=gradients, **fields)


def check_same_run(
    config: Config, data: list[str], stored_config: Mapping[str, Any], stored_data: list[str]
) -> None:
    """Refuse to resume a run with another configuration or other data.

    Args:
        config: the current configuration.
        data: checksums of the current data's content.
        stored_config: the checkpoint's configuration, as JSON values.
        stored_data: the checkpoint's checksums.

    Raises:
        RunMismatch: naming the keys that differ, with both values.
    """
    differing = differing_keys(config, stored_config)
    if not differing and data != stored_data:
        differing = ["the data's content has changed"]
    if differing:
        raise RunMismatch(
            f"the run cannot be resumed, because its configuration has changed: "
            f"{'; '.join(differing)}",
            expected="the configuration and data that it was started with",
            fix=restore(),
        )


def differing_keys(
    config: Config,
    stored_config: Mapping[str, Any],
    may: Callable[[Setting], May] = lambda setting: setting.resume,
) -> list[str]:
    """Return the keys in which a configuration differs from another one, with both values.

    Args:
        config: the current configuration.
        stored_config: the other one, as JSON values.
        may: how a setting's values may differ. Default: as when a run is resumed.
    """
    present = flatten(config.model_dump(mode="json"))
    stored = flatten(stored_config)

    def was(key: str) -> Any:
        # An earlier version did not have every setting, and did what the default does now.
        return stored[key] if key in stored else default_at(key)

    return [
        f"{key} is {shorten(present.get(key))} and was {shorten(was(key))}"
        for key in sorted(present.keys() | stored.keys())
        if not _agree(present.get(key), was(key), may(setting_at(key)))
    ]


def _agree(present: Any, stored: Any, may: May) -> bool:
    if may == "same name":
        return Path(str(present)).name == Path(str(stored)).name
    return may == "differ" or bool(present == stored)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
