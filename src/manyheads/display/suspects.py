"""Suspect labels as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from manyheads.data.suspects import COLUMNS, Suspects
from manyheads.display.tables import Section, cell, make_table
from manyheads.errors import option

SHOWN = 25


def suspect_sections(found: Suspects) -> list[Section]:
    """Show the likeliest suspects, and count all of them by kind."""
    if not len(found):
        return [Section(found.title, Text(""), _note(found.notes))]
    table = make_table(COLUMNS, ["score"])
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
        notes.insert(0, f"the {SHOWN} likeliest; {more:,} more are in {option('--out FILE')}")
    notes.append("score: the log odds that the label is wrong, if 5 % of all are")
    return [Section(found.title, table, _note([*notes, *found.notes]))]


def _note(notes: Sequence[str]) -> str:
    return "\n".join(notes)
