"""How far a run has come: all that a resumed run must know besides weights and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import Config, May, Setting, setting_at
from manyheads.errors import RequestError, shorten
from manyheads.training.balancing import GradientTally


@dataclass
class Tally:
    """What training has seen of one task since its last line in the metrics log."""

    loss: float = 0.0
    """Sum over steps of the task's loss."""
    steps: int = 0
    sentences: int = 0
    tokens: int = 0

    def add(self, loss: float, sentences: int, tokens: int) -> None:
        """Count one step."""
        self.loss += loss
        self.steps += 1
        self.sentences += sentences
        self.tokens += tokens


@dataclass
class Best:
    """The best epoch so far."""

    epoch: int = 0
    """Counted from 1; 0 before any epoch has ended."""
    score: float = float("-inf")


@dataclass
class TrainingState:
    """The position of a run, between two optimiser steps."""

    epoch: int = 0
    """Epochs done."""
    step_in_epoch: int = 0
    """Optimiser steps done in the epoch under way."""
    step: int = 0
    """Optimiser steps done in all."""
    best: Best = field(default_factory=Best)
    best_of: dict[str, Best] = field(default_factory=dict)
    """By task, where the best model of each is kept."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One entry an epoch: losses, metrics, the score that chooses the best."""
    since_log: dict[str, Tally] = field(default_factory=dict)
    """By task, since the last line of the metrics log."""
    gradients_since_log: GradientTally = field(default_factory=GradientTally)
    """The tasks' gradients of the encoder, since the last line of the metrics log."""
    this_epoch: dict[str, Tally] = field(default_factory=dict)
    """By task, since the epoch began."""
    skipped: int = 0
    """Steps left out because their loss was not finite."""
    log_bytes: int = 0
    """Length of the metrics log."""
    finished: bool = False
    """Whether the run is over, by its number of epochs or by early stopping."""

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
            fields[key] = {task: Tally(**tally) for task, tally in fields[key].items()}
        gradients = GradientTally(**fields.pop("gradients_since_log", {}))
        best_of = {task: Best(**one) for task, one in fields.pop("best_of").items()}
        best = Best(best["epoch"], best["score"]) if best["epoch"] else Best()
        return cls(best=best, best_of=best_of, gradients_since_log=gradients, **fields)


def check_same_run(
    config: Config, data: list[str], stored_config: Mapping[str, Any], stored_data: list[str]
) -> None:
    """Refuse to continue a run under a configuration, or on data, that are not its own.

    Args:
        config: the present configuration.
        data: checksums of the data's content.
        stored_config: the configuration that the checkpoint holds, as JSON values.
        stored_data: the checksums that it holds.

    Raises:
        RequestError: naming the keys that differ, with both values.
    """
    differing = differing_keys(config, stored_config)
    if not differing and data != stored_data:
        differing = ["the data have another content"]
    if differing:
        raise RequestError(
            f"the run cannot be resumed, because its configuration has changed: "
            f"{'; '.join(differing)}",
            expected="the configuration and data that it was started with",
            fix="Restore them, or start anew with --overwrite or another `save_dir`.",
        )


def differing_keys(
    config: Config,
    stored_config: Mapping[str, Any],
    may: Callable[[Setting], May] = lambda setting: setting.resume,
) -> list[str]:
    """Return the keys in which a configuration differs from another one, with both values.

    Args:
        config: the present configuration.
        stored_config: the one to compare it with, as JSON values.
        may: how the values of a setting must agree. Default: as in a continuation of a run.
    """
    present = flatten(config.model_dump(mode="json"))
    stored = flatten(stored_config)
    return [
        f"{key} is {shorten(present.get(key))} and was {shorten(stored.get(key))}"
        for key in sorted(present.keys() | stored.keys())
        if not _agree(present.get(key), stored.get(key), may(setting_at(key)))
    ]


def _agree(present: Any, stored: Any, may: May) -> bool:
    if may == "same name":
        return Path(str(present)).name == Path(str(stored)).name
    return may == "differ" or bool(present == stored)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
