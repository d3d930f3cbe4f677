"""A comparison of joint and separate training: as tables, in words, and as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from manyheads.display.tables import Section, cell, make_table, printable, share
from manyheads.errors import RequestError, counted, install
from manyheads.storage import atomic_file
from manyheads.training import Times, Verdict

if TYPE_CHECKING:
    from manyheads.training import Comparison

_COLOURS = {"better": "tab:green", "worse": "tab:red", "noise": "tab:gray"}


def comparison_sections(comparison: Comparison) -> list[Section]:
    """Show a comparison: the tasks, the time, and the verdicts in words."""
    return [_tasks(comparison), _times(comparison), _words(comparison)]


def _tasks(comparison: Comparison) -> Section:
    table = make_table(
        ["task", "metric"],
        ["alone", "together", "difference", "95 % over seeds", "95 % over sentences"],
    )
    table.add_column("verdict", no_wrap=True)
    for verdict in comparison.verdicts:
        seeds, sentences = verdict.seeds, verdict.sentences
        table.add_row(
            cell(verdict.task),
            verdict.metric,
            share(_mean(verdict.alone)),
            share(_mean(verdict.together)),
            f"{seeds.mean:+.4f}",
            _interval(seeds.low, seeds.high),
            _interval(sentences.low, sentences.high) if sentences else "-",
            verdict.outcome,
        )
    count = len(comparison.seeds)
    notes = [f"means of {counted(count, 'seed')}, scored on "
             f"{', '.join(printable(path) for path in comparison.data)}"]  # fmt: skip
    if not comparison.tested:
        notes.append("which also chose the best epochs; separate test files would be fairer")
    return Section("Training together instead of alone", table, ", ".join(notes))


def _times(comparison: Comparison) -> Section:
    rows = [("training", comparison.training), ("inference", comparison.inference)]
    tasks = list(comparison.training.alone)
    table = make_table(
        ["seconds"], [*(f"{task} alone" for task in tasks), "sum alone", "together", "saved"]
    )
    for name, times in rows:
        alone = [times.alone[task] for task in tasks]
        seconds = (f"{value:,.3g}" for value in (*alone, sum(alone), times.together))
        table.add_row(name, *seconds, f"{times.saved:.0%}")
    epochs = ", ".join(f"{task} {count}" for task, count in comparison.epochs.items())
    note = (
        f"training: epochs alone: {epochs}; inference: "
        f"{counted(comparison.texts, 'text')}, all tasks in one pass against a pass of each task's "
        "own model"
    )
    return Section("Time", table, note)


def _words(comparison: Comparison) -> Section:
    sentences = (f"{words[:1].upper()}{words[1:]}." for words in comparison.words())
    return Section("In words", Text("\n".join(sentences)))


def require_matplotlib() -> None:
    """Check that matplotlib is installed, before anything is trained.

    Raises:
        RequestError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"a picture needs matplotlib, which cannot be imported ({error})",
            fix=install("plots"),
        ) from error


def draw_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Draw the differences with their intervals, and the times, as a PNG.

    Raises:
        RequestError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    count = len(comparison.verdicts)
    figure = Figure(figsize=(9, 2.2 + 0.5 * count), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_differences(left, comparison.verdicts)
    _draw_times(right, comparison.training, comparison.inference)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _draw_differences(axes: Any, verdicts: Sequence[Verdict]) -> None:
    """Draw each task's difference, its interval over seeds and, below, that over sentences."""
    places = range(len(verdicts), 0, -1)
    for place, verdict in zip(places, verdicts, strict=True):
        colour = _COLOURS[verdict.outcome]
        spans: list[tuple[float, float | None, float | None, float]]
        spans = [(place, verdict.seeds.low, verdict.seeds.high, 2.5)]
        if verdict.sentences:
            spans.append((place - 0.2, verdict.sentences.low, verdict.sentences.high, 1.0))
        for height, low, high, width in spans:
            if low is not None and high is not None:
                axes.plot([100 * low, 100 * high], [height] * 2, color=colour, linewidth=width)
        axes.plot([100 * verdict.seeds.mean], [place], "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [f"{v.task} ({v.metric})" for v in verdicts])
    axes.set_ylim(0.4, len(verdicts) + 0.6)
    axes.set_xlabel("points gained by training together")
    axes.set_title("95 % over seeds (thick), over sentences (thin)", fontsize="medium")


def _draw_times(axes: Any, training: Times, inference: Times) -> None:
    """Draw the joint model's time as a share of the separate models' total."""
    for place, times in enumerate((inference, training)):
        whole = sum(times.alone.values()) or 1.0
        left = 0.0
        for seconds in times.alone.values():
            axes.barh(place + 0.2, seconds / whole, 0.35, left=left, color="tab:orange",
                      edgecolor="white")  # fmt: skip
            left += seconds / whole
        axes.barh(place - 0.2, times.together / whole, 0.35, color="tab:blue")
        axes.text(times.together / whole, place - 0.2, f" {-times.saved:+.0%}", va="center")
    axes.set_yticks([0, 1], ["inference", "training"])
    axes.set_xlim(0, max(1.0, 1 - min(training.saved, inference.saved)) * 1.25)
    axes.set_xlabel("time, as a share of all tasks alone")
    axes.set_title("each alone (orange), together (blue)", fontsize="medium")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:+.4f}, {high:+.4f}]"
