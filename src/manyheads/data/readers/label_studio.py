"""Label Studio's exports JSON and JSON_MIN; its CoNLL export is read as CoNLL columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from manyheads.data.readers.annotated import as_list, entity
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_objects
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, listing, option, shorten

_MIN_FIELDS = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")


def is_label_studio(head: Head) -> bool:
    """Return whether the records are tasks with annotations, in the long or the short form."""
    return bool(head.objects) and all(
        (type(o.get("data")) is dict and ("annotations" in o or "predictions" in o))
        or {"annotation_id", "lead_time"} <= o.keys()
        for o in head.objects
    )


def read_label_studio(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and `label` or `labels`.

    Where a project asks several questions of the same form, each has a field of its own name, as
    has every choice of the short form. The first annotation that was not cancelled counts; tasks
    without one are read as unlabelled texts.
    """
    names = _controls(source)
    if len(names["choices"]) == 1:
        return one_or_many(lambda source: _rows(source, names), source)
    return _rows(source, names)


def _rows(source: Source, names: Mapping[str, dict[str, None]]) -> Iterator[Row]:
    for row in read_objects(source):
        yield from source.attempt(row, _fields, row, source, names)


def _controls(source: Source) -> dict[str, dict[str, None]]:
    """Return the names of the questions of each form."""
    names: dict[str, dict[str, None]] = {"labels": {}, "choices": {}}
    with suppress(DataError):
        quiet = source.quiet()
        for row in read_objects(quiet):
            with suppress(DataError):
                for kind, name, _ in _answers(row, quiet):
                    names[kind][name] = None
    return names


def _fields(row: Row, source: Source, names: Mapping[str, dict[str, None]]) -> dict[str, Any]:
    fields = _text(row, source)
    for kind, name, value in _answers(row, source):
        if kind == "labels":
            field = "entities" if len(names["labels"]) == 1 else name
            fields[field] = [*fields.get(field, ()), *value]
        elif len(names["choices"]) == 1:
            fields["labels"] = value
        else:
            fields[name] = value[0] if len(value) == 1 else value
    if _is_annotated(row) and len(names["labels"]) == 1:
        # An annotated text without spans has no entities, rather than no label.
        fields.setdefault("entities", [])
    return fields


def _text(row: Row, source: Source) -> dict[str, Any]:
    data = row.fields.get("data")
    if type(data) is not dict:
        answers = {name for _, name, _ in _answers(row, source.quiet())}
        return {
            name: value
            for name, value in row.fields.items()
            if name not in answers and name not in _MIN_FIELDS
        }
    if "text" in data or any(name in data for name in source.layout.names):
        return dict(data)
    texts = [name for name, value in data.items() if type(value) is str]
    if len(texts) == 1:
        return {"text": data[texts[0]]}
    raise DataError(
        f"`data` has no `text`, only: {listing(data)}",
        where=row.where,
        expected="one text",
        fix="Name it: "
        + option("--text-field NAME", '`layout=Layout(names={NAME: "text"})`')
        + ".",
    )


def _is_annotated(row: Row) -> bool:
    return bool(_annotation(row)) or "data" not in row.fields


def _annotation(row: Row) -> dict[str, Any] | None:
    annotations = row.fields.get("annotations", row.fields.get("completions"))
    sound = [a for a in annotations or () if type(a) is dict and not a.get("was_cancelled")]
    return sound[0] if sound else None


def _answers(row: Row, source: Source) -> Iterator[tuple[str, str, Any]]:
    """Yield (form, question, answer): spans for `labels`, a list of classes for `choices`."""
    if "data" not in row.fields:
        yield from _short_answers(row)
        return
    annotation = _annotation(row)
    if annotation is None:
        source.pass_over("tasks without an annotation (their texts are read)")
        return
    more = len([a for a in row.fields.get("annotations") or () if type(a) is dict]) - 1
    if more:
        source.pass_over("second and further annotations of a task", more)
    result = annotation.get("result")
    for item in result if type(result) is list else ():
        kind, value = (item.get("type"), item.get("value")) if type(item) is dict else (None, None)
        if kind == "labels" and type(value) is dict:
            yield "labels", str(item.get("from_name")), [_span(value, row)]
        elif kind == "choices" and type(value) is dict:
            choices = as_list(value.get("choices"), "choices", row.where)
            yield "choices", str(item.get("from_name")), choices
        else:
            source.pass_over(f"annotations of the type {shorten(kind)}")


def _short_answers(row: Row) -> Iterator[tuple[str, str, Any]]:
    for name, value in row.fields.items():
        if name in ("id", "text", *_MIN_FIELDS):
            continue
        if type(value) is list and value and all(type(v) is dict and "labels" in v for v in value):
            yield "labels", name, [_span(item, row) for item in value]
        elif type(value) is dict and "choices" in value:
            yield "choices", name, as_list(value["choices"], "choices", row.where)


def _span(value: Mapping[str, Any], row: Row) -> dict[str, Any]:
    labels = value.get("labels")
    if type(labels) is not list or len(labels) != 1:
        raise DataError(
            f"a span has the labels {shorten(labels)}", where=row.where, expected="one label a span"
        )
    span = entity(value.get("start"), value.get("end"), labels[0])  # type: ignore[arg-type]
    return {**span, **({"text": value["text"]} if "text" in value else {})}
