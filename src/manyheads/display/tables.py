"""Results as tables: with lines and colours on a terminal, plain aligned text in a pipe.

In a pipe, columns are as wide as their content and nothing is wrapped, so that other programs can
read them. Control characters in the user's data (labels, file names) are escaped, so that a label
cannot control the terminal.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from manyheads.errors import counted, option
from manyheads.tasks import kind_of
from manyheads.tasks.metrics import (
    ConfidenceMetrics,
    Confusion,
    DriftMetrics,
    Evaluation,
    LabelReport,
)

MAX_CELL = 60
MAX_LABELS = 40
"""The most labels of a task that are shown: those with the lowest F1."""

_PIPE_WIDTH = 100_000

# No column is squeezed below these widths, nor inside a word of its header.
_NUMBER_WIDTH = 6
_TEXT_WIDTH = 8


@dataclass(frozen=True, slots=True)
class Section:
    """A table or text with its title and, below it, a note."""

    title: str
    body: Table | Text
    note: str = ""


def show(
    sections: Iterable[Section], file: TextIO | None = None, *, width: int | None = None
) -> None:
    """Print sections to standard output or another stream, formatted for a terminal or a pipe."""
    stream = file or sys.stdout
    if is_terminal(stream):
        console = Console(file=stream, force_terminal=True, width=width, highlight=False)
        _print(sections, console, box.SIMPLE_HEAD)
    else:
        write(plain(sections, width=width), stream)


def plain(sections: Iterable[Section], *, width: int | None = None) -> str:
    """Return sections as text without colours or control characters.

    Args:
        width: wrap cells to fit into this many columns. Default: wrap nothing.
    """
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width or _PIPE_WIDTH,
        force_terminal=False,
        force_jupyter=False,
        color_system=None,
        legacy_windows=False,
        highlight=False,
    )
    _print(sections, console, None)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def _print(sections: Iterable[Section], console: Console, lines: box.Box | None) -> None:
    for section in sections:
        console.print(Text(section.title, style="bold"), soft_wrap=True)
        if isinstance(section.body, Text):
            console.print(section.body, soft_wrap=True, end="\n" if section.body else "")
        else:
            section.body.box = lines
            # A table that is too wide overflows; its last columns are not cropped.
            console.print(section.body, crop=False)
        if section.note:
            console.print(Text(section.note, style="dim"), soft_wrap=True)
        console.print()


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor and show any text."""
    able = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return stream.isatty() and able and _encoding(stream).lower().startswith("utf")


def write(text: str, stream: TextIO) -> None:
    """Write text to a stream, escaping characters that its encoding lacks."""
    encoding = _encoding(stream)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _encoding(stream: TextIO) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def cell(value: object, style: str = "") -> Text:
    """Make a cell without markup, with control characters escaped and long values cut."""
    text = printable(str(value))
    return Text(text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 3]}...", style=style)


def printable(text: str) -> str:
    """Escape the characters of a text that are not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def make_table(texts: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """Make an empty table with columns of text, then columns of right-aligned numbers."""
    table = Table(show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for header in texts:
        width = max([_TEXT_WIDTH, *map(len, header.split())])
        table.add_column(cell(header), overflow="fold", min_width=width)
    for header in numbers:
        width = max([_NUMBER_WIDTH, *map(len, header.split())])
        table.add_column(cell(header), justify="right", overflow="fold", min_width=width)
    return table


def share(value: object) -> str:
    """Format a share or a correlation with four decimals."""
    return f"{value:.4f}" if isinstance(value, float) else "-"


def evaluation_tables(
    evaluation: Evaluation,
    kinds: Mapping[str, str],
    confidence: Mapping[str, ConfidenceMetrics] | None = None,
    *,
    max_labels: int = MAX_LABELS,
) -> list[Section]:
    """Show an evaluation: an overview of all tasks, then each task's labels and confusions.

    Args:
        evaluation: the metrics.
        kinds: the kind of each task.
        confidence: the quality of each task's scores, if known.
        max_labels: the most labels shown of a task, those with the lowest F1; a note counts the
            others.
    """
    tasks: Mapping[str, Mapping[str, Any]] = evaluation["tasks"]
    sections = [_overview(evaluation, kinds, confidence or {})]
    if "drift" in evaluation:
        sections.append(_drift(evaluation["drift"]))
    for name, metrics in tasks.items():
        reports = metrics.get("per_class", metrics.get("per_type"))
        if reports:
            sections.append(_labels(name, reports, max_labels))
        if metrics.get("confusions"):
            sections.append(confusion_table(name, metrics["confusions"]))
    return sections


def _overview(
    evaluation: Evaluation,
    kinds: Mapping[str, str],
    confidence: Mapping[str, ConfidenceMetrics],
) -> Section:
    tasks = {name: kind_of(kinds[name]) for name in evaluation["tasks"]}
    columns = list(dict.fromkeys(c for kind in tasks.values() for c in kind.table_columns))
    table = make_table(["task", "of"], columns)
    for name, kind in tasks.items():
        metrics = evaluation["tasks"][name]
        cells = {column: metrics[metric] for column, metric in kind.table_columns.items()}
        table.add_row(
            cell(name), kind.measured_in, *(share(cells.get(column)) for column in columns)
        )
    notes = [
        f"{kind.measured_in}: {kind.table_note}"
        for kind in {k.measured_in: k for k in tasks.values()}.values()
        if kind.table_note
    ]
    notes += [f"{name}: {_trusted(found)}" for name, found in confidence.items()]
    if (frames := evaluation["frame_accuracy"]) is not None:
        notes.append(f"frame accuracy (every task of a record right): {frames:.4f}")
    return Section(
        f"Evaluation of {counted(evaluation['records'], 'record')}", table, "\n".join(notes)
    )


def _trusted(found: ConfidenceMetrics) -> str:
    calibrate = option("manyheads calibrate", "manyheads.calibrate")
    how = "calibrated" if found["calibrated"] else f"not calibrated ({calibrate})"
    return (
        f"scores are {how}: calibration error {found['ece']:.4f} "
        f"({found['ece_by_chance']:.4f} by chance), Brier {found['brier']:.4f}, "
        f"area under risk and coverage {found['aurc']:.4f}"
    )


def _drift(drift: DriftMetrics) -> Section:
    table = make_table([], ["cosine", "similarity correlation"])
    table.add_row(share(drift["cosine"]), share(drift["similarity_correlation"]))
    note = (
        f"of {counted(drift['sentences'], 'sentence')}: the mean cosine with the original "
        "vectors, and the rank correlation of the similarities; 1 if nothing has changed"
    )
    return Section("The embedding, compared with the original encoder's", table, note)


def _labels(task: str, reports: Mapping[str, LabelReport], limit: int) -> Section:
    shown = list(reports.items())
    note = ""
    if len(shown) > limit:
        hidden = len(shown) - limit
        shown = sorted(shown, key=lambda item: (item[1]["f1"], -item[1]["support"]))[:limit]
        note = f"the {limit} labels with the lowest F1; {hidden} more are not shown"
    table = make_table(["label"], ["precision", "recall", "f1", "support"])
    for name, report in shown:
        scores = (share(report[key]) for key in ("precision", "recall", "f1"))
        table.add_row(cell(name), *scores, f"{report['support']:,}")
    return Section(f"{task}: each label", table, note)


def confusion_table(task: str, confusions: Sequence[Confusion]) -> Section:
    """Show which labels of a task are confused with which."""
    table = make_table(["gold", "predicted"], ["count"])
    for pair in confusions:
        table.add_row(cell(pair["gold"]), cell(pair["predicted"]), f"{pair['count']:,}")
    return Section(f"{task}: most frequent confusions", table)
