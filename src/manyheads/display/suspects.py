"""Suspect labels as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from manyheads.data.suspects import Suspects
from manyheads.display.tables import Section, cell, make_table
from manyheads.errors import counted

SHOWN = 25


def suspect_sections(found: Suspects) -> list[Section]:
    """Show the likeliest suspects, and count all of them by kind."""
    title = f"{counted(len(found), 'label')} likely wrong in {counted(found.records, 'record')}"
    if not len(found):
        return [Section(title, Text(""), _note(found.notes))]
    table = make_table(["where", "task", "error", "label", "proposal", "text"], ["score"])
    for one in found.suspects[:SHOWN]:
        table.add_row(
            cell(one.where), cell(one.task), one.error, cell(one.in_words(one.given)),
            cell(one.in_words(one.proposed)), cell(one.text), f"{one.score:.2f}",
        )  # fmt: skip
    kinds = Counter(one.error for one in found)
    counts = ", ".join(f"{number:,} {error}" for error, number in kinds.most_common())
    more = len(found) - SHOWN
    notes = [f"in all: {counts}"] if len(kinds) > 1 else []
    if more > 0:
        notes.insert(0, f"the {SHOWN} likeliest; {more:,} more are in --out FILE")
    notes.append("score: how much likelier the proposal is, as a difference of log probabilities")
    return [Section(title, table, _note([*notes, *found.notes]))]


def _note(notes: Sequence[str]) -> str:
    return "\n".join(notes)
