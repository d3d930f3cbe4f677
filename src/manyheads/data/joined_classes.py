"""Cells of tables that seem to hold several classes, which an option splits."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from manyheads.data.readers import Layout
from manyheads.errors import option, shorten
from manyheads.tasks import FieldValues

_MARKS = ",;|#"
"""Marks that may separate several labels in a cell."""
_TABLES = (".csv", ".tsv")
_SHARE = 0.05
"""The least share of records with several classes, where some of these do not occur alone."""


def are_tables(files: Sequence[str]) -> bool:
    """Return whether all files are CSV or TSV, by their endings."""
    return all(file.lower().removesuffix(".gz").endswith(_TABLES) for file in files)


def joined_hints(
    tasks: Sequence[FieldValues], columns: Mapping[str, FieldValues], layout: Layout
) -> list[str]:
    """Return a message for each task whose classes seem to be several in one cell of a table.

    Several classes of a pair are no task, and other classes in `labels` would not be read.

    Args:
        tasks: the values of the fields that are tasks.
        columns: those of all fields.
        layout: that of the files.
    """
    return [
        f"`{values.name}` has the class {shorten(cell)}, {why}; "
        f"for several classes in a cell: {separated(values.name, mark, layout)}"
        for values in tasks
        if not values.lists
        and not values.is_paired
        and (values.name == "labels" or "labels" not in columns)
        for cell, mark, why in _joined(values)[:1]
    ]


def joined_labels(columns: Mapping[str, FieldValues]) -> str:
    """Return the option that splits the cells of `labels`, if they have one of the marks."""
    cells = columns["labels"].distinct if "labels" in columns else ()
    mark = next((mark for mark in _MARKS if any(mark in cell for cell in cells)), "")
    return (
        f" For several labels in a cell of `labels`: {separated('labels', mark, Layout())}."
        * bool(mark)
    )


def _joined(values: FieldValues) -> list[tuple[str, str, str]]:
    """Return a cell for each mark that seems to join classes, with the mark and the reason."""
    found = []
    for mark in _MARKS:
        cells = {cell: [part.strip() for part in cell.split(mark)] for cell in values.distinct}
        several = {cell: parts for cell, parts in cells.items() if len(parts) > 1 and all(parts)}
        alone = {cell.strip() for cell in cells if cell not in several}
        whole = next((cell for cell, parts in several.items() if alone.issuperset(parts)), None)
        if whole is not None:
            found.append((whole, mark, "whose parts are classes too"))
        elif (some := _recurring(values, several, alone)) is not None:
            cell, part = some
            found.append((cell, mark, f"whose part {shorten(part)} occurs in other classes too"))
    return found


def _recurring(
    values: FieldValues, several: Mapping[str, Sequence[str]], alone: set[str]
) -> tuple[str, str] | None:
    """Return a cell and its first part, if all parts of many records' cells occur in others too.

    In names that contain a mark by chance, such as `Books, Films & Music`, some part does not. Nor
    is a part of `Salem, OR` a class by itself, or before the comma in one cell and behind it in
    another.
    """
    uses = Counter(part for parts in several.values() for part in {*parts})
    places = {(part, place) for parts in several.values() for place, part in enumerate(parts)}
    moving = {part for part, count in Counter(part for part, _ in places).items() if count > 1}
    found = [
        (cell, parts[0])
        for cell, parts in several.items()
        if all(uses[part] > 1 or part in alone for part in parts)
        and any(part in alone or part in moving for part in parts)
    ]
    records = sum(values.distinct[cell] for cell, _ in found)
    return found[0] if found and records >= _SHARE * values.records else None


def separated(name: str, mark: str, layout: Layout) -> str:
    """Return the options that split the labels in the cells of a column, for a message."""
    theirs = layout.theirs(name)
    names = dict(layout.names) if name == "labels" else {**layout.names, theirs: "labels"}
    named = f"names={names!r}, " if names else ""
    python = f"`layout=Layout({named}separator={mark!r})`"
    if name == "labels":
        return option(f"--label-separator '{mark}'", python)
    mapped = shlex.quote(f"{theirs}=labels")
    return option(f"--map {mapped} --label-separator '{mark}'", python)
