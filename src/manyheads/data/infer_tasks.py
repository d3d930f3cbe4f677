"""The tasks of labelled files, worked out field by field from the values of their records."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manyheads.config import TaskConfig
from manyheads.config.sections.mixing import TAKEN_NAMES
from manyheads.data.readers import Layout, read_rows
from manyheads.data.records import SECOND_TEXT, TEXT_FIELDS, label_fields, read_text
from manyheads.errors import RequestError, listing, option
from manyheads.tasks import FieldValues, Kind, kind_of, known_kinds

_TEXTS = (*TEXT_FIELDS, SECOND_TEXT)
_NO_LABELS = ("lemma", "deprel")
"""Columns of CoNLL-U that are no task of their own: words, and relations to words that are not
read."""
_MAX_FIELDS = 200


@dataclass(frozen=True)
class InferredTask:
    """A task, and the values in which it was found."""

    name: str
    options: Mapping[str, Any]
    """Its keys in the configuration."""
    values: FieldValues

    @property
    def kind(self) -> str:
        """The kind of the task."""
        return str(self.options["kind"])


@dataclass(frozen=True)
class InferredTasks:
    """The tasks of some files."""

    files: tuple[str, ...]
    records: int
    tasks: tuple[InferredTask, ...]
    unused: Mapping[str, FieldValues] = field(default_factory=dict)
    """The fields that no task uses, except the texts."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """The counts of contents that the readers passed over, by kind."""

    @property
    def complete(self) -> bool:
        """Whether every record has a label of every task."""
        return all(task.values.records == self.records for task in self.tasks)

    def notes(self) -> dict[str, str]:
        """Describe the labels of each task in words."""
        return {
            task.name: f"field `{task.values.name}`: {task.values.describe()}"
            for task in self.tasks
        }

    def options(self) -> dict[str, dict[str, Any]]:
        """Return the tasks in the form of a configuration."""
        return {task.name: dict(task.options) for task in self.tasks}


def infer_tasks(
    files: Sequence[str],
    layout: Layout | None = None,
    tasks: Mapping[str, TaskConfig] | None = None,
) -> InferredTasks:
    """Read files, and find the tasks for which their fields hold labels.

    A field is a task if exactly one kind recognises its values (`Kind.recognises`), or if several
    do and exactly one of them has the field among its usual ones.

    Args:
        files: data of any format that the readers know, read as one.
        layout: their layout, as far as the user states it.
        tasks: the tasks, if the user names them; the values of their fields are counted.

    Raises:
        DataError: a file cannot be read, or a record has no text.
        RequestError: a field fits several kinds of task, no field fits one, or a named task has no
            labels.
    """
    columns: dict[str, FieldValues] = {}
    unread: dict[str, int] = {}
    records = 0
    for path in files:
        rows = read_rows(path, layout=layout, on_unread=unread.update)
        for row in rows:
            text, tokens = read_text(row)
            words = len(text.split()) if tokens is None else len(tokens)
            records += 1
            for name, value in row.fields.items():
                if value is None or name in _TEXTS:
                    continue
                if name in columns or len(columns) < _MAX_FIELDS:
                    values = columns.setdefault(name, FieldValues(name))
                    values.add(value, words, row.fields)
    if tasks is None:
        found, unused = _recognised(columns, files)
    else:
        found, unused = _named(tasks, columns, files)
    return InferredTasks(tuple(files), records, tuple(found), unused, unread)


def _recognised(
    columns: Mapping[str, FieldValues], files: Sequence[str]
) -> tuple[list[InferredTask], dict[str, FieldValues]]:
    found: list[InferredTask] = []
    unused: dict[str, FieldValues] = {}
    for name, values in columns.items():
        kinds = [kind_of(kind) for kind in known_kinds()]
        able = [k for k in kinds if name not in _NO_LABELS and k.recognises(values)]
        usual = [kind for kind in able if name in kind.fields]
        if len(usual) == 1 or len(able) == 1:
            found.append(_task(values, (usual or able)[0], [task.name for task in found]))
        elif able:
            raise _ambiguous(values, able, columns, files)
        else:
            unused[name] = values
    if not found:
        raise RequestError(
            f"no field of {listing(files)} has labels of a task: {_described(columns)}",
            expected="a field with a few different names, lists of them, entities or tags, or "
            "numbers",
            fix=f"Name one: {named_task()}.{_joined(columns)}",
        )
    return found, unused


def named_task(name: str = "NAME", kind: str = "KIND", field: str = "FIELD") -> str:
    """Return the option that names a task, for a message."""
    python = {name: {"kind": kind, "field": field}}
    return option(f"--task {name}={kind}:{field}", f"`tasks={python}`")


def _joined(columns: Mapping[str, FieldValues]) -> str:
    """Return the option that splits joined labels, if a column seems to have them."""
    cells = columns["labels"].distinct if "labels" in columns else ()
    mark = next((mark for mark in ",;|" if any(mark in cell for cell in cells)), "")
    if not mark:
        return ""
    named = option(f"--label-separator '{mark}'", f"`layout=Layout(separator={mark!r})`")
    return f" For several labels in a cell of `labels`: {named}."


def _named(
    tasks: Mapping[str, TaskConfig], columns: Mapping[str, FieldValues], files: Sequence[str]
) -> tuple[list[InferredTask], dict[str, FieldValues]]:
    found = []
    for name, task in tasks.items():
        fields = label_fields(name, task)
        labelled = next((columns[field] for field in fields if field in columns), None)
        if labelled is None:
            raise RequestError(
                f"no record of {listing(files)} has {' or '.join(f'`{f}`' for f in fields)}, "
                f"the label of task {name!r}",
                expected=f"one of the fields: {_described(columns)}",
                fix=f"Name the field: {named_task()}.",
            )
        given = task.model_dump(exclude_unset=True)
        options = {**_starting(kind_of(task.kind), labelled, given), **given}
        found.append(InferredTask(name, options, labelled))
    used = {task.values.name for task in found}
    return found, {name: values for name, values in columns.items() if name not in used}


def _task(values: FieldValues, kind: Kind, taken: Sequence[str]) -> InferredTask:
    usual = values.name in kind.fields
    name = re.sub(r"[^A-Za-z0-9_-]", "_", values.name)[:50].lstrip("0123456789_-")
    if usual and kind.sought_as is not None and kind.sought_as not in taken:
        name = kind.sought_as
    if not name or name in TAKEN_NAMES or name in taken:
        name = f"task_{len(taken) + 1}"
    options = _starting(kind, values)
    # A task's labels are first looked for in the field of its own name.
    known = name == values.name or (usual and name == kind.sought_as)
    return InferredTask(name, options if known else {**options, "field": values.name}, values)


def _starting(kind: Kind, values: FieldValues, given: Collection[str] = ()) -> dict[str, Any]:
    return {"kind": kind.name, **kind.starting_options(values, given)}


def _ambiguous(
    values: FieldValues,
    able: Sequence[Kind],
    columns: Mapping[str, FieldValues],
    files: Sequence[str],
) -> RequestError:
    name = values.name
    choices = " or ".join(named_task(name, kind.name, name) for kind in able)
    return RequestError(
        f"`{name}` in {listing(files)} has {values.describe()}, which could be "
        f"{' or '.join(kind.name for kind in able)}; all fields: {_described(columns)}",
        expected="a field whose values fit one kind of task, or named tasks",
        fix=f"Name every task that should be learned: {choices}.",
    )


def _described(columns: Mapping[str, FieldValues]) -> str:
    return listing(f"`{name}` ({v.describe()})" for name, v in columns.items()) or "(none)"
