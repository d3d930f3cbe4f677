"""Excel workbooks (.xlsx), through openpyxl where it is installed: the first sheet."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.table import table_rows
from manyheads.errors import DataError, shorten

_MOST = 2**29
"""The largest unpacked size of a workbook in bytes; its texts are held in memory."""


def read_excel(source: Source) -> Iterator[Row]:
    """Yield the rows of the first sheet, its columns named by the first row or the layout.

    Further sheets are counted as unread.

    Raises:
        DataError: openpyxl is not installed, or cannot read the file.
    """
    openpyxl = optional_module("openpyxl", "reading Excel", source.name)
    return table_rows(source, _cells(source, openpyxl), "row")


def _cells(source: Source, openpyxl: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, with its number."""
    width: int | None = None
    try:
        with zipfile.ZipFile(source.path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > _MOST:
            raise DataError(
                f"the workbook unpacks to {size:,} bytes",
                where=source.name,
                expected=f"at most {_MOST:,}",
                fix="Save the sheet as CSV.",
            )
        book = openpyxl.load_workbook(source.path, read_only=True, data_only=True)
        try:
            if len(book.sheetnames) > 1:
                source.pass_over("sheets after the first", len(book.sheetnames) - 1)
            for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True), 1):
                cells = [_text(value) for value in row]
                if not any(cells):
                    continue
                if width is None:
                    width = max(i for i, cell in enumerate(cells, 1) if cell)
                cells = [*cells, *[""] * (width - len(cells))]
                yield number, cells if any(cells[width:]) else cells[:width]
        finally:
            book.close()
    except DataError:
        raise
    # The library documents no base class of its errors for a broken workbook.
    except Exception as error:
        raise DataError(
            f"not a sound workbook ({type(error).__name__}: {shorten(str(error), 200)})",
            where=source.name,
            fix="Save it again as .xlsx.",
        ) from error


def _text(value: Any) -> str:
    """Return a cell as in CSV: whole numbers without a decimal point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
