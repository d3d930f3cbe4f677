"""The report as Markdown, short enough for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from manyheads.evaluation.report.data import CurvePoint, LearningCurve, Report, TaskReport

_ROWS = 10
_BAR = 24


def markdown(report: Report) -> str:
    """Return the verdict, the scores, the labels with most errors, and what goes wrong."""
    parts = [
        "# What the model gets wrong",
        f"{_text(report.model)} on {_text(', '.join(report.data))}, "
        f"{report.evaluation['records']:,} records",
        "\n".join(f"- {_text(sentence)}" for sentence in report.verdict),
        *_scores(report),
        *_changes(report),
    ]
    for task in report.tasks:
        parts += _task(task)
    parts += _suspects(report)
    for curve in report.curves:
        parts += _curve(curve)
    parts += [f"- {_text(note)}" for note in report.notes]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(report: Report) -> Iterator[str]:
    yield "## Scores"
    yield _table(
        ("task", "metric", "score", "95 % interval", "records"),
        [
            (t.name, t.metric, f"{t.score:.4f}", _between(t.low, t.high), f"{t.records:,}")
            for t in report.tasks
        ],
    )
    frames = report.evaluation["frame_accuracy"]
    if frames is not None and report.frame_interval is not None:
        yield f"Frame accuracy: {frames:.4f} ({_between(*report.frame_interval)})"
    drift = report.evaluation.get("drift", {})
    if "cosine" in drift:
        known = drift["similarity_correlation"]
        correlation = "" if known is None else f", similarity correlation {known:.4f}"
        yield f"Drift of the embedding: cosine {drift['cosine']:.4f}{correlation}"


def _changes(report: Report) -> Iterator[str]:
    if report.changes is None:
        return
    yield f"## What changed from {_text(report.changes.model)}"
    yield _table(
        ("task", "metric", "before", "after", "difference", "95 % interval", "became right",
         "became wrong", "p"),
        [
            (c.name, c.metric, f"{c.before:.4f}", f"{c.after:.4f}",
             f"{c.after - c.before:+.4f}", _between(c.low, c.high),
             c.better, c.worse, "" if c.p_value is None else f"{c.p_value:.3f}")
            for c in report.changes.tasks
        ],
    )  # fmt: skip


def _suspects(report: Report) -> Iterator[str]:
    if not report.suspects:
        return
    yield "## Labels that are likely wrong"
    yield _table(
        ("where", "task", "error", "label", "proposal"),
        [
            (s.where, s.task, s.error, s.in_words(s.given), s.in_words(s.proposed))
            for s in report.suspects[:_ROWS]
        ],
    )


def _task(task: TaskReport) -> Iterator[str]:
    if not task.labels:
        return
    yield f"## {_text(task.name)}"
    yield _table(
        ("label", "precision", "recall", "F1", "support", "errors"),
        [
            (x.label, *(f"{v:.4f}" for v in (x.precision, x.recall, x.f1)), x.support, x.errors)
            for x in task.labels[:_ROWS]
        ],
    )
    if len(task.labels) + task.hidden_labels > _ROWS:
        yield f"{len(task.labels) + task.hidden_labels - _ROWS} more labels, with fewer errors."
    if task.errors:
        yield _table(("error", "count"), list(task.errors.items()))
    wrong = [c for c in task.cells if c.gold != c.predicted and None not in (c.gold, c.predicted)]
    if wrong:
        rows = [(cell.gold, cell.predicted, cell.count) for cell in wrong[:_ROWS]]
        yield _table(("gold", "predicted", "count"), rows)


def _curve(curve: LearningCurve) -> Iterator[str]:
    yield f"## {_text(curve.name)} by number of training records"
    yield (
        "New heads on the frozen encoder, scored on the same records; the last rows are "
        "extrapolated by a power law."
    )
    every = (*curve.points, *curve.further)
    lowest, highest = min(p.low for p in every), max(p.high for p in every)
    scale = (_BAR - 1) / max(highest - lowest, 1e-9)

    def bar(point: CurvePoint) -> str:
        cells = ["\u00b7"] * _BAR
        low, high = (int((edge - lowest) * scale) for edge in (point.low, point.high))
        cells[low : high + 1] = "\u2500" * (high + 1 - low)
        cells[min(_BAR - 1, max(0, round((point.score - lowest) * scale)))] = "\u25cf"
        return "".join(cells)

    yield _table(
        ("training records", curve.metric, "95 % interval", f"{lowest:.2f} to {highest:.2f}"),
        [
            (
                f"{p.records:,}" + (" (extrapolated)" if p in curve.further else ""),
                f"{p.score:.4f}", _between(p.low, p.high), bar(p),
            )
            for p in every
        ],
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_text(str(cell)) for cell in row)} |" for row in lines)


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _text(text: str) -> str:
    """Escape the special characters of Markdown and HTML, and put the text on one line."""
    plain = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", plain)
