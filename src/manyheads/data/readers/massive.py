"""MASSIVE: JSON lines with an intent and slots written into the utterance."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.annotated import from_brackets
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_lines import read_json_lines
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.splits import chosen_splits
from manyheads.errors import DataError, shorten


def is_massive(head: Head) -> bool:
    """Return whether the records have `utt` and `annot_utt`."""
    return bool(head.objects) and all({"utt", "annot_utt"} <= o.keys() for o in head.objects)


def read_massive(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, the intent as `label`, and `scenario` of the chosen partitions.

    Raises:
        DataError: the file has several partitions and none is chosen.
    """
    found = (str(row.fields.get("partition")) for row in read_json_lines(source.quiet()))
    wanted = chosen_splits(source, found)
    for row in read_json_lines(source):
        fields = row.fields
        if str(fields.get("partition")) not in wanted:
            continue
        annotated = fields.get("annot_utt")
        if type(annotated) is not str:
            source.refuse(
                DataError(
                    f"`annot_utt` is {shorten(annotated)}",
                    where=row.where,
                    expected="a text such as `wake me at [time : six am]`",
                )
            )
            continue
        labels = {"label": fields.get("intent"), "scenario": fields.get("scenario")}
        yield Row(row.source, row.line, row.unit, {**from_brackets(annotated), **labels})
