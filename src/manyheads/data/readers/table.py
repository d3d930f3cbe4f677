"""Tables: a header that names the columns, and cells that are texts."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from manyheads.data.readers.row import Layout, Row, Source
from manyheads.errors import DataError, at, listing, nearest, option, shorten
from manyheads.tasks.label_values import SECOND_TEXT

TEXT_COLUMNS = ("text", "tokens")

_MARK = "\ufeff"
_LABEL_COLUMNS = {
    "label", "labels", "class", "category", "intent", "sentiment", "target", "klasse", "kategorie",
}  # fmt: skip

PAIR_COLUMNS = ("text", "text2", "score")
"""The columns of a file without a header that begins with two texts and a number, like the STS
benchmark."""

_ITEM = re.compile(
    r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(-?\d+))(?:\s*,|(?=[\s\]'"])|$)""", re.DOTALL
)
_LONGEST_LITERAL = 100_000
_LONGEST_NAME = 30
"""Characters of a column's name in the suggestions of a message; longer ones are texts."""
_RECORDS_SEEN = 20


def table_rows(
    source: Source, records: Iterable[tuple[int, list[str]]], unit: str
) -> Iterator[Row]:
    """Yield the rows of a table, its columns named by the first record or the layout.

    Args:
        source: the file, which receives the errors of rows.
        records: the cells of each record, with its number.
        unit: the unit of the number, `line` or `row`.

    Raises:
        DataError: the first record cannot be a header.
    """
    header: list[str] | None = None
    names: list[str] = []
    records = iter(records)
    for number, cells in records:
        where = at(source.name, number, unit)
        try:
            if header is None:
                header, is_record = _header(cells, source, number, records)
                if not is_record:
                    names = _stripped(cells)
                    continue
            elif len(names) > 1 and _stripped(cells) == names:
                raise DataError(
                    "the line repeats the header", where=where, expected="a record",
                    fix="Remove it; files that are joined keep one header.",
                )  # fmt: skip
            yield Row(source.name, number, unit, _fields(header, cells, source.layout, where))
        except DataError as error:
            if header is None:
                raise
            source.refuse(error)


def _header(
    cells: Sequence[str], source: Source, line: int, more: Iterator[tuple[int, list[str]]]
) -> tuple[list[str], bool]:
    """Return the columns' names, and whether the first line is a record rather than the header.

    Args:
        cells: those of the first line.
        source: the file.
        line: the number of the line.
        more: the records after it, of which some are read for the message of an error.

    Raises:
        DataError: the names are not distinct, or none is that of the text.
    """
    where = at(source.name, line)
    if source.layout.numbered:
        numbers = [str(i) for i in range(1, len(cells) + 1)]
        return _with_text(source.layout.header(numbers, where), cells, where, more), True
    names = _stripped(cells)
    renamed = source.layout.header(names, where)
    if _is_pair(names) and not source.layout.names:
        return list(PAIR_COLUMNS), True
    twice = next((name for name in renamed if name and renamed.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"the header has the column {shorten(twice)} twice",
            where=where,
            expected="a distinct name for each column",
        )
    # Such as the row numbers that pandas writes, or the empty cells behind a spreadsheet's table.
    source.pass_over("columns without a name in the header", renamed.count(""))
    return _with_text(renamed, names, where, more), False


def _stripped(cells: Sequence[str]) -> list[str]:
    """Return the cells of a header, which begins with a byte-order mark where files were joined."""
    return [cell.strip().removeprefix(_MARK) for cell in cells]


def _fields(
    header: Sequence[str], cells: Sequence[str], layout: Layout, where: str
) -> dict[str, Any]:
    """Return a row's cells by the header's names; those of columns without a name are left out.

    Cells are texts, or lists if they have the form of a Python, NumPy or JSON list. Otherwise
    `tokens` is split at white space, and `labels` at the layout's separator. An empty cell is None,
    except in the text's column; a blank second text is none either.

    Raises:
        DataError: there are more or fewer cells than columns, or half a list.
    """
    if len(cells) != len(header):
        raise DataError(
            f"{len(cells)} cell{'s' * (len(cells) != 1)}, beginning with {shorten(cells[0])}",
            where=where,
            expected=f"{len(header)}, as the header has ({listing(header)})",
            fix="Quote cells that contain separators or line breaks.",
        )
    fields: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        if not name:
            continue
        if name == "text":
            fields[name] = cell
        elif name == SECOND_TEXT:
            fields[name] = cell if cell.strip() else None
        elif cell[:1] == "[" and cell[-1:] == "]" and (items := cell_list(cell)) is not None:
            fields[name] = items
        elif name == "tokens":
            fields[name] = _not_a_list(cell, name, where).split()
        elif name == "labels" and layout.separator is not None and cell:
            fields[name] = [part.strip() for part in cell.split(layout.separator)]
        else:
            fields[name] = _not_a_list(cell, name, where) or None
    return fields


def cell_list(cell: str) -> list[Any] | None:
    """Read a list from a cell, such as `['a', 'b']` or `['a' 'b']`; None if it is not one."""
    if len(cell) > _LONGEST_LITERAL:
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return _scalars(cell) or _literal(cell)
    return value if type(value) is list else None


def _scalars(cell: str) -> list[Any] | None:
    """Read quoted texts or integers, separated by commas or white space."""
    items: list[Any] = []
    position, end = 1, len(cell.rstrip("]").rstrip())
    while position < end:
        match = _ITEM.match(cell, position)
        if match is None:
            return None
        number = match.group(1)
        if number is not None:
            items.append(int(number))
        else:
            # Python evaluates the quoted part, whose escapes are Python's.
            items.append(_literal(match.group(0).strip().rstrip(",").rstrip()))
        position = match.end()
    return items if None not in items else None


def _literal(cell: str) -> Any:
    try:
        return ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _not_a_list(cell: str, name: str, where: str) -> str:
    """Return a cell, or refuse a broken list such as NumPy's abbreviated `['a' ... 'z']`."""
    if cell.startswith(("['", '["')) and name in ("tokens", "ner", "labels", "entities"):
        raise DataError(
            f"`{name}` is {shorten(cell)}, a truncated or broken list",
            where=where,
            expected="a complete list such as ['a', 'b'], or words separated by spaces",
            fix="Write the table again with all items, or as JSON lines, which preserve lists.",
        )
    return cell


def _is_pair(cells: Sequence[str]) -> bool:
    """Return whether the first line is a scored pair: in no header is a column's name a number."""
    if len(cells) != len(PAIR_COLUMNS) or any(cell in TEXT_COLUMNS for cell in cells):
        return False
    return _is_number(cells[2]) and all(cell and not _is_number(cell) for cell in cells[:2])


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _with_text(
    names: list[str], cells: Sequence[str], where: str, more: Iterator[tuple[int, list[str]]]
) -> list[str]:
    """Return the names if one of them is that of the text.

    Raises:
        DataError: none is; the message shows the columns and the options that name them.
    """
    if any(name in TEXT_COLUMNS for name in names):
        return names
    hint = next((h for name in names if (h := nearest(name, TEXT_COLUMNS, 0.75))), "")
    other = next((c for c in ";\t,|" if len(cells) == 1 and c in cells[0]), None)
    if other is not None:
        fix = f"Cells seem to be separated by {other!r}: {_other_separator(cells[0], other, more)}"
    else:
        fix = f"Name the columns, such as {_naming(*_likely_columns(cells, more))} " + option(
            "(of two texts, --text2-field COLUMN for the second); without a header, by number: "
            "--text-field 1 --map 2=label. Columns of 0 and 1: --format indicators.",
            '(of two texts, `"text2"` for the second); without a header, by number: '
            '`{"1": "text", "2": "label"}`. Columns of 0 and 1: '
            '`layout=Layout(format="indicators")`.',
        )
    raise DataError(
        f"the header has no column `text` or `tokens`, only: {listing(filter(None, cells))}{hint}",
        where=where,
        expected="a header with the columns' names in the first line",
        fix=fix,
    )


def _other_separator(header: str, separator: str, more: Iterator[tuple[int, list[str]]]) -> str:
    """Return what to do about a table that another separator divides.

    Args:
        header: the first line.
        separator: what separates its names.
        more: the records after it, not divided yet.
    """
    form = {";": "semicolons", "\t": "tsv", ",": "csv"}.get(separator)
    if form is None:
        return "write them with commas or tabs."
    names = [name.strip(' "') for name in header.split(separator)]
    if any(name in TEXT_COLUMNS for name in names):
        return option(f"--format {form}", f'`layout=Layout(format="{form}")`') + "."
    records = ((line, "".join(cells).split(separator)) for line, cells in more)
    return _naming(*_likely_columns(names, records), form) + "."


def _naming(text: str, label: str, form: str = "") -> str:
    """Return the options that name columns, and the format if given; empty ones are not known."""
    command = python = ""
    if label != "label":
        command = " " + shlex.quote(f"{label or 'COLUMN'}=label")
        python = f', {_quoted(label) or "OTHER"}: "label"'
    return option(
        f"{form and f'--format {form} '}--text-field {shlex.quote(text or 'COLUMN')}"
        f"{command and f' --map{command}'}",
        f"`layout=Layout({form and f'format={_quoted(form)}, '}"
        f'names={{{_quoted(text) or "COLUMN"}: "text"{python}}})`',
    )


def _likely_columns(
    header: Sequence[str], more: Iterator[tuple[int, list[str]]]
) -> tuple[str, str]:
    """Return the column of the text, and that of the label: the only other one, or one so named.

    The text has its usual name in another case, or else the longest values among the columns whose
    names are not usual for labels. What is not known is empty, as both are where the first line
    looks like a record.
    """
    if any(len(name) > _LONGEST_NAME or _is_number(name) for name in header):
        return "", ""
    sizes = [0] * len(header)
    # A record that is broken says nothing about the header.
    with suppress(DataError):
        for _, cells in islice(more, _RECORDS_SEEN):
            for column, cell in enumerate(cells[: len(header)]):
                sizes[column] += len(cell)
    names = [name.casefold() for name in header]
    columns = range(len(header))
    text = max(
        [i for i in columns if names[i] in TEXT_COLUMNS]
        or [i for i in columns if names[i] not in _LABEL_COLUMNS]
        or columns,
        key=sizes.__getitem__,
    )
    others = [i for i in columns if i != text]
    named = others if len(others) == 1 else [i for i in others if names[i] in _LABEL_COLUMNS]
    return header[text], header[named[0]] if len(named) == 1 else ""


def _quoted(name: str) -> str:
    return name and json.dumps(name, ensure_ascii=False)
