"""Label Studio's exports JSON, JSON_MIN, CSV and TSV; its CoNLL export is CoNLL columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from manyheads.data.readers.annotated import as_list, entity
from manyheads.data.readers.delimited import read_csv, read_tsv
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_objects
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, listing, option, shorten

_MIN_FIELDS = ("annotator", "annotation_id", "created_at", "updated_at", "lead_time")
_TOLD_BY = {"annotation_id", "lead_time"}
"""Fields of the short form that no other tool writes."""

_SPACE = re.compile(r"(?:\\[nr]|\s)+")
"""White space, and how the text of a span has line breaks: as a backslash and a letter."""

Read = Callable[[Source], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class _Questions:
    """The questions of a file by name; those of classes with the most classes of one answer."""

    labels: dict[str, None] = field(default_factory=dict)
    choices: dict[str, int] = field(default_factory=dict)


def is_label_studio(head: Head) -> bool:
    """Return whether the records are tasks with annotations, in the long or the short form."""
    return bool(head.objects) and all(
        (type(o.get("data")) is dict and ("annotations" in o or "predictions" in o))
        or o.keys() >= _TOLD_BY
        for o in head.objects
    )


def is_label_studio_table(head: Head) -> bool:
    """Return whether a header has the columns of the short form."""
    return {*(head.lines[0] if head.lines else "").split(_separator(head.ending))} >= _TOLD_BY


def read_label_studio(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and `label` or `labels`.

    Where a project asks several questions of the same form, each has a field of its own name, as
    has every choice of the short form. If no text has several classes of a question, it is read as
    one of a single class, unless a task reads lists (`Layout.lists`). Of the annotations that were
    not cancelled, the ground truth counts, or else the first; tasks without one are read as
    unlabelled texts.
    """
    yield from _rows(source, read_objects)


def read_label_studio_table(source: Source) -> Iterator[Row]:
    """Yield the same of the short form as CSV or TSV, whose cells hold answers as JSON."""
    yield from _rows(source, _read_table)


def _rows(source: Source, read: Read) -> Iterator[Row]:
    questions = _questions(source.quiet(), read)
    for row in read(source):
        yield from source.attempt(row, _record, row, source, questions)


def _record(row: Row, source: Source, questions: _Questions) -> dict[str, Any]:
    try:
        return _fields(row, source, questions)
    except DataError:
        if source.needs_labels:
            raise
        return _text(row, source, questions)


def _questions(source: Source, read: Read) -> _Questions:
    questions = _Questions()
    with suppress(DataError):
        for row in read(source):
            with suppress(DataError):
                for kind, name, value in _answers(row, source, questions):
                    if kind == "labels":
                        questions.labels[name] = None
                    else:
                        most = questions.choices.get(name, 0)
                        questions.choices[name] = max(most, len(value))
    return questions


def _separator(ending: str) -> str:
    return "\t" if ending == ".tsv" else ","


def _read_table(source: Source) -> Iterator[Row]:
    is_tsv = source.path.name.lower().endswith((".tsv", ".tsv.gz"))
    for row in (read_tsv if is_tsv else read_csv)(source):
        yield replace(row, fields={name: _cell(cell) for name, cell in row.fields.items()})


def _cell(cell: Any) -> Any:
    """Return the answer that a cell holds as a JSON object, or the cell."""
    if type(cell) is str and cell.startswith('{"choices":'):
        with suppress(ValueError, RecursionError):
            return json.loads(cell)
    return cell


def _fields(row: Row, source: Source, questions: _Questions) -> dict[str, Any]:
    fields = _text(row, source, questions)
    for kind, name, value in _answers(row, source, questions):
        if kind == "labels":
            key = "entities" if len(questions.labels) == 1 else name
            text = fields.get(source.layout.theirs("text"))
            fields[key] = [*fields.get(key, ()), *(_checked(span, text) for span in value)]
            continue
        has_name = len(questions.choices) > 1 or source.layout.keeps_lists(name)
        is_listed = source.layout.keeps_lists(name if has_name else "labels")
        several = questions.choices[name] > 1 or is_listed
        key = name if has_name else "labels" if several else "label"
        fields[key] = value if several else next(iter(value), None)
    if _is_annotated(row):
        # An annotated text without spans has no entities, rather than no label.
        for name in questions.labels:
            fields.setdefault("entities" if len(questions.labels) == 1 else name, [])
    return fields


def _text(row: Row, source: Source, questions: _Questions) -> dict[str, Any]:
    data = row.fields.get("data")
    if type(data) is not dict:
        others = {*questions.labels, *questions.choices, *_MIN_FIELDS}
        return {name: value for name, value in row.fields.items() if name not in others}
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
    # In the short form, `annotations` is a field of the user's own.
    return "data" not in row.fields or bool(_annotation(row))


def _annotation(row: Row) -> dict[str, Any] | None:
    """Return the annotation that counts: the ground truth, or else the first not cancelled."""
    valid = [a for a in _annotations(row) if not a.get("was_cancelled")]
    return next((a for a in valid if a.get("ground_truth")), valid[0] if valid else None)


def _pass_over_others(row: Row, chosen: dict[str, Any] | None, source: Source) -> None:
    """Count the annotations of a task that are not read."""
    others = [a for a in _annotations(row) if a is not chosen]
    cancelled = sum(bool(a.get("was_cancelled")) for a in others)
    source.pass_over("cancelled annotations", cancelled)
    of_truth = chosen is not None and chosen.get("ground_truth")
    source.pass_over(
        "annotations of a task beside its ground truth"
        if of_truth
        else "second and further annotations of a task",
        len(others) - cancelled,
    )


def _annotations(row: Row) -> list[dict[str, Any]]:
    key = "annotations" if "annotations" in row.fields else "completions"
    return [a for a in _list(row.fields.get(key), key, row) if type(a) is dict]


def _list(value: Any, key: str, row: Row) -> list[Any]:
    """Return the value of a key, which may be missing.

    Raises:
        DataError: it is no list.
    """
    return [] if value is None else as_list(value, key, row.where)


def _answers(
    row: Row, source: Source, questions: _Questions
) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield (form, question, answer): spans for `labels`, a list of classes for `choices`."""
    if "data" not in row.fields:
        yield from _short_answers(row, source, questions)
        return
    annotation = _annotation(row)
    _pass_over_others(row, annotation, source)
    if annotation is None:
        if source.needs_labels:
            source.pass_over("tasks without an annotation (their texts are read)")
        return
    for item in _list(annotation.get("result"), "result", row):
        kind, value = (item.get("type"), item.get("value")) if type(item) is dict else (None, None)
        if kind == "labels" and type(value) is dict:
            yield "labels", str(item.get("from_name")), [_span(value, row)]
        elif kind == "choices" and type(value) is dict:
            if "start" in value:
                source.pass_over("choices about a part of a text")
                continue
            choices = as_list(value.get("choices"), "choices", row.where)
            yield "choices", str(item.get("from_name")), choices
        else:
            source.pass_over(f"annotations of the type {shorten(kind)}")


def _short_answers(
    row: Row, source: Source, questions: _Questions
) -> Iterator[tuple[str, str, list[Any]]]:
    for name, value in row.fields.items():
        if name in ("id", "text", *_MIN_FIELDS):
            continue
        if type(value) is list and value and all(type(v) is dict and "labels" in v for v in value):
            yield "labels", name, [_span(item, row) for item in value]
        elif type(value) is dict and "choices" in value:
            yield "choices", name, as_list(value["choices"], "choices", row.where)
        elif type(value) is str and (name in questions.choices or source.layout.keeps_lists(name)):
            # A single one of several choices is written without a list.
            yield "choices", name, [value]


def _span(value: Mapping[str, Any], row: Row) -> dict[str, Any]:
    labels = value.get("labels")
    if type(labels) is not list or len(labels) != 1:
        raise DataError(
            f"a span has the labels {shorten(labels)}", where=row.where, expected="one label a span"
        )
    span = entity(value.get("start"), value.get("end"), labels[0])  # type: ignore[arg-type]
    return {**span, **({"text": value["text"]} if "text" in value else {})}


def _checked(span: dict[str, Any], text: Any) -> dict[str, Any]:
    """Return a span without its text if that differs from the covered one by white space alone.

    Label Studio writes the text as it is shown, in which white space is collapsed.
    """
    start, end, shown = span["start"], span["end"], span.get("text")
    if not (type(start) is type(end) is int and type(shown) is type(text) is str):
        return span
    covered = text[start:end]
    if shown == covered or _SPACE.sub(" ", shown) != _SPACE.sub(" ", covered):
        return span
    return {name: value for name, value in span.items() if name != "text"}
