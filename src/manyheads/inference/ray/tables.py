"""Predictions as Arrow columns, whose types depend only on the model's tasks.

The column of a task has the task's name, or `predicted_NAME` where the input has a column of that
name. Its type is the one that the task's kind states (`Kind.columns`).

`in_scope`, if the model has a scope, is the probability that the text is of a known class; null for
a text without words. `empty` is true for such a text. `embedding`, on request, is a list of
float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from manyheads.errors import DataError, RequestError, listing, shorten
from manyheads.tasks import EMBEDDING, Prediction, TaskSpec, kind_of
from manyheads.tasks.kinds import Columns

EMPTY, IN_SCOPE = "empty", "in_scope"

_TYPES = {str: pa.string(), int: pa.int32(), float: pa.float32()}


def result_schema(specs: Iterable[TaskSpec], embed: bool, *, scoped: bool = False) -> pa.Schema:
    """Return the columns of a model's predictions, by the names of its tasks.

    Args:
        specs: the tasks that are answered.
        embed: whether there are embeddings.
        scoped: whether predictions have `in_scope`.
    """
    fields = [(spec.name, _type(kind_of(spec.kind).columns(spec))) for spec in specs]
    if scoped:
        fields.append((IN_SCOPE, pa.float32()))
    fields.append((EMPTY, pa.bool_()))
    if embed:
        fields.append((EMBEDDING, pa.list_(pa.float32())))
    return pa.schema(fields)


def _type(columns: Columns) -> pa.DataType:
    if isinstance(columns, dict):
        return pa.struct([(name, _type(inner)) for name, inner in columns.items()])
    return pa.list_(_type(columns[0])) if isinstance(columns, list) else _TYPES[columns]


def output_columns(answers: Iterable[str], taken: Sequence[str]) -> Mapping[str, str]:
    """Name the output's column of each column of `result_schema`.

    Args:
        answers: the names of those columns.
        taken: the names of the input's columns.

    Raises:
        RequestError: the input leaves no name for one.
    """
    names: dict[str, str] = {}
    for name in answers:
        free = [n for n in (name, f"predicted_{name}") if n not in (*taken, *names.values())]
        if not free:
            raise RequestError(
                f"the input has the columns {name!r} and 'predicted_{name}' already",
                fix="Rename one of them.",
            )
        names[name] = free[0]
    return names


def result_columns(
    predictions: Sequence[Prediction], specs: Iterable[TaskSpec], schema: pa.Schema
) -> list[pa.Array]:
    """Turn predictions into the columns of `result_schema`.

    Args:
        predictions: of some texts.
        specs: the model's tasks.
        schema: the columns.
    """
    columns = []
    by_name = {spec.name: spec for spec in specs}
    for field in schema:
        values: list[Any]
        if field.name == EMPTY:
            values = [prediction.empty for prediction in predictions]
        elif field.name == IN_SCOPE:
            values = [prediction.in_scope for prediction in predictions]
        elif field.name == EMBEDDING:
            values = [prediction.embedding for prediction in predictions]
        else:
            spec = by_name[field.name]
            kind = kind_of(spec.kind)
            # A task of pairs has no result for a single text.
            results = [prediction.results.get(field.name) for prediction in predictions]
            values = [None if result is None else kind.cell(spec, result) for result in results]
        columns.append(pa.array(values, field.type))
    return columns


def conformed(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Give a block of the input the columns and types of the whole input.

    Raises:
        DataError: a column does not fit, because the input has changed meanwhile.
    """
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise DataError(
                f"column {field.name!r} is {column.type} in one part of the input and "
                f"{field.type} in the others ({shorten(str(error), 200)})",
                where=where,
                expected="one type for all",
            ) from error
    return pa.Table.from_arrays(columns, schema=schema)


def common_schema(schemas: Iterable[pa.Schema], where: str) -> pa.Schema:
    """Return the columns of all parts of the input, with types that hold all their values.

    Raises:
        DataError: a column has incompatible types, or there is no text.
    """
    try:
        schema = pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"the parts of the input differ ({shorten(str(error), 300)})",
            where=where,
            expected="one type for each column",
            fix="Write the files anew with the same columns.",
        ) from error
    # Without values there is no type, and Parquet's readers do not agree on one that is none.
    fields = [
        field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in schema
    ]
    _check_text({field.name: field.type for field in fields}, where)
    return pa.schema(fields)


def _check_text(types: Mapping[str, pa.DataType], where: str) -> None:
    if "text" not in types and "tokens" not in types:
        raise DataError(
            f"neither `text` nor `tokens` among the columns {listing(types) or '(none)'}",
            where=where,
            expected="`text`, a string, or `tokens`, a list of words",
            fix="Rename the column that has the text.",
        )
    if "text" in types and not _is_string(types["text"]):
        raise DataError(f"`text` is {types['text']}", where=where, expected="a column of strings")
    tokens = types.get("tokens")
    if tokens is not None and not (_is_list(tokens) and _is_string(tokens.value_type)):
        raise DataError(f"`tokens` is {tokens}", where=where, expected="lists of words")


def _is_string(type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type)
    ) or (pa.types.is_dictionary(type) and _is_string(type.value_type))


def _is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type))
