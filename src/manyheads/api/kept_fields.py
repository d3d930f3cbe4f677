"""The fields of records that prediction does not read, kept beside the answers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from typing import IO, Any

from manyheads.data.readers import Layout, read_rows
from manyheads.data.readers.optional import optional_module
from manyheads.data.records import SECOND_TEXT, TEXT_FIELDS
from manyheads.errors import RequestError, listing, option
from manyheads.tasks import EMBEDDING, Prediction, TaskSpec

_READ = frozenset((*TEXT_FIELDS, SECOND_TEXT))
_ROWS = 4096


def other_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields without those that are its text."""
    return {name: value for name, value in fields.items() if name not in _READ}


def columns_of(path: str, layout: Layout) -> dict[str, set[type]]:
    """Read the records of a file, and return their other fields with the types of their values."""
    found: dict[str, set[type]] = {}
    for row in read_rows(path, layout=layout):
        for name, value in other_fields(row.fields).items():
            found.setdefault(name, set()).add(type(value))
    return found


def json_line(prediction: Prediction) -> bytes:
    """Write a prediction as a line of JSON, then the record's other fields.

    A field of a task's name is called `input_NAME`.
    """
    values = prediction.to_json()
    for name, value in prediction.fields.items():
        values[f"input_{name}" if name in values else name] = value
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


class CsvRows:
    """Writes predictions as rows of CSV: the record's other fields, then a column for each answer.

    A class has a column for its label and one for its score; all other results are JSON. An answer
    whose name a field has is called `predicted_NAME`.

    Args:
        fields: the records' other fields; None: those of the first record.
        embed: whether there are embeddings.
    """

    def __init__(self, fields: Sequence[str] | None, *, embed: bool) -> None:
        self._fields = fields
        self._embed = embed

    def row(self, prediction: Prediction, *, header: bool) -> bytes:
        """Write a row, under a header if it is the first.

        Raises:
            RequestError: the record has a field without a column.
        """
        if self._fields is None:
            self._fields = list(prediction.fields)
        if more := [name for name in prediction.fields if name not in self._fields]:
            raise RequestError(
                f"a record has the fields {listing(more)}, which the first record lacks",
                expected="the same fields in all records, for a table",
                fix=f"Use {option('--format jsonl')}.",
            )
        answers: dict[str, object] = {}
        for name, result in prediction.results.items():
            values = result.to_json()
            if "label" in values:
                answers |= {name: values["label"], f"{name}_score": values["score"]}
            else:
                answers[name] = _compact(values)
        if self._embed:
            vector = prediction.embedding
            answers[EMBEDDING] = None if vector is None else _compact(vector.tolist())
        row: dict[str, object] = {"text": prediction.text}
        if prediction.text2 is not None:
            row[SECOND_TEXT] = prediction.text2
        row |= {name: _cell(prediction.fields.get(name)) for name in self._fields}
        row |= {f"predicted_{n}" if n in self._fields else n: v for n, v in answers.items()}
        stream = StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        if header:
            writer.writerow(row)
        writer.writerow(row.values())
        return stream.getvalue().encode()


def write_parquet(
    file: IO[bytes],
    predictions: Iterable[Prediction],
    specs: Sequence[TaskSpec],
    fields: Mapping[str, set[type]],
    *,
    embed: bool,
    pairs: bool,
) -> int:
    """Write predictions as a Parquet table, with the columns that prediction with Ray writes.

    Args:
        file: where it is written.
        predictions: the predictions.
        specs: the tasks that are answered.
        fields: the records' other fields, with the types of their values. Values other than
            strings, numbers and booleans are written as JSON.
        embed: whether there are embeddings.
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
    kept = list(fields)
    answers = result_schema(specs, embed)
    names = output_columns([spec.name for spec in specs], [*texts, *kept], embed)
    types = {name: _arrow_type(arrow, fields[name]) for name in kept}
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
            columns = [
                arrow.array([getattr(one, name) for one in some], arrow.string()) for name in texts
            ]
            for name, type_ in types.items():
                values = [one.fields.get(name) for one in some]
                if type_ == arrow.string():
                    values = [None if value is None else _cell(value) for value in values]
                columns.append(arrow.array(values, type_))
            columns += result_columns(some, specs, answers)
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            count += len(some)
    return count


def _arrow_type(arrow: Any, types: set[type]) -> Any:
    known = types - {type(None)}
    if known == {bool}:
        return arrow.bool_()
    if known == {int}:
        return arrow.int64()
    if known and known <= {int, float}:
        return arrow.float64()
    return arrow.string()


def _batches(predictions: Iterable[Prediction]) -> Iterator[list[Prediction]]:
    some: list[Prediction] = []
    for prediction in predictions:
        some.append(prediction)
        if len(some) == _ROWS:
            yield some
            some = []
    if some:
        yield some


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else _compact(value)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
