"""Convert records of any format to JSON lines, or for a labelling tool with predictions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from manyheads.data.json_lines import json_line, json_list
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records.record import read_text
from manyheads.data.refused_labels import RefusedLabels
from manyheads.errors import DataError, RequestError, listing, nearest, option
from manyheads.storage import atomic_file
from manyheads.tasks import Span
from manyheads.tasks.label_values import NamedTags, read_tags
from manyheads.tasks.labels import Scheme, scheme_of, spans_of

TOOLS = ("manyheads", "doccano", "label-studio")


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
        on_unread: receives the counts, by kind, of contents that records cannot hold.
        warn: receives a message if training would refuse labels in the usual fields of records in
            Manyheads' own format; without it, labels are not read.

    Raises:
        DataError: the source cannot be read, or a record cannot be written for the tool.
        RequestError: there is no such tool, or predictions are requested without one.
    """
    if to not in TOOLS:
        raise RequestError(
            f"there is no tool {to!r}{nearest(to, TOOLS)}",
            expected=f"one of: {listing(TOOLS)}",
        )
    if predict is not None and to == "manyheads":
        raise RequestError(
            "predictions cannot be written as labels in Manyheads' own format",
            expected=option(
                "--to doccano or --to label-studio", '`to="doccano"` or `to="label-studio"`'
            ),
            fix=option("`manyheads predict --format jsonl`", "`predict_file`")
            + " writes predictions.",
        )
    rows = read_rows(source, layout=layout, on_unread=on_unread)
    refused = RefusedLabels() if warn is not None and to == "manyheads" else None
    lines = _ours(rows, refused) if to == "manyheads" else _for_tool(rows, to, predict)
    is_list = to == "label-studio"
    count = 0
    with atomic_file(Path(target)) as file:
        for line in json_list(lines) if is_list else lines:
            file.write(line)
            count += 1
    message = "" if refused is None else refused.message(os.fspath(source), os.fspath(target))
    if message and warn is not None:
        warn(message)
    return count - is_list


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


def _for_tool(rows: Iterator[Row], tool: str, predict: Predict | None) -> Iterator[bytes]:
    write = _doccano if tool == "doccano" else _label_studio
    for row, answer in _answered(rows, predict):
        text, spans, classes = entities_and_classes(row)
        yield json_line(write(text, spans, classes, answer), row.where)


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

    Raises:
        DataError: labels that the tool cannot show.
    """
    text, tokens = read_text(row)
    fields = row.fields
    spans: tuple[Span, ...] | None = None
    field = next((name for name in ("ner", "entities") if fields.get(name) is not None), None)
    if field is not None:
        raw = read_tags(fields[field], field, text, tokens, row.where)
        if isinstance(raw, NamedTags):
            if scheme_of(raw.tags) is Scheme.PLAIN:
                raise DataError(
                    f"`{field}` has a class for each word, and no entities",
                    where=row.where,
                    expected="tags such as B-PER and O, or entities",
                )
            spans = spans_of(raw.tags, raw.words)
        elif isinstance(raw, tuple):
            spans = raw
        else:
            raise DataError(
                f"`{field}` has indices of tags", where=row.where, expected="names of tags"
            )
    label, labels = fields.get("label"), fields.get("labels")
    if label is not None:
        return text, spans, [str(label)]
    return text, spans, None if labels is None else [str(name) for name in labels]


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
    if classes is not None:
        value["cats" if spans is not None else "label"] = classes
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
