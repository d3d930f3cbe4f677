"""The predictions for several texts: a list that a notebook shows as a table."""

from __future__ import annotations

from manyheads.tasks import Prediction
from manyheads.tasks.html import table

_ROWS = 20


class Predictions(list[Prediction]):
    """A list of predictions."""

    def _repr_html_(self) -> str:
        """Show it in a notebook: a row for each of the first texts, a column for each task."""
        shown = self[:_ROWS]
        tasks = list(dict.fromkeys(task for one in shown for task in one))
        rows = [
            [
                one.text if one.text2 is None else f"{one.text}\n{one.text2}",
                *(one.html(task) if task in one else "" for task in tasks),
            ]
            for one in shown
        ]
        more = "" if len(self) <= _ROWS else f" (the first {_ROWS})"
        return table(f"{len(self):,} predictions{more}", ["text", *tasks], rows)
