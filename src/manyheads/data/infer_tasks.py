"""The tasks of labelled files, worked out field by field from the values of their records."""

from __future__ import annotations

import itertools
import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from manyheads.config import TaskConfig
from manyheads.config.sections.mixing import TAKEN_NAMES, colliding_tasks
from manyheads.data.joined_classes import are_tables, joined_hints, joined_labels, separated
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records import SECOND_TEXT, TEXT_FIELDS, label_fields, read_text
from manyheads.data.same_classes import SameClasses
from manyheads.errors import DataError, ManyheadsError, RequestError, listing, option
from manyheads.tasks import FieldValues, Kind, WordSpan, kind_of, known_kinds

DEFAULT_TASKS: Mapping[str, TaskConfig] = MappingProxyType(
    {
        kind.sought_as: TaskConfig(kind=kind.name)
        for kind in map(kind_of, known_kinds())
        if kind.sought_as is not None
    }
)
"""The tasks of the usual fields, whatever their values."""

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
    joined: tuple[str, ...] = ()
    """Messages about tasks of tables whose classes seem to be several in one cell."""
    doubled: tuple[str, ...] = ()
    """Messages about tasks that say the same as another one."""

    @property
    def complete(self) -> bool:
        """Whether every record has a label of every task."""
        return all(task.values.records == self.records for task in self.tasks)

    @property
    def hints(self) -> tuple[str, ...]:
        """All messages about tasks that may not be meant so."""
        return self.joined + self.doubled

    def notes(self) -> dict[str, str]:
        """Describe the labels of each task in words."""
        return {
            task.name: f"field `{task.values.name}`: {task.values.describe()}"
            for task in self.tasks
        }

    def options(self) -> dict[str, dict[str, Any]]:
        """Return the tasks in the form of a configuration."""
        return {task.name: dict(task.options) for task in self.tasks}

    def configs(self) -> dict[str, TaskConfig]:
        """Return the settings of the tasks."""
        return {task.name: TaskConfig(**task.options) for task in self.tasks}


def infer_tasks(
    files: Sequence[str],
    layout: Layout | None = None,
    tasks: Mapping[str, TaskConfig] | None = None,
    on_error: Callable[[ManyheadsError], None] | None = None,
) -> InferredTasks:
    """Read files, and find the tasks for which their fields hold labels.

    A field is a task if exactly one kind recognises its values (`Kind.recognises`), or if several
    do and exactly one of them has the field among its usual ones. Usual fields of one kind are one
    task, unless a record has two of them.

    Args:
        files: data of any format that the readers know, read as one.
        layout: their layout, as far as the user states it.
        tasks: the tasks, if the user names them; the values of their fields are counted.
        on_error: receives the errors of files, records and single fields, which are then left out;
            without it, the first one is raised. With it, no task may be found. The files may be
            read twice, and errors with them.

    Raises:
        DataError: a file cannot be read, or a record has no text.
        RequestError: a field fits several kinds of task, no field fits one, or a named task has no
            labels.
    """
    layout = (layout or Layout()).reading(tasks or {})
    finder, unread = _read(files, layout, on_error)
    lists = {name for name, values in finder.values.items() if values.lists and values.texts}
    lists |= {"labels"} if {"label", "labels"} <= finder.values.keys() else set()
    if len(files) > 1 and lists:
        # A tool's lists of classes were read by what is in each file; now they all stay lists.
        finder, unread = _read(files, replace(layout, lists=layout.lists | lists), on_error)
    return finder.tasks(files, tasks, unread, on_error, layout)


def _read(
    files: Sequence[str],
    layout: Layout,
    on_error: Callable[[ManyheadsError], None] | None,
) -> tuple[TaskFinder, Counter[str]]:
    """Collect the values of fields, and count what is not read."""
    finder = TaskFinder()
    unread: Counter[str] = Counter()
    refuse = on_error or _raise
    for path in files:
        try:
            rows = read_rows(path, layout=layout, on_error=on_error, on_unread=unread.update)
            for row in rows:
                try:
                    text, tokens = read_text(row)
                except DataError as error:
                    refuse(error)
                else:
                    finder.add(row, text, tokens)
        except DataError as error:
            refuse(error)
    return finder, unread


def _raise(error: ManyheadsError) -> None:
    raise error


def tasks_to_read(found: InferredTasks) -> dict[str, TaskConfig]:
    """Return the tasks found, and those of `DEFAULT_TASKS` whose fields none of them reads.

    Beside tasks that were found, fields of empty lists are none, nor are indices of classes whose
    names are read.
    """
    tasks = found.configs()
    read = {field for name, task in tasks.items() for field in label_fields(name, task)}
    if tasks:
        read |= {
            name
            for name, values in found.unused.items()
            if values.same_as or (values.lists == values.records and not values.filled)
        }
    others = {
        name: task
        for name, task in DEFAULT_TASKS.items()
        if name not in tasks and read.isdisjoint(task.fields)
    }
    return {**tasks, **others}


class TaskFinder:
    """Collects the values of fields from records, and works out the tasks (see `infer_tasks`)."""

    def __init__(self) -> None:
        self.values: dict[str, FieldValues] = {}
        """The values of each field that is no text."""
        self.records = 0
        self.same = SameClasses()
        self.apart = {
            kind.name: kind.fields for kind in map(kind_of, known_kinds()) if len(kind.fields) > 1
        }
        """The usual fields of each kind with several, of which no record has two."""

    def tasks(
        self,
        files: Sequence[str],
        named: Mapping[str, TaskConfig] | None = None,
        unread: Mapping[str, int] | None = None,
        on_error: Callable[[ManyheadsError], None] | None = None,
        layout: Layout | None = None,
    ) -> InferredTasks:
        """Return the tasks of the records.

        Args:
            files: the files that were read, for messages.
            named: the tasks, if the user names them.
            unread: the counts of contents that the readers passed over.
            on_error: receives the errors of single fields (see `infer_tasks`).
            layout: that of the files, for messages.

        Raises:
            RequestError: see `infer_tasks`.
        """
        if named is None:
            found, unused = _recognised(self, files, on_error)
            fields = [task.values for task in found] if are_tables(files) else []
            joined = joined_hints(fields, self.values, layout or Layout())
            doubled = _doubled(found, self.same)
        else:
            found, unused = _named(named, self.values, files)
            joined = doubled = []
        return InferredTasks(
            tuple(files), self.records, tuple(found), unused, unread or {},
            tuple(joined), tuple(doubled),
        )  # fmt: skip

    def add(self, row: Row, text: str, tokens: Sequence[WordSpan] | None) -> None:
        """Add the values of a record with this text (see `read_text`)."""
        words = len(text.split()) if tokens is None else len(tokens)
        self.records += 1
        labels = {n: v for n, v in row.fields.items() if v is not None and n not in _TEXTS}
        self.same.add(labels)
        for name, value in labels.items():
            if name in self.values or len(self.values) < _MAX_FIELDS:
                values = self.values.setdefault(name, FieldValues(name))
                values.add(value, words, row.fields)
        for kind, fields in [*self.apart.items()]:
            if sum(row.fields.get(field) is not None for field in fields) > 1:
                del self.apart[kind]


def _recognised(
    columns: TaskFinder,
    files: Sequence[str],
    on_error: Callable[[ManyheadsError], None] | None = None,
) -> tuple[list[InferredTask], dict[str, FieldValues]]:
    found: list[InferredTask] = []
    unused: dict[str, FieldValues] = {}
    unclear: list[tuple[FieldValues, list[Kind]]] = []
    able = {name: _able(values) for name, values in columns.values.items()}
    names = columns.same.names_of_numbers(columns.values, able)
    for name, values in columns.values.items():
        usual = [kind for kind in able[name] if name in kind.fields]
        if name in names or not able[name]:
            unused[name] = replace(values, same_as=names.get(name, ""))
        elif not values.has_commas and (len(usual) == 1 or len(able[name]) == 1):
            _add_task(found, values, (usual or able[name])[0], columns)
        else:
            unclear.append((values, able[name]))
            unused[name] = values
    for values, kinds in unclear:
        (on_error or _raise)(_ambiguous(values, kinds, columns.values, files, found))
    if not found and on_error is None:
        raise RequestError(
            f"no field of {listing(files)} has labels of a task: {_described(columns.values)}",
            expected="a field with a few different names, lists of them, entities or tags, or "
            "numbers",
            fix=_without_gaps(columns.values)
            or f"{_name_fields(columns.values, 'name one')}: {named_task()}."
            f"{joined_labels(columns.values)}",
        )
    return found, unused


def _able(values: FieldValues) -> list[Kind]:
    """Return the kinds that recognise a field's values, which are no identifiers."""
    return [
        kind
        for kind in map(kind_of, known_kinds())
        if values.name not in _NO_LABELS
        and (values.name in kind.fields or not values.is_identifier)
        and kind.recognises(values)
    ]


def _doubled(found: Sequence[InferredTask], same: SameClasses) -> list[str]:
    """Return a message for each group of tasks whose classes map one to one."""
    tasks = {task.values.name for task in found if kind_of(task.kind).exclusive}
    groups: dict[str, list[str]] = {}
    for one, other in same.pairs():
        if {one, other} <= tasks and one not in itertools.chain(*groups.values()):
            groups.setdefault(one, []).append(other)
    return [
        f"{listing(f'`{name}`' for name in (one, *others))} say the same, where a record has both: "
        f"each class of one goes with one of the other; to learn `{one}` alone of these: "
        + _named_tasks([task for task in found if task.values.name not in others])
        for one, others in groups.items()
    ]


def _add_task(
    found: list[InferredTask], values: FieldValues, kind: Kind, columns: TaskFinder
) -> None:
    """Add the task of a field, or add the field to the task that reads its usual alternatives."""
    usual = values.name in kind.fields
    if usual and kind.name in columns.apart:
        for number, task in enumerate(found):
            if task.kind == kind.name and task.values.name in kind.fields:
                together = task.values.joined(values)
                options = {**task.options, **_starting(kind, together)}
                found[number] = InferredTask(task.name, options, together)
                return
    # Where a record has two of the usual fields, each is a task, which must not read the other.
    others = [field for field in kind.fields if field != values.name and field in columns.values]
    is_alone = not others or kind.name in columns.apart
    found.append(_task(values, kind, [task.name for task in found], is_alone=is_alone))


def named_task(name: str = "NAME", kind: str = "KIND", field: str = "FIELD") -> str:
    """Return the option that names a task, for a message."""
    python = {name: {"kind": kind, "field": field}}
    short = shlex.quote(f"{name}={kind}:{field}")
    return option(f"--task {short}", f"`tasks={python}`")


def _named_tasks(tasks: Sequence[InferredTask], also: Sequence[InferredTask] = ()) -> str:
    """Return the options that name these tasks, for a message.

    Args:
        tasks: those that were found.
        also: further tasks, of which only one can be learned.
    """
    known, others = (
        [(task.name, {k: task.options[k] for k in ("kind", "field") if k in task.options})
         for task in some]
        for some in (tasks, also)
    )  # fmt: skip
    python = [f"`tasks={dict([*known, other])}`" for other in others] or [f"`tasks={dict(known)}`"]
    return option(
        " ".join(f"--task {_short(*one)}" for one in known)
        + ", and " * bool(known and others)
        + " or ".join(f"--task {_short(*one)}" for one in others),
        " or ".join(python),
    )


def _short(name: str, task: Mapping[str, str]) -> str:
    """Return a task as the command takes it."""
    return shlex.quote(f"{name}={task['kind']}" + (f":{task['field']}" if "field" in task else ""))


def _name_fields(columns: Mapping[str, FieldValues], name: str) -> str:
    """Return what to do about numbers with a comma, or else to name tasks."""
    fields = [f"`{name}`" for name, values in columns.items() if values.has_commas]
    if not fields:
        return name.capitalize()
    return f"Write the numbers of {listing(fields)} without commas, with a decimal point, or {name}"


def _without_gaps(columns: Mapping[str, FieldValues]) -> str:
    """Return what to do about fields with NaN, which no kind of task reads."""
    fields = [f"`{name}`" for name, values in columns.items() if values.gaps]
    if not fields:
        return ""
    return f"Remove the values NaN of {listing(fields)}, or write null in their place."


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


def _task(values: FieldValues, kind: Kind, taken: Sequence[str], *, is_alone: bool) -> InferredTask:
    """Make the task of a field, which it names unless the field is found and read alone."""
    usual = values.name in kind.fields
    name = re.sub(r"[^A-Za-z0-9_-]", "_", values.name)[:50].lstrip("0123456789_-")
    if usual and kind.sought_as is not None and kind.sought_as not in taken:
        name = kind.sought_as
    is_free = name and name not in (*TAKEN_NAMES, *taken)
    if not is_free or colliding_tasks([*taken, name]):
        name = f"task_{len(taken) + 1}"
    options = _starting(kind, values)
    # A task's labels are first looked for in the field of its own name.
    known = is_alone and (name == values.name or (usual and name == kind.sought_as))
    return InferredTask(name, options if known else {**options, "field": values.name}, values)


def _starting(kind: Kind, values: FieldValues, given: Collection[str] = ()) -> dict[str, Any]:
    return {"kind": kind.name, **kind.starting_options(values, given)}


def _ambiguous(
    values: FieldValues,
    able: Sequence[Kind],
    columns: Mapping[str, FieldValues],
    files: Sequence[str],
    found: Sequence[InferredTask],
) -> RequestError:
    name = values.name
    taken = [task.name for task in found]
    tasks = [_task(values, kind, taken, is_alone=False) for kind in able]
    could_be = ["numbers or classes"] if values.has_commas else [kind.name for kind in able]
    start = _name_fields({name: values}, "name every task that should be learned")
    joined = joined_labels(columns) if name == "labels" else ""
    if values.has_commas and are_tables(files):
        joined = f" If a cell holds several classes: {separated(name, ',', Layout())}."
    return RequestError(
        f"`{name}` in {listing(files)} has {values.describe()}, which could be "
        f"{' or '.join(could_be)}; all fields: {_described(columns)}",
        expected="a field whose values fit one kind of task, or named tasks",
        fix=f"{start}: {_named_tasks(found, tasks)}.{joined}"
        + _indicators(columns) * are_tables(files),
    )


def _indicators(columns: Mapping[str, FieldValues]) -> str:
    """Return the option by which columns of 0 and 1 are labels, if there are several."""
    found = [
        name
        for name, values in columns.items()
        if values.wholes == values.records
        and (values.low, values.high) == (0, 1)
        and not values.is_paired
    ]
    if len(found) < 2:
        return ""
    named = option("--format indicators", '`layout=Layout(format="indicators")`')
    return f" If {listing(f'`{name}`' for name in found)} are the labels of a table: {named}."


def _described(columns: Mapping[str, FieldValues]) -> str:
    return listing(f"`{name}` ({v.describe()})" for name, v in columns.items()) or "(none)"
