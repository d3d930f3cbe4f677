"""The data check over all files: what each holds, and how they fit together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from unicodedata import normalize

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
from manyheads.data.readers import Layout, is_dataset_name
from manyheads.data.records import LabelCollector, Paths
from manyheads.errors import DataError, at, counted, listing, shorten
from manyheads.tasks import kind_of, known_kinds
from manyheads.text import TextTokenizer

DEFAULT_TASKS: Mapping[str, TaskConfig] = MappingProxyType(
    {
        kind.sought_as: TaskConfig(kind=kind.name)
        for kind in map(kind_of, known_kinds())
        if kind.sought_as is not None
    }
)
"""The tasks that are looked for in files without a configuration."""


def check_data(
    paths: Paths,
    tasks: Mapping[str, TaskConfig] | None = None,
    tokenizer: TextTokenizer | None = None,
    max_length: int = 128,
    *,
    layout: Layout | None = None,
    limit: int = 10,
) -> DataReport:
    """Find what is wrong with data files, as the package's description says.

    Memory grows by some 50 bytes a record, and not with the length of the files' texts.

    Args:
        paths: the files, those for training first; or for each file the tasks it is for.
        tasks: the tasks; without them, those of `DEFAULT_TASKS` that have labels.
        tokenizer: the encoder's; without one, nothing is said about truncation.
        max_length: sub-tokens that training would read of a record.
        layout: how the files are laid out, as far as the user says so.
        limit: how many findings of a kind are listed for a file; all are counted.

    Raises:
        DataError: a file is missing, empty, of no known format, or given twice.
    """
    wanted = DEFAULT_TASKS if tasks is None else tasks
    files = _tasks_of_files(paths, wanted)
    findings = Findings(limit)
    checks = [
        FileCheck(
            path,
            {name: wanted[name] for name in names},
            tokenizer,
            max_length,
            findings,
            limit,
            layout,
        )
        for path, names in files.items()
    ]
    _refuse_one_file_by_two_names(files)
    collectors = {name: LabelCollector(name, task) for name, task in wanted.items()}
    copies = CopyFinder(list(wanted))
    for number, check in enumerate(checks):
        for row, record in check.records(collectors):
            copies.add(number, row.line, record)
    for check in checks:
        _report_unread(check, findings)
    if tasks is None:
        found = [name for name in wanted if any(check.counts[name].labelled for check in checks)]
    else:
        found = list(tasks)
        if isinstance(paths, Mapping):
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
    """Look for labels of every task in each file that is said to be for it."""
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
            "Name the labels' field: --task NAME=KIND:FIELD, or --map FIELD=label.",
        )  # fmt: skip


def _report_unread(check: FileCheck, findings: Findings) -> None:
    """Report the fields that no task reads, and what the format holds that records cannot."""
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
                    "Add training records with it: a model cannot predict what it never saw.",
                )  # fmt: skip
        seen.update(labels)
        counts = check.counts[name]
        if check is not mine[0] and counts.labelled and not counts.with_label:
            findings.add(
                check.path, Kind.NO_ENTITY, check.path,
                f"all labels of the task {name!r} are empty, in "
                f"{counted(counts.labelled, 'record')}",
                "A model cannot be chosen on it: add records that have some.",
            )  # fmt: skip


def _compare_names(name: str, checks: Sequence[FileCheck], findings: Findings) -> None:
    """Look for classes that may be one, and for one that is all there is."""
    task = next((check.tasks[name] for check in checks), None)
    alike: dict[str, dict[str, None]] = {}
    for check in checks:
        for label in check.counts[name].labels:
            alike.setdefault(_folded(label), {})[label] = None
    where = listing(check.path for check in checks)
    for labels in alike.values():
        if len(labels) > 1:
            findings.add(
                "", Kind.ALIKE, where,
                f"the labels {listing(map(repr, labels))} of the task {name!r} differ in case "
                "or white space alone",
                "Give one class one name.",
            )  # fmt: skip
    if task is not None and kind_of(task.kind).exclusive and len(alike) == 1:
        (only,) = alike
        findings.add(
            "", Kind.ONE_CLASS, where, f"the task {name!r} has one class only, {shorten(only)}",
            "Add records of another class.",
        )  # fmt: skip


def _folded(label: str) -> str:
    """Return what a label has in common with others that look like it."""
    return " ".join(normalize("NFC", label).casefold().split())


def _judge_copies(
    copies: CopyFinder, found: Iterable[str], checks: list[FileCheck], findings: Findings
) -> None:
    def say(place: Place) -> str:
        return at(checks[place.file].path, place.line, checks[place.file].unit)

    for copy in copies.copies(list(found)):
        check, where = checks[copy.place.file], say(copy.place)
        if copy.contradicts is not None:
            task, other = copy.contradicts
            findings.add(
                check.path, Kind.CONTRADICTION, where,
                f"the text of {say(other)} again, with another label of the task {task!r}",
                "Decide which label is right, and keep one of the two.",
            )  # fmt: skip
        if copy.leaked_from is not None:
            check.leaks += 1
            findings.add(
                check.path, Kind.LEAK, where, f"the text of {say(copy.leaked_from)} again",
                "Remove it from one of the files, or what is measured is memory.",
            )  # fmt: skip
        if copy.duplicate_of is not None:
            check.duplicates += 1
            if copy.contradicts is None:
                findings.add(
                    check.path, Kind.DUPLICATE, where,
                    f"the text of {say(copy.duplicate_of)} again",
                    "Remove one of the two, unless it is to count twice.",
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
