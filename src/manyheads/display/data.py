"""The result of a data check for people: files, lengths, labels and findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from manyheads.data.check import DataReport, FileSummary, Finding, Kind, Lengths, Severity
from manyheads.display.tables import MAX_CELL, MAX_LABELS, Section, cell, make_table, printable
from manyheads.errors import counted
from manyheads.tasks import kind_of

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def data_sections(report: DataReport, *, max_labels: int = MAX_LABELS) -> list[Section]:
    """Show a data check: files, lengths, each task's labels, findings, and the verdict.

    Args:
        max_labels: the most labels shown of a task, the most frequent ones; a note counts the
            others.
    """
    names = _short_names([file.path for file in report.files])
    tasks = dict.fromkeys(task for file in report.files for task in file.tasks)
    sections = [_files(report), _lengths(report)] if report.files else []
    sections += [_labels(task, report.files, names, max_labels) for task in tasks]
    return [*sections, _findings(report)]


def _files(report: DataReport) -> Section:
    counts = ["records", "broken", "duplicates", "leaks"]
    if report.max_length is not None:
        counts += ["truncated", "words lost", "labels lost"]
    table = make_table(["file"], counts)
    for file in report.files:
        row = [file.records, file.broken, file.duplicates, file.leaks]
        if report.max_length is not None:
            row += [file.truncated, file.words_lost, file.labels_lost]
        table.add_row(_path(file.path), *(f"{count:,}" for count in row))
    notes = [f"{printable(f.path)}: not read to its end" for f in report.files if not f.complete]
    if report.max_length is not None:
        notes.append(f"truncated: longer than {report.max_length} sub-tokens (`max_length`)")
    return Section("Files", table, "\n".join(notes))


def _lengths(report: DataReport) -> Section:
    table = make_table(["file", "in"], ["mean", "median", "90 %", "95 %", "99 %", "longest"])
    for file in report.files:
        lengths: list[tuple[str, Lengths]] = [("words", file.words)]
        if file.tokens is not None:
            lengths.append(("sub-tokens", file.tokens))
        for unit, each in lengths:
            figures = (each.median, each.p90, each.p95, each.p99, each.longest)
            table.add_row(_path(file.path), unit, f"{each.mean:.1f}", *(f"{n:,}" for n in figures))
    return Section("Lengths of the records", table)


def _labels(
    task: str, files: Sequence[FileSummary], names: Sequence[str], max_labels: int
) -> Section:
    summaries = [(file.tasks[task], name) for file, name in zip(files, names, strict=True)
                 if task in file.tasks]  # fmt: skip
    total: Counter[str] = Counter()
    for summary, _ in summaries:
        total.update(summary.labels)
    table = make_table(["label"], [name for _, name in summaries])
    for label, _ in total.most_common(max_labels):
        table.add_row(cell(label), *(f"{s.labels.get(label, 0):,}" for s, _ in summaries))
    notes = []
    if len(total) > max_labels:
        notes.append(
            f"the {max_labels} most frequent labels; {len(total) - max_labels} more are not shown"
        )
    for summary, name in summaries:
        some = (
            "" if not kind_of(summary.kind).can_be_empty else f" ({summary.with_label:,} not empty)"
        )
        notes.append(f"{name}: {summary.labelled:,} labelled{some}, {summary.unlabelled:,} not")
    kind = summaries[0][0].kind
    return Section(f"{printable(task)}: {kind} labels", table, "\n".join(notes))


def _findings(report: DataReport) -> Section:
    rank = list(Severity)
    lines = [
        _finding(finding)
        for finding in sorted(report.findings, key=lambda finding: rank.index(finding.severity))
    ]
    unlisted: dict[Kind, int] = dict(report.unlisted)
    for kind in sorted(unlisted, key=lambda kind: rank.index(kind.severity)):
        text = f"{kind.severity.value}: {unlisted[kind]:,} more of kind {kind.value!r}"
        lines.append(Text(text, style=_STYLES[kind.severity]))
    counts = [
        counted(count, severity.value) for severity in Severity if (count := report.count(severity))
    ]
    verdict = ", ".join(counts) if counts else "nothing wrong was found"
    return Section(f"Findings: {verdict}", Text("\n").join(lines))


def _finding(finding: Finding) -> Text:
    where = f"{finding.where}: " if finding.where else ""
    message = f"{where}{finding.message.removesuffix('.')}."
    return Text.assemble(
        (f"{finding.severity.value}: ", _STYLES[finding.severity]),
        printable(f"{message} {finding.fix}".rstrip()),
    )


def _path(path: str) -> Text:
    """Show a path; of a long one only the end, which distinguishes files."""
    text = printable(path)
    return Text(text if len(text) <= MAX_CELL else f"...{text[3 - MAX_CELL :]}")


def _short_names(paths: Sequence[str]) -> list[str]:
    """Return the shortest ends of the paths that are all different."""
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=0)):
        names = [str(Path(*each[-count:])) for each in parts]
        if len(set(names)) == len(paths):
            return names
    return list(paths)
