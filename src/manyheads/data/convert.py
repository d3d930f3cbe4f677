"""Convert records of any format to JSON lines, or for a labelling tool with predictions."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from manyheads.data.infer_tasks import InferredTask, TaskFinder
from manyheads.data.json_lines import json_line, json_list
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records.record import TEXT_FIELDS, read_text
from manyheads.data.refused_labels import RefusedLabels
from manyheads.errors import DataError, RequestError, listing, nearest, option
from manyheads.storage import atomic_file
from manyheads.tasks import Span, kind_of
from manyheads.tasks.label_values import SECOND_TEXT, NamedTags, read_tags
from manyheads.tasks.labels import (
    PartlyLabelled,
    Scheme,
    scheme_of,
    spans_of,
    unlabelled_words,
)

TOOLS = ("manyheads", "doccano", "label-studio")

_ENTITIES, _CLASSES = ("ner", "entities"), ("label", "labels")
"""The fields that are written for a tool; of each, the first one that a record has."""

_GAPS = "marks of words without a label, which are outside entities for a tool"


class Answer(Protocol):
    """A prediction for one text, as `Predictor.predict_stream` yields them."""

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""


Predict = Callable[[Iterable[str]], Iterable[Answer]]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = "manyheads",
    layout: Layout | None = None,
    predict: Predict | None = None,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> int:
    """Write the records of a file of any format as JSON lines, and return their number.

    Args:
        source: data that `read_rows` reads.
        target: the file, which appears when it is complete. For Label Studio it is a JSON list.
        to: one of `TOOLS`.
        layout: the layout of the source, as far as the user states it.
        predict: predicts for texts; for a tool, the predictions are written beside the labels as
            suggestions (Label Studio), or in place of missing labels (doccano).
        on_unread: receives the counts, by kind, of contents that records cannot hold, and for a
            tool, of its fields that are not written, and of words without a label beside others
            that have one.
        warn: receives a message if training would refuse labels in the usual fields of records in
            Manyheads' own format, and if labels are in fields that are not written for a tool;
            without it, they are not read.

    Raises:
        DataError: the source cannot be read, or a record cannot be written for the tool, such as a
            pair of texts.
        RequestError: there is no such tool, or predictions are requested without one.
    """
    _check_tool(to, predicts=predict is not None)
    layout = layout or Layout()
    rows = read_rows(source, layout=layout, on_unread=on_unread)
    refused = RefusedLabels() if warn is not None and to == "manyheads" else None
    unwritten = _Unwritten(layout, seeks_labels=warn is not None)
    lines = (
        _ours(rows, refused)
        if to == "manyheads"
        else _for_tool(_single_texts(rows, to, layout), to, predict, unwritten)
    )
    is_list = to == "label-studio"
    count = 0
    with atomic_file(Path(target)) as file:
        for line in json_list(lines) if is_list else lines:
            file.write(line)
            count += 1
    if on_unread is not None and unwritten.counts:
        on_unread(unwritten.counts)
    if warn is not None:
        message = (
            unwritten.message(os.fspath(source))
            if refused is None
            else refused.message(os.fspath(source), os.fspath(target))
        )
        if message:
            warn(message)
    return count - is_list


def _check_tool(to: str, *, predicts: bool) -> None:
    """Refuse unknown tools, and predictions where labels are written.

    Raises:
        RequestError: it is one of these.
    """
    if to not in TOOLS:
        raise RequestError(
            f"there is no tool {to!r}{nearest(to, TOOLS)}",
            expected=f"one of: {listing(TOOLS)}",
        )
    if predicts and to == "manyheads":
        raise RequestError(
            "predictions cannot be written as labels in Manyheads' own format",
            expected=option(
                "--to doccano or --to label-studio", '`to="doccano"` or `to="label-studio"`'
            ),
            fix=option("`manyheads predict --format jsonl`", "`predict_file`")
            + " writes predictions.",
        )


def _ours(rows: Iterator[Row], refused: RefusedLabels | None) -> Iterator[bytes]:
    for row in rows:
        if refused is None:
            read_text(row)
        else:
            refused.add(row)
        yield json_line(without_nulls(row), row.where)


def without_nulls(row: Row) -> dict[str, Any]:
    """Return the fields of a row that are not null."""
    return {name: value for name, value in row.fields.items() if value is not None}


def _for_tool(
    rows: Iterator[Row], tool: str, predict: Predict | None, unwritten: _Unwritten
) -> Iterator[bytes]:
    write = _doccano if tool == "doccano" else _label_studio
    for row, answer in _answered(rows, predict):
        text, spans, classes = entities_and_classes(row)
        unwritten.add(row, spans)
        yield json_line(write(text, spans, classes, answer), row.where)


def _single_texts(rows: Iterator[Row], tool: str, layout: Layout) -> Iterator[Row]:
    for row in rows:
        if row.fields.get(SECOND_TEXT) is not None:
            raise DataError(
                f"the record is a pair, with a second text in `{SECOND_TEXT}`",
                where=row.where,
                expected=f"one text, which is what a record of {tool} holds",
                fix=f"To write the first texts alone, {_without_pairs(layout)}.",
            )
        yield row


def _without_pairs(layout: Layout) -> str:
    """Return how to read the first text of pairs alone."""
    theirs = layout.theirs(SECOND_TEXT)
    if theirs != SECOND_TEXT:
        return f"do not read `{theirs}` as `{SECOND_TEXT}`"
    named = option(
        f"--map {SECOND_TEXT}=second",
        f"`layout=Layout(names={_json({**layout.names, SECOND_TEXT: 'second'})})`",
    )
    numbered = option("--map 1=text", '`layout=Layout(names={"1": "text"})`')
    return (
        f"give the other field another name: {named}; in a table without a header, name the first "
        f"column alone: {numbered}"
    )


class _Unwritten:
    """What is not written for a tool: fields of records, with their labels, and gaps in tags."""

    def __init__(self, layout: Layout, *, seeks_labels: bool) -> None:
        self.counts: Counter[str] = Counter()
        """The records that have each of the fields, and the words without a tag."""
        self._layout = layout
        self._finder = TaskFinder() if seeks_labels else None
        self._written: set[str] = set()

    def add(self, row: Row, spans: Sequence[Span] | None) -> None:
        """Count the fields of a row, and the words without a tag beside its entities."""
        slots = (_filled(row, _ENTITIES), _filled(row, _CLASSES))
        written = {name for name in slots if name is not None}
        self._written |= written
        fields = {
            name: value
            for name, value in without_nulls(row).items()
            if name not in written and name not in TEXT_FIELDS
        }
        self.counts.update(f"the field `{name}`" for name in fields)
        if gaps := unlabelled_words(spans):
            self.counts[_GAPS] += len(gaps)
        if fields and self._finder is not None:
            self._finder.add(replace(row, fields=fields), *read_text(row))

    def message(self, source: str) -> str:
        """Return a message about the labels in these fields; empty if there are none."""
        if self._finder is None:
            return ""
        tasks = self._finder.tasks([source], on_error=lambda error: None).tasks
        found = [task for task in tasks if kind_of(task.kind).sought_as is not None]
        if not found:
            return ""
        lost, classes, entities = (
            listing(f"`{name}`" for name in names)
            for names in ([task.values.name for task in found], _CLASSES, _ENTITIES)
        )
        return (
            f"the labels in {lost} are not written: for a tool, the classes are those of "
            f"{classes}, and the entities those of {entities}{self._advice(found)}"
        )

    def _advice(self, found: Sequence[InferredTask]) -> str:
        """Return the options that write labels where records have none; at most one field each."""
        names: dict[str, str] = {}
        for slot in (_CLASSES, _ENTITIES):
            fields = [(task.values.name, ours) for task in found if (ours := _field(task)) in slot]
            if fields and self._written.isdisjoint(slot):
                name, ours = fields[0]
                names[self._layout.theirs(name)] = ours
        if not names:
            return ""
        mapped = option(
            " ".join(f"--map {shlex.quote(f'{old}={new}')}" for old, new in names.items()),
            f"`layout=Layout(names={_json({**self._layout.names, **names})})`",
        )
        return f"; name one field for each to write it: {mapped}"


def _field(task: InferredTask) -> str | None:
    """Return the field in which the labels of a task can be written; None if there is none."""
    values, kind = task.values, kind_of(task.kind)
    if kind.fields[0] not in _ENTITIES:
        return kind.fields[0]
    if values.spans:
        return "entities"
    tags = " ".join(values.distinct).split() if values.texts else values.distinct
    try:
        return "ner" if scheme_of(tags) is not Scheme.PLAIN else None
    except DataError:
        return None


def _json(names: Mapping[str, str]) -> str:
    return json.dumps(names, ensure_ascii=False)


def _filled(row: Row, names: Sequence[str]) -> str | None:
    """Return the first of some fields that a row has."""
    return next((name for name in names if row.fields.get(name) is not None), None)


def _answered(
    rows: Iterator[Row], predict: Predict | None
) -> Iterator[tuple[Row, dict[str, Any] | None]]:
    """Yield each row with its prediction; at most one chunk of rows waits for predictions."""
    if predict is None:
        for row in rows:
            yield row, None
        return
    waiting: list[Row] = []

    def texts() -> Iterator[str]:
        for row in rows:
            waiting.append(row)
            yield read_text(row)[0]

    for answer in predict(texts()):
        yield waiting.pop(0), answer.to_json()


def entities_and_classes(row: Row) -> tuple[str, tuple[Span, ...] | None, list[str] | None]:
    """Return a row's text, its entities and its classes; None for those it does not have.

    Tags of some words alone are a `PartlyLabelled`; if no word has one, there are no entities.

    Raises:
        DataError: labels that the tool cannot show.
    """
    text, tokens = read_text(row)
    fields = row.fields
    spans: tuple[Span, ...] | None = None
    field = _filled(row, _ENTITIES)
    if field is not None:
        raw = read_tags(fields[field], field, text, tokens, row.where)
        if isinstance(raw, NamedTags):
            if scheme_of(raw.tags) is Scheme.PLAIN:
                raise DataError(
                    f"`{field}` has a class for each word, and no entities",
                    where=row.where,
                    expected="tags such as B-PER and O, or entities",
                )
            if raw.tags or not raw.unlabelled:
                spans = PartlyLabelled(spans_of(raw.tags, raw.words), raw.unlabelled)
        elif isinstance(raw, tuple):
            spans = raw
        else:
            raise DataError(
                f"`{field}` has indices of tags", where=row.where, expected="names of tags"
            )
    field = _filled(row, _CLASSES)
    if field is None:
        return text, spans, None
    # One class may be written without a list, as in a cell of a table.
    classes = fields[field] if isinstance(fields[field], list) else [fields[field]]
    return text, spans, [str(name) for name in classes]


def _suggested(answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the entities and the classes of a prediction."""
    entities: list[dict[str, Any]] = []
    classes: list[dict[str, Any]] = []
    for result in answer.values():
        if isinstance(result, dict) and "entities" in result:
            entities += result["entities"]
        elif isinstance(result, dict) and result.get("label") is not None:
            classes.append(result)
        elif isinstance(result, dict) and "labels" in result:
            classes += [item for item in result["labels"] if isinstance(item, dict)]
    return entities, classes


def _doccano(
    text: str,
    spans: tuple[Span, ...] | None,
    classes: list[str] | None,
    answer: Mapping[str, Any] | None,
) -> dict[str, Any]:
    entities, suggested = _suggested(answer or {})
    if spans is None and entities:
        spans = tuple(Span(e["start"], e["end"], e["label"]) for e in entities)
    if classes is None and suggested:
        classes = [item["label"] for item in suggested]
    value: dict[str, Any] = {"text": text}
    if spans is not None:
        value["entities"] = [[span.start, span.end, span.label] for span in spans]
    if classes is not None and spans is not None:
        # As in doccano's own files. It shows the format where all entities are empty.
        value |= {"cats": classes, "Comments": []}
    elif classes is not None:
        value["label"] = classes
    return value


def _label_studio(
    text: str,
    spans: tuple[Span, ...] | None,
    classes: list[str] | None,
    answer: Mapping[str, Any] | None,
) -> dict[str, Any]:
    task: dict[str, Any] = {"data": {"text": text}}
    if spans is not None or classes is not None:
        found = [_labels_result(text, s.start, s.end, s.label) for s in spans or ()]
        task["annotations"] = [{"result": found + _choices_result(classes or [])}]
    if answer is not None:
        entities, suggested = _suggested(answer)
        result = [
            {**_labels_result(text, e["start"], e["end"], e["label"]), "score": e["score"]}
            for e in entities
        ]
        scores = [item["score"] for item in (*entities, *suggested)]
        names = [item["label"] for item in suggested]
        task["predictions"] = [
            {
                "model_version": "manyheads",
                "score": min(scores, default=0.0),
                "result": result + _choices_result(names),
            }
        ]
    return task


def label_studio_task(
    text: str,
    labels: tuple[Sequence[Span], Sequence[str]],
    proposed: tuple[Sequence[Span], Sequence[str]],
    score: float,
) -> dict[str, Any]:
    """Return a task with its labels as annotation and proposed ones as prediction.

    Args:
        text: the text.
        labels: the entities and the classes.
        proposed: the proposed entities and classes.
        score: the proposal's score, by which Label Studio sorts.
    """

    def result(part: tuple[Sequence[Span], Sequence[str]]) -> list[dict[str, Any]]:
        found = [_labels_result(text, s.start, s.end, s.label) for s in part[0]]
        return found + _choices_result(list(part[1]))

    return {
        "data": {"text": text},
        "annotations": [{"result": result(labels)}],
        "predictions": [
            {"model_version": "manyheads", "score": round(score, 4), "result": result(proposed)}
        ],
    }


def _labels_result(text: str, start: int, end: int, label: str) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": text[start:end], "labels": [label]}
    return {"from_name": "label", "to_name": "text", "type": "labels", "value": value}


def _choices_result(names: list[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    value = {"choices": names}
    return [{"from_name": "class", "to_name": "text", "type": "choices", "value": value}]
