"""Labels that are likely wrong: lines to review, tasks for a labelling tool, corrected records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from manyheads.config import TaskConfig
from manyheads.data.convert import label_studio_task, without_nulls
from manyheads.data.json_lines import json_line, json_list
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records import Record, RecordParser, labelled_field
from manyheads.errors import DataError, counted, shorten
from manyheads.storage import atomic_file
from manyheads.tasks import Span, kind_of
from manyheads.tasks.html import table
from manyheads.tasks.label_values import words_between_spaces, words_lack_labels
from manyheads.tasks.labels import to_io, unlabelled_words

COLUMNS = ("where", "task", "error", "label", "proposal", "text")
"""The columns of a table of suspects, before the score."""

_KEYS = {"record": int, "task": str, "text": str}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A label that is likely wrong, and what it should probably be."""

    record: int
    """The record's number in its file, from 1."""
    where: str
    """The record's file and line."""
    text: str
    task: str
    error: str
    """`wrong class`; for entities `wrong type`, `wrong border`, `wrong type and border`; for
    entities and multilabel classes `missing` and `superfluous`."""
    score: float
    """The log odds that the label is wrong, if 5 % of all labels are."""
    given: Any
    """The class, or the entity as `{"start", "end", "label"}`; None if one is missing."""
    proposed: Any
    """What it should probably be; None if it is superfluous."""

    def to_json(self) -> dict[str, Any]:
        """Return the suspect as JSON values."""
        return asdict(self)

    def in_words(self, value: Any) -> str:
        """Return `given` or `proposed` in readable form."""
        if isinstance(value, Mapping):
            return f"{self.text[value['start'] : value['end']]} ({value['label']})"
        return "(none)" if value is None else str(value)


@dataclass(frozen=True)
class Suspects:
    """The labels of a file that are likely wrong, the most likely first."""

    data: str
    records: int
    tasks: Mapping[str, str]
    """The kind of each task that was checked."""
    suspects: tuple[Suspect, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What was not checked, and why."""
    seconds: float = 0.0
    """The duration of the search."""

    def __len__(self) -> int:
        return len(self.suspects)

    def __iter__(self) -> Iterator[Suspect]:
        return iter(self.suspects)

    @property
    def title(self) -> str:
        """The numbers of suspects and records, as the heading of a table."""
        return f"{counted(len(self), 'label')} likely wrong in {counted(self.records, 'record')}"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: a row for each suspect."""
        rows = [
            [one.where, one.task, one.error, one.in_words(one.given), one.in_words(one.proposed),
             one.text, f"{one.score:.2f}"]
            for one in self.suspects
        ]  # fmt: skip
        return table(self.title, [*COLUMNS, "score"], rows)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "data": self.data,
            "records": self.records,
            "tasks": dict(self.tasks),
            "notes": list(self.notes),
            "suspects": [suspect.to_json() for suspect in self.suspects],
        }


def write_suspects(suspects: Iterable[Suspect], path: str | os.PathLike[str]) -> None:
    """Write suspects as JSON lines, which `read_suspects` reads after they have been reviewed."""
    with atomic_file(Path(path)) as stream:
        stream.writelines(json_line(suspect.to_json()) for suspect in suspects)


def read_suspects(path: str | os.PathLike[str]) -> list[Suspect]:
    """Read reviewed lines. Labels whose lines were removed stay unchanged in the data.

    Raises:
        DataError: a line is not a suspect.
    """
    found = []
    for row in read_rows(path, layout=Layout(format="jsonl")):
        values = row.fields
        wrong = [name for name, kind in _KEYS.items() if type(values.get(name)) is not kind]
        wrong += ["record"] if not wrong and values["record"] < 1 else []
        wrong += ["score"] if type(values.get("score", 0.0)) not in (int, float) else []
        if wrong:
            raise DataError(
                f"`{wrong[0]}` is {shorten(values.get(wrong[0]))}",
                where=row.where,
                expected="a line of `manyheads data suspects`: `record`, `text`, `task`, `given` "
                "and `proposed`",
                fix="Keep all fields of a line; change only `proposed`.",
            )
        found.append(
            Suspect(
                values["record"], row.where, values["text"], values["task"],
                str(values.get("error", "")), float(values.get("score", 0.0)),
                values.get("given"), values.get("proposed"),
            )
        )  # fmt: skip
    return found


def write_fixed(
    source: str,
    target: str | os.PathLike[str],
    suspects: Sequence[Suspect],
    tasks: Mapping[str, TaskConfig],
    layout: Layout | None = None,
) -> int:
    """Write a file's records as JSON lines, with the proposals in place of the labels.

    Args:
        source: the file, which is not changed.
        target: the new file, which appears when it is complete.
        suspects: the proposals.
        tasks: the tasks of the file.
        layout: how the file is laid out.

    Returns:
        The number of records that changed.

    Raises:
        DataError: a proposal does not fit the file.
    """
    by_record = _by_record(suspects)
    parse = RecordParser(tasks, {})
    layout = (layout or Layout()).reading(tasks)
    number = changed = 0
    with atomic_file(Path(target)) as stream:
        for number, row in enumerate(read_rows(source, layout=layout), 1):
            fields = without_nulls(row)
            here = by_record.pop(number, ())
            if here:
                fields.update(_corrected(row, parse, here, tasks))
                changed += 1
            stream.write(json_line(fields, row.where))
        for left in by_record.values():
            raise DataError(
                f"record {left[0].record:,} should be changed, but {source} has "
                f"{counted(number, 'record')}",
                where=left[0].where,
                expected="suspects of this file",
                fix="Name the file in which they were found.",
            )
    return changed


def _corrected(
    row: Row, parse: RecordParser, suspects: Sequence[Suspect], tasks: Mapping[str, TaskConfig]
) -> dict[str, Any]:
    """Return the changed label fields of a row.

    Raises:
        DataError: a proposal does not fit the record.
    """
    record = parse(row)
    labels = dict(record.labels)
    for suspect in suspects:
        if suspect.text != record.text or suspect.task not in labels:
            found = "another text" if suspect.text != record.text else f"no {suspect.task!r} label"
            raise DataError(
                f"record {suspect.record:,} of {row.source} has {found}",
                where=suspect.where,
                expected="the record as it was when the suspects were found",
                fix="Search this file for suspects again.",
            )
        kind = kind_of(tasks[suspect.task].kind)
        try:
            label = kind.corrected(labels[suspect.task], suspect.given, suspect.proposed)
        except DataError as error:
            raise DataError(
                error.found, expected=error.expected, fix=error.fix, where=suspect.where
            ) from None
        labels[suspect.task] = label
    fields = {}
    try:
        for name in {suspect.task for suspect in suspects}:
            field_name = labelled_field(row, name, tasks[name])
            assert field_name is not None
            fields[field_name] = _field_value(labels[name], record, tasks[name])
        parse(replace(row, fields={**row.fields, **fields}))
    except DataError as error:
        raise DataError(
            f"the proposal does not fit record {suspects[0].record:,} of {row.source}: "
            f"{error.found}",
            where=suspects[0].where, expected=error.expected, fix=error.fix,
        ) from None  # fmt: skip
    return fields


def _field_value(label: Any, record: Record, task: TaskConfig) -> Any:
    """Return a label as the value of a record's field, in the scheme of the task's tags."""
    kind, tokens, gaps = kind_of(task.kind), record.tokens, unlabelled_words(label)
    if gaps and tokens is None:
        tokens = words_between_spaces(record.text)
    value = kind.field_value(label, tokens)
    if task.scheme != "io" or tokens is None or any(isinstance(one, dict) for one in value):
        return value
    tags = to_io(value)
    if tags is None and gaps:
        raise words_lack_labels()
    return kind.field_value(label, None) if tags is None else tags


def write_label_studio(
    source: str,
    target: str | os.PathLike[str],
    suspects: Sequence[Suspect],
    tasks: Mapping[str, TaskConfig],
    layout: Layout | None = None,
) -> int:
    """Write the records with suspects for Label Studio, the most suspect first.

    The labels are annotations; the labels with the proposals in place are predictions.

    Returns:
        The number of records.
    """
    by_record = _by_record(suspects)
    parse = RecordParser(tasks, {})
    layout = (layout or Layout()).reading(tasks)
    written: dict[int, dict[str, Any]] = {}
    for number, row in enumerate(read_rows(source, layout=layout), 1):
        if number in by_record:
            record = parse(row)
            here = by_record[number]
            labels = dict(record.labels)
            for one in here:
                kind = kind_of(tasks[one.task].kind)
                labels[one.task] = kind.corrected(labels[one.task], one.given, one.proposed)
            score = max(one.score for one in here)
            written[number] = label_studio_task(
                record.text, _parts(record.labels, tasks), _parts(labels, tasks), score
            )
    with atomic_file(Path(target)) as stream:
        stream.writelines(json_list(json_line(written[number]) for number in by_record))
    return len(written)


def _by_record(suspects: Iterable[Suspect]) -> dict[int, list[Suspect]]:
    found: dict[int, list[Suspect]] = {}
    for suspect in suspects:
        found.setdefault(suspect.record, []).append(suspect)
    return found


def _parts(
    labels: Mapping[str, Any], tasks: Mapping[str, TaskConfig]
) -> tuple[list[Span], list[str]]:
    """Return the entities and the classes of all tasks of a record."""
    spans: list[Span] = []
    classes: list[str] = []
    for name, label in labels.items():
        value = kind_of(tasks[name].kind).field_value(label, None)
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, dict):
                spans.append(Span(item["start"], item["end"], item["label"]))
            else:
                classes.append(str(item))
    return spans, classes
