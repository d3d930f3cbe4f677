"""What was found in data files, before anything is trained on them."""

from __future__ import annotations

from manyheads.data.infer_tasks import InferredTasks, named_task
from manyheads.display.tables import Section, cell, make_table, printable
from manyheads.errors import counted

_LABELS_SHOWN = 4


def inferred_tables(found: InferredTasks) -> list[Section]:
    """Show the tasks of some files with their counts, and unused fields."""
    table = make_table(["task", "kind", "field", "labels"], ["different", "records"])
    for task in found.tasks:
        values = task.values
        labels = ", ".join(
            f"{name} {count:,}" for name, count in values.distinct.most_common(_LABELS_SHOWN)
        )
        more = ", ..." if len(values.distinct) > _LABELS_SHOWN else ""
        table.add_row(
            cell(task.name), task.kind, cell(values.name), cell(labels + more),
            f"{len(values.distinct):,}", f"{values.records:,}",
        )  # fmt: skip
    notes = [
        f"not used: `{printable(name)}`, {values.describe()} "
        f"({named_task(field=printable(name))} uses it)"
        for name, values in found.unused.items()
    ]
    notes += map(printable, found.hints)
    notes += [f"not read: {what} ({count:,})" for what, count in found.unread.items()]
    return [Section(f"Tasks found in {counted(found.records, 'record')}", table, "\n".join(notes))]
