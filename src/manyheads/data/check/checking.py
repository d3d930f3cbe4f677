"""The data check over all files: what each holds, and how they fit together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from manyheads.config import TaskConfig
from manyheads.data.check.duplicates import CopyFinder, Place
from manyheads.data.check.files import FileCheck
from manyheads.data.check.report import (
    DataReport,
    FileSummary,
    Findings,
    Kind,
    Lengths,
    TaskSummary,
)
from manyheads.data.infer_tasks import InferredTasks, infer_tasks, tasks_to_read
from manyheads.data.readers import Layout, Row, is_dataset_name
from manyheads.data.records import LabelCollector, Paths, alike, spelt_like
from manyheads.errors import (
    DataError,
    ManyheadsError,
    RequestError,
    counted,
    listing,
    option,
    shorten,
)
from manyheads.tasks import kind_of
from manyheads.text import TextTokenizer

_TIMES = 10
"""How many times as often a label occurs as another one that is rather a slip in spelling it."""


def check_data(
    paths: Paths,
    tasks: Mapping[str, TaskConfig] | None = None,
    tokenizer: TextTokenizer | None = None,
    max_length: int = 128,
    *,
    layout: Layout | None = None,
    limit: int = 10,
) -> DataReport:
    """Find the errors in data files that the package's docstring lists.

    Memory grows by about 50 bytes a record, whatever the length of the texts.

    Args:
        paths: the files, those for training first; or a mapping from files to their tasks.
        tasks: the tasks; by default, those that training without a configuration finds in the
            files, which are then read twice, and those of the usual fields that have labels.
        tokenizer: the encoder's; without one, truncation is not checked.
        max_length: sub-tokens that training would read of a record.
        layout: the layout of the files, as far as the user states it.
        limit: how many findings of a kind are listed for a file; all are counted.

    Raises:
        DataError: a file is missing, empty, of no known format, or given twice.
    """
    findings = Findings(limit)
    named: set[str] = set()
    if tasks is not None:
        wanted = tasks
    else:
        inferred = _tasks_in(paths, layout, findings)
        wanted = tasks_to_read(inferred)
        named = {name for name, values in inferred.unused.items() if values.same_as}
        layout = (layout or Layout()).reading(inferred.configs())
    files = _tasks_of_files(paths if tasks is not None else list(paths), wanted)
    checks = []
    for path, names in files.items():
        mine = {name: wanted[name] for name in names}
        checks.append(FileCheck(path, mine, tokenizer, max_length, findings, limit, layout, named))
    _refuse_one_file_by_two_names(files)
    collectors, copies = _read(checks, wanted)
    for check in checks:
        _report_unread(check, findings)
    found = list(wanted) if tasks is not None else _labelled(wanted, checks)
    if tasks is not None and isinstance(paths, Mapping):
        _check_every_file_has_labels(checks, findings)
    if not found and any(check.words for check in checks):
        _report_no_labels(checks, findings)
    for name in found:
        _judge_labels(name, collectors[name], checks, findings)
    _judge_copies(copies, found, checks, findings)
    return DataReport(
        files=tuple(_summary(check, found, findings) for check in checks),
        findings=tuple(findings.listed),
        counts=findings.counts(),
        max_length=max_length if tokenizer is not None else None,
    )


def _tasks_in(paths: Paths, layout: Layout | None, findings: Findings) -> InferredTasks:
    """Return the tasks that training would find in files.

    Fields that training would refuse, because they fit several kinds of task, are reported, and
    those whose classes seem to be several in one cell or say the same as others.
    """
    files = list(dict.fromkeys(paths))

    def report(error: ManyheadsError) -> None:
        # Records that cannot be read are reported when they are checked.
        if isinstance(error, RequestError):
            findings.add("", Kind.AMBIGUOUS, listing(files), error.found, error.fix)

    found = infer_tasks(files, layout, on_error=report)
    for kind, hints in ((Kind.JOINED, found.joined), (Kind.DOUBLED, found.doubled)):
        for hint in hints:
            findings.add("", kind, listing(files), hint)
    for name, values in found.unused.items():
        if values.same_as:
            message = f"the field `{name}` is not used: {values.describe()}"
            findings.add("", Kind.UNREAD, listing(files), message)
    return found


def _read(
    checks: Sequence[FileCheck], tasks: Mapping[str, TaskConfig]
) -> tuple[dict[str, LabelCollector], CopyFinder]:
    """Read all files; return what was collected of each task's labels, and of the texts."""
    collectors = {name: LabelCollector(name, task) for name, task in tasks.items()}
    copies = CopyFinder(list(tasks))
    for number, check in enumerate(checks):
        for row, record in check.records(collectors):
            copies.add(number, row.line, record, row.record)
    return collectors, copies


def _labelled(tasks: Iterable[str], checks: Sequence[FileCheck]) -> list[str]:
    return [name for name in tasks if any(check.counts[name].labelled for check in checks)]


def _tasks_of_files(paths: Paths, tasks: Mapping[str, TaskConfig]) -> dict[str, tuple[str, ...]]:
    if isinstance(paths, Mapping):
        return {path: tuple(names) for path, names in paths.items()}
    given = list(paths)
    files = {path: tuple(tasks) for path in given}
    if len(files) < len(given):
        raise _given_twice(next(path for i, path in enumerate(given) if path in given[:i]))
    return files


def _refuse_one_file_by_two_names(paths: Iterable[str]) -> None:
    seen: set[str] = set()
    for path in paths:
        real = path if is_dataset_name(path) else os.path.realpath(path)
        if real in seen:
            raise _given_twice(path)
        seen.add(real)


def _given_twice(path: str) -> DataError:
    return DataError(
        "the file is given twice",
        where=path,
        expected="different files",
        fix="Validate on records that training does not see.",
    )


def _check_every_file_has_labels(checks: Iterable[FileCheck], findings: Findings) -> None:
    """Report each file without a label of a task that it is meant for."""
    for check in checks:
        for name in check.tasks:
            if not check.counts[name].labelled:
                fields = " or ".join(f"`{field}`" for field in check.tasks[name].fields)
                findings.add(
                    check.path, Kind.NO_LABEL, check.path,
                    f"no record has {fields}, the label of the task {name!r}",
                    f"Set `tasks.{name}.field`, or another file for the task.",
                )  # fmt: skip


def _report_no_labels(checks: Sequence[FileCheck], findings: Findings) -> None:
    """Report files in which no task finds a label, with the fields that they have."""
    for check in checks:
        wanted = dict.fromkeys(f for task in check.tasks.values() for f in task.fields)
        findings.add(
            check.path, Kind.NO_LABEL, check.path,
            f"no task finds a label: none of {listing(wanted)} among the fields "
            f"{listing(check.fields)}",
            "Name the labels' field: "
            + option(
                "--task NAME=KIND:FIELD, or --map FIELD=label",
                '`tasks={NAME: {"kind": KIND, "field": FIELD}}`, or '
                '`layout=Layout(names={FIELD: "label"})`',
            )
            + ".",
        )  # fmt: skip


def _report_unread(check: FileCheck, findings: Findings) -> None:
    """Report the fields that no task reads, and contents that records cannot hold."""
    for message in (*check.unread.counts(), *check.unread.fields()):
        findings.add(check.path, Kind.UNREAD, check.path, message)


def _judge_labels(
    name: str, collector: LabelCollector, checks: Sequence[FileCheck], findings: Findings
) -> None:
    """Judge the labels that a task has in all its files together."""
    mine = [check for check in checks if name in check.tasks]
    paths = [check.path for check in mine]

    def add(kind: Kind, error: DataError) -> None:
        message = f"{error.found}; expected {error.expected}" if error.expected else error.found
        findings.add("", kind, error.where, message, error.fix)

    try:
        collector.labels(paths, lambda error: add(Kind.LABELS, error))
    except DataError as error:
        with_label = any(check.counts[name].with_label for check in mine)
        add(Kind.LABELS if with_label else Kind.NO_LABEL, error)
    _compare_names(name, mine, findings)
    seen: set[str] = set()
    for check in mine:
        labels = check.counts[name].labels
        if seen:
            for label in [label for label in labels if label not in seen]:
                findings.add(
                    check.path, Kind.UNSEEN_LABEL, check.path,
                    f"the label {shorten(label)} of the task {name!r} occurs "
                    f"{counted(labels[label], 'time')} here and in no file before",
                    "Add training records with it: a model cannot predict a label it never saw.",
                )  # fmt: skip
        seen.update(labels)
        counts = check.counts[name]
        if check is not mine[0] and counts.labelled and not counts.with_label:
            findings.add(
                check.path, Kind.NO_ENTITY, check.path,
                f"all labels of the task {name!r} are empty, in "
                f"{counted(counts.labelled, 'record')}",
                "Add records that have some, so that this file can select the best model.",
            )  # fmt: skip


def _compare_names(name: str, checks: Sequence[FileCheck], findings: Findings) -> None:
    """Report classes with nearly equal names, likely slips, and a task with a single class."""
    task = next((check.tasks[name] for check in checks), None)
    names: Counter[str] = Counter()
    for check in checks:
        names.update(check.counts[name].labels)
    where = listing(check.path for check in checks)
    for labels in alike(names):
        findings.add(
            "", Kind.ALIKE, where,
            f"the labels {listing(map(repr, labels))} of the task {name!r} differ only in "
            "case or white space",
            "Give one class one name.",
        )  # fmt: skip
    # In plain tags, such as `Ncfsn` and `Ncmsn`, each letter has a meaning.
    is_code = task is not None and task.scheme == "plain"
    frequent = (label for label, count in names.items() if count >= _TIMES and not is_code)
    for label, other in spelt_like(names, frequent):
        if names[other] >= _TIMES * names[label]:
            findings.add(
                "", Kind.ALIKE, where,
                f"the label {label!r} of the task {name!r} occurs {counted(names[label], 'time')} "
                f"and is spelt like {other!r}, which occurs {names[other]:,} times",
                f"If it is {other!r}, give one class one name. It may be another class.",
            )  # fmt: skip
    if task is not None and kind_of(task.kind).exclusive and len(names) == 1:
        (only,) = names
        findings.add(
            "", Kind.ONE_CLASS, where, f"the task {name!r} has only one class, {shorten(only)}",
            "Add records of another class.",
        )  # fmt: skip


def _judge_copies(
    copies: CopyFinder, found: Iterable[str], checks: list[FileCheck], findings: Findings
) -> None:
    def where_of(place: Place) -> str:
        check = checks[place.file]
        return Row(check.path, place.line, check.unit, {}, place.record).where

    for copy in copies.copies(list(found)):
        check, where = checks[copy.place.file], where_of(copy.place)
        if copy.contradicts is not None:
            task, other = copy.contradicts
            findings.add(
                check.path, Kind.CONTRADICTION, where,
                f"the same text as {where_of(other)}, with another label of the task {task!r}",
                "Decide which label is right, and keep one of the two.",
            )  # fmt: skip
        if copy.leaked_from is not None:
            check.leaks += 1
            findings.add(
                check.path, Kind.LEAK, where, f"the same text as {where_of(copy.leaked_from)}",
                "Remove it from one of the files; otherwise the scores measure memorisation.",
            )  # fmt: skip
        if copy.duplicate_of is not None:
            check.duplicates += 1
            if copy.contradicts is None:
                findings.add(
                    check.path, Kind.DUPLICATE, where,
                    f"the same text as {where_of(copy.duplicate_of)}",
                    "Remove one of the two, unless the text should count twice.",
                )  # fmt: skip


def _summary(check: FileCheck, found: Iterable[str], findings: Findings) -> FileSummary:
    records = len(check.words)
    return FileSummary(
        path=check.path,
        records=records,
        broken=findings.count(check.path, Kind.BROKEN_RECORD),
        complete=check.complete,
        tasks={
            name: TaskSummary(
                kind=check.tasks[name].kind,
                labelled=counts.labelled,
                unlabelled=records - counts.labelled,
                labels=dict(counts.labels.most_common()),
                with_label=counts.with_label,
            )
            for name, counts in check.counts.items()
            if name in found
        },
        words=Lengths.of(check.words),
        tokens=Lengths.of(check.tokens) if check.has_tokenizer else None,
        truncated=check.truncated,
        words_lost=check.words_lost,
        labels_lost=check.labels_lost,
        duplicates=check.duplicates,
        leaks=check.leaks,
    )
