"""The metrics log's values for TensorBoard, each once even if the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from manyheads.errors import RequestError, install
from manyheads.storage import explained

TENSORBOARD_FOLDER = "tensorboard"

# Per class or entity type: too many for a page of curves; metrics.jsonl has them.
_DETAILS = frozenset({"per_class", "per_type"})
_POSITION = frozenset({"event", "step", "epoch", "seconds", "front", "best"})


def require_tensorboard() -> None:
    """Check that the values can be written, before anything is trained.

    Raises:
        RequestError: TensorBoard is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"`tensorboard: true` needs TensorBoard, which cannot be imported ({error})",
            fix=f"{install('tensorboard')} Or leave `tensorboard` out.",
        ) from error


class TensorBoardLog:
    """Writes the lines of a metrics log as event files.

    Event files cannot be truncated. Those of a resumed run contain steps that are repeated;
    TensorBoard skips them, because the new file declares its first step (`purge_step`). The log's
    lines of that step are written again; all lines, if there are no event files yet.

    Args:
        folder: the event files' folder.
        log: the metrics log, truncated to the resumed position.
        step: optimiser steps done.
    """

    def __init__(self, folder: Path, log: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        start = step if step and any(folder.glob("events.*")) else 0
        with explained(folder):
            self._writer: Any = SummaryWriter(str(folder), purge_step=start)
        for line in _lines(log) if step else ():
            if line["step"] >= start:
                self.write(line)

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line's numbers, under names such as `loss/ner` and `validation/ner/f1`."""
        with explained(self._folder):
            for name, value in scalars(line).items():
                self._writer.add_scalar(name, value, line["step"])
            self._writer.flush()


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return a line's numbers, by names that TensorBoard groups."""
    values = {key: value for key, value in line.items() if key not in _POSITION}
    if line["event"] == "epoch":
        metrics = dict(values.pop("metrics"))
        tasks = metrics.pop("tasks")
        values["validation"] = {"score": values.pop("score"), **metrics, **tasks}
        values["epoch_loss"] = values.pop("loss")
    return dict(_flat(values, ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, list):
        value = {str(number): item for number, item in enumerate(value)}
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _DETAILS:
                yield from _flat(inner, f"{name}/{key}" if name else key)
    elif isinstance(value, int | float):
        yield name, float(value)


def _lines(log: Path) -> Iterator[Mapping[str, Any]]:
    with explained(log, "read"), log.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
