"""The fields of records that prediction does not read, kept beside the answers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from io import StringIO
from typing import IO, Any

from manyheads.data.json_lines import json_line, json_text, plain
from manyheads.data.readers import Layout, read_rows
from manyheads.data.readers.optional import optional_module
from manyheads.data.records import SECOND_TEXT, TEXT_FIELDS
from manyheads.errors import DataError, RequestError, listing, option, shorten
from manyheads.tasks import EMBEDDING, Prediction, TaskSpec, kind_of
from manyheads.tasks.label_values import is_encodable
from manyheads.tasks.results import rounded

_READ = frozenset((*TEXT_FIELDS, SECOND_TEXT))
_ROWS = 4096
_LARGEST, _LARGEST_IN_FLOAT = 2**63, 2**53
"""Beyond these, an integer column and a float lose digits."""


class Type(Enum):
    """The type of a column of kept fields."""

    BOOL = "true or false"
    INT = "a whole number of 64 bits"
    FLOAT = "a number"
    TEXT = "a text"


Values = set[str]
"""The kinds of a field's values (see `_kind`)."""


def other_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields without those that are its text."""
    return {name: value for name, value in fields.items() if name not in _READ}


def columns_of(path: str, layout: Layout) -> dict[str, Type]:
    """Read the records of a file, and return the types of their other fields."""
    found: dict[str, Values] = {}
    for row in read_rows(path, layout=layout, needs_labels=False, keeps_empty_rows=True):
        for name, value in other_fields(row.fields).items():
            found.setdefault(name, set()).add(_kind(value))
    return {name: _type(kinds) for name, kinds in found.items()}


def prediction_line(prediction: Prediction) -> bytes:
    """Write a prediction as a line of JSON, then the record's other fields.

    A field of a task's name is called `input_NAME`, with `input_` as often as it takes where that
    is a field too.
    """
    answers, fields = prediction.to_json(), prediction.fields
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        free = name
        while free in answers or (free != name and (free in fields or free in kept)):
            free = f"input_{free}"
        kept[free] = value
    return json_line(answers | kept)


class Columns:
    """The columns of a table for the records' other fields.

    Args:
        types: the type of each column; None: the fields and types of the first record.
        typed: whether columns have these types; otherwise all of them are texts.
    """

    def __init__(self, types: Mapping[str, Type] | None, *, typed: bool) -> None:
        self._types = types
        self._typed = typed

    @property
    def types(self) -> Mapping[str, Type]:
        """The type of each column; none before the first record, if that determines them."""
        return self._types or {}

    def cells(self, fields: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return a record's other fields as its cells.

        Texts stay as they are; in columns of texts, other values are JSON.

        Args:
            fields: the record's other fields.
            where: its place, for messages.

        Raises:
            DataError: a field has no column, or a value that its column cannot hold.
        """
        if self._types is None:
            self._types = {name: _type({_kind(value)}) for name, value in fields.items()}
        if more := [name for name in fields if name not in self._types]:
            raise DataError(
                f"the record has the fields {listing(more)}, which the first record lacks",
                where=where,
                expected="the same fields in all records, for a table",
                fix=f"Use {option('--format jsonl')}.",
            )
        return {name: self._cell(name, value, where) for name, value in fields.items()}

    def _cell(self, name: str, value: Any, where: str) -> Any:
        if value is None:
            return None
        type_ = self._types[name] if self._types and self._typed else Type.TEXT
        if type_ is Type.TEXT:
            text = _text(name, value, where)
            if not is_encodable(name + text):
                raise DataError(
                    f"the field {shorten(name)} has half a character (an unpaired surrogate): "
                    f"{shorten(text)}",
                    where=where,
                    expected="whole Unicode characters, for a table",
                    fix=f"Use {option('--format jsonl')}, which can hold it.",
                )
            return text
        if _kind(value) not in _KINDS[type_]:
            raise DataError(
                f"`{name}` is {shorten(value)}",
                where=where,
                expected=f"{type_.value}, as in the records before, for a column of one type",
                fix=f"Use {option('--format jsonl')}.",
            )
        return plain(value)


class CsvRows:
    """Writes predictions as rows of CSV: texts, other fields of records, a column for each answer.

    All rows have the same columns; what a prediction lacks is an empty cell. A class has a column
    for its label and one for its score; all other results are JSON. An answer whose name a field
    has is called `predicted_NAME`.

    Args:
        columns: the columns of the records' other fields.
        specs: the tasks that are answered.
        embed: whether there are embeddings.
        scoped: whether predictions have `in_scope`.
        pairs: whether there are second texts.
    """

    def __init__(
        self, columns: Columns, specs: Sequence[TaskSpec], *, embed: bool, scoped: bool, pairs: bool
    ) -> None:
        self._columns = columns
        self._classes = {spec.name: _is_class(spec) for spec in specs}
        self._embed, self._scoped, self._pairs = embed, scoped, pairs

    def row(self, prediction: Prediction, *, header: bool) -> bytes:
        """Write a row, under a header if it is the first. Its fields are cells already.

        Raises:
            RequestError: the fields leave no name for an answer.
        """
        fields = self._columns.types
        answers: dict[str, object] = {}
        for name, is_class in self._classes.items():
            # A task of pairs has no result for a single text.
            result = prediction.results.get(name)
            values = {} if result is None else result.to_json()
            if is_class:
                answers |= {name: values.get("label"), f"{name}_score": values.get("score")}
            else:
                answers[name] = json_text(values, name) if values else None
        if self._scoped:
            answers["in_scope"] = rounded(prediction.in_scope)
        if self._embed:
            vector = prediction.embedding
            answers[EMBEDDING] = None if vector is None else json_text(vector.tolist(), EMBEDDING)
        row: dict[str, object] = {"text": prediction.text}
        if self._pairs:
            row[SECOND_TEXT] = prediction.text2
        row |= {name: prediction.fields.get(name) for name in fields}
        for name, value in answers.items():
            free = f"predicted_{name}" if name in row else name
            if free in row:
                raise RequestError(
                    f"the input has the columns {name!r} and {free!r} already",
                    fix=f"Rename one of them, or use {option('--format jsonl')}.",
                )
            row[free] = value
        stream = StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        if header:
            writer.writerow(row)
        writer.writerow(row.values())
        return stream.getvalue().encode()


def _is_class(spec: TaskSpec) -> bool:
    """Return whether the task's results are a label and its score."""
    columns = kind_of(spec.kind).columns(spec)
    return isinstance(columns, dict) and {"label", "score"} <= columns.keys()


def write_parquet(
    file: IO[bytes],
    predictions: Iterable[Prediction],
    specs: Sequence[TaskSpec],
    columns: Columns,
    *,
    embed: bool,
    scoped: bool,
    pairs: bool,
) -> int:
    """Write predictions as a Parquet table, with the columns that prediction with Ray writes.

    Args:
        file: where it is written.
        predictions: the predictions, whose fields are cells already.
        specs: the tasks that are answered.
        columns: the columns of the records' other fields.
        embed: whether there are embeddings.
        scoped: whether predictions have `in_scope`.
        pairs: whether there are second texts.

    Returns:
        The number of rows.

    Raises:
        DataError: pyarrow is not installed.
        RequestError: the fields leave no name for an answer.
    """
    asked = option("--format parquet")
    arrow = optional_module("pyarrow", "writing Parquet", asked)
    parquet = optional_module("pyarrow.parquet", "writing Parquet", asked)
    from manyheads.inference.ray.tables import output_columns, result_columns, result_schema

    texts = ["text", *([SECOND_TEXT] if pairs else [])]
    arrow_types = {
        Type.BOOL: arrow.bool_(), Type.INT: arrow.int64(), Type.FLOAT: arrow.float64(),
        Type.TEXT: arrow.string(),
    }  # fmt: skip
    types = {name: arrow_types[type_] for name, type_ in columns.types.items()}
    answers = result_schema(specs, embed, scoped=scoped)
    names = output_columns(answers.names, [*texts, *types])
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in texts),
            *types.items(),
            *((names[field.name], field.type) for field in answers),
        ]
    )
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for some in _batches(predictions):
            arrays = [
                arrow.array([getattr(one, name) for one in some], arrow.string()) for name in texts
            ]
            arrays += [
                arrow.array([one.fields.get(name) for one in some], type_)
                for name, type_ in types.items()
            ]
            arrays += result_columns(some, specs, answers)
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            count += len(some)
    return count


_KINDS: Mapping[Type, Values] = {
    Type.BOOL: {"bool"}, Type.INT: {"short", "long"}, Type.FLOAT: {"short", "float"}
}  # fmt: skip
"""By type of a column, the kinds of values that it holds without loss, in order of preference."""


def _kind(value: Any) -> str:
    """Return the kind of a value: integers that floats hold are short, of 64 bits long."""
    try:
        value = plain(value)
    except TypeError:  # a list or an object
        return "other"
    kind = type(value).__name__
    if kind == "int":
        kind = "short" if abs(value) <= _LARGEST_IN_FLOAT else "long"
        return kind if -_LARGEST <= value < _LARGEST else "other"
    return kind


def _type(kinds: Values) -> Type:
    """Return the type of a column that holds values of several kinds without loss."""
    known = kinds - {"NoneType"}
    return next((one for one, held in _KINDS.items() if known and known <= held), Type.TEXT)


def _text(name: str, value: Any, where: str) -> str:
    """Return a value as the text of a cell."""
    with suppress(TypeError):  # a list or an object
        value = plain(value)
    return value if isinstance(value, str) else json_text(value, name, where)


def _batches(predictions: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    some: list[Prediction] = []
    for prediction in predictions:
        some.append(prediction)
        if len(some) == _ROWS:
            yield some
            some = []
    if some:
        yield some
