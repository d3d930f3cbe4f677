"""HWU64 (NLU evaluation data): semicolons, with slots written into the annotated answer."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.annotated import from_brackets
from manyheads.data.readers.delimited import read_records
from manyheads.data.readers.head import Head
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, at, counted, listing

_COLUMNS = ("scenario", "intent", "answer_annotation")


def is_hwu(head: Head) -> bool:
    """Return whether the header has the columns of the set."""
    header = head.lines[0].replace('"', "").split(";") if head.lines else []
    return set(_COLUMNS) <= set(header)


def read_hwu(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, `label` (scenario and intent, as `alarm_set`) and `scenario`.

    Lines without an annotated answer are counted as unread.
    """
    header: list[str] | None = None
    for line, cells in read_records(source, ";"):
        where = at(source.name, line)
        if header is None:
            header = [cell.strip() for cell in cells]
            if not set(_COLUMNS) <= set(header):
                raise DataError(
                    f"the header has only: {listing(header)}",
                    where=where,
                    expected=f"the columns {listing(_COLUMNS)}, between semicolons",
                )
            continue
        values = dict(zip(header, cells, strict=False))
        answer = values.get("answer_annotation", "").strip()
        if len(cells) != len(header):
            found = counted(len(cells), "cell")
            source.refuse(DataError(found, where=where, expected=f"{len(header)}"))
        elif answer in ("", "null"):
            source.pass_over("lines without an annotated answer")
        else:
            scenario, intent = values["scenario"], values["intent"]
            labels = {"label": f"{scenario}_{intent}", "scenario": scenario}
            yield Row(source.name, line, "line", {**from_brackets(answer), **labels})
