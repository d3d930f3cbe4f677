"""The epochs of a training run: one header, then a row after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from manyheads.display.tables import printable, share

WIDTH = 80
"""The width that the table fits into."""

_NUMBER_WIDTH = 6
_GAP = "  "


@dataclass(frozen=True)
class _Column:
    """A column: its header, each word on a line of its own, and its cell for an epoch."""

    words: tuple[str, ...]
    cell: Callable[[Mapping[str, Any], float | None], str]
    rank: int = 0
    """If the table is too wide, columns with the highest rank are left out first."""

    @property
    def width(self) -> int:
        return max(_NUMBER_WIDTH, *map(len, self.words))


class EpochTable:
    """Formats epochs as rows of at most 80 columns; metrics.jsonl has the rest.

    Args:
        main: each task's main metric.
        frames: whether the epochs have a frame accuracy; tasks of numbers alone have none.
        scored: whether they are validated; otherwise they have losses alone.
    """

    def __init__(self, main: Mapping[str, str], *, frames: bool, scored: bool = True) -> None:
        self._columns = _fitting(_columns(main, frames, scored))

    def header(self) -> list[str]:
        """Return the lines above the rows."""
        stacks = [reversed(column.words) for column in self._columns]
        lines = reversed(list(zip_longest(*stacks, fillvalue="")))
        return ["Epochs", *map(self._line, lines)]

    def row(self, entry: Mapping[str, Any], speed: float | None = None) -> str:
        """Return the row of an epoch, marked if its model was kept.

        Args:
            entry: `epoch` (counted from 1), `loss` (by task), `metrics` (an `Evaluation`), `score`
                (None if it is not validated) and `best`.
            speed: sentences a second in training.
        """
        return self._line([column.cell(entry, speed) for column in self._columns])

    def _line(self, cells: Sequence[str]) -> str:
        pairs = zip(cells, self._columns, strict=True)
        return _GAP.join(cell.rjust(column.width) for cell, column in pairs).rstrip()


def _columns(main: Mapping[str, str], frames: bool, scored: bool) -> list[_Column]:
    def loss(task: str) -> _Column:
        return _Column(
            (printable(task), "loss"), lambda entry, _: share(entry["loss"].get(task)), 2
        )

    def metric(task: str, name: str) -> _Column:
        def cell(entry: Mapping[str, Any], _: float | None) -> str:
            return share(entry["metrics"]["tasks"].get(task, {}).get(name))

        return _Column((printable(task), *name.split("_")), cell, 1)

    frame = _Column(
        ("frame", "accuracy"), lambda entry, _: share(entry["metrics"]["frame_accuracy"]), 1
    )
    return [
        _Column(("epoch",), lambda entry, _: str(entry["epoch"])),
        *map(loss, main),
        _Column(("sentences/s",), lambda _, speed: f"{speed:,.0f}" if speed else "-", 3),
        *(metric(task, name) for task, name in main.items() if scored),
        *([frame] if frames and len(main) > 1 else []),
        *([_Column(("score",), lambda entry, _: share(entry["score"]))] if scored else []),
        _Column(("",), lambda entry, _: "kept" if entry["best"] else ""),
    ]


def _fitting(columns: list[_Column]) -> list[_Column]:
    """Leave out columns that do not fit: the highest rank first, the last of equal ones first."""
    while sum(c.width for c in columns) + len(_GAP) * (len(columns) - 1) > WIDTH:
        rank = max(column.rank for column in columns)
        if rank == 0:
            break
        last = max(i for i, column in enumerate(columns) if column.rank == rank)
        columns = columns[:last] + columns[last + 1 :]
    return columns
