"""The verbs about a model's answers: `evaluate`, `report`, `calibrate` and `thresholds`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import optional_data
from manyheads.data.readers import Layout
from manyheads.storage import Prefer, StrPath

if TYPE_CHECKING:
    from manyheads.evaluation import CalibrationReport, EvaluationReport, ThresholdReport
    from manyheads.evaluation.report import Report


def evaluate(
    model: StrPath | None = None,
    data: Any = None,
    *,
    checkpoint: Prefer | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    drift: bool = True,
) -> EvaluationReport:
    """Score a model on labelled records; the command is `manyheads evaluate`.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default: `saved_model`.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        checkpoint: which model of a run's folder is scored; default: the best one, or the latest
            where no model is named.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks to score; default: all that the data have labels for.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.
        drift: whether the embedding is compared with that of the original encoder.

    Raises:
        ManyheadsError: the model or the data cannot be used, or have no label in common.
    """
    from manyheads.evaluation import evaluate as verb

    with ExitStack() as named:
        path = optional_data(data, "evaluation", named)
        return verb(
            model, data=path, checkpoint=checkpoint, layout=layout, tasks=tasks, backend=backend,
            device=device, threads=threads, drift=drift,
        )  # fmt: skip


def report(
    model: StrPath | None = None,
    data: Any = None,
    *,
    against: StrPath | None = None,
    suspects: bool = False,
    curve: bool = False,
    out: StrPath | None = None,
    checkpoint: Prefer | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    drift: bool = True,
    progress: bool = True,
) -> Report:
    """Report what a model gets wrong; the command is `manyheads report`.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default: `saved_model`.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        against: another model; what changed from it to `model` is shown, and whether it can be
            chance.
        suspects: whether to look for wrong labels in the training data (see `suspects`).
        curve: whether to measure the score by number of training records, with heads on the
            frozen encoder, and to extrapolate it.
        out: where to write the report, as Markdown if it ends with `.md`, or else as an HTML page;
            default: nowhere.
        checkpoint: which model of a run's folder is scored; default: the best one.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks to score; default: all that the data have labels for.
        slices: fields of the records by whose values scores are compared.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.
        drift: whether the embedding is compared with that of the original encoder.
        progress: whether the progress of `suspects` and `curve` is shown.

    Raises:
        ManyheadsError: the model or the data cannot be used, or no record has a field of `slices`.
    """
    from manyheads.api.searches import find_suspects, measure_curves
    from manyheads.display.report import write_report
    from manyheads.evaluation.report import report as verb

    with ExitStack() as named:
        found = verb(
            model, data=optional_data(data, "report", named), against=against,
            suspects=find_suspects(progress) if suspects else None,
            curve=measure_curves(progress) if curve else None, checkpoint=checkpoint,
            layout=layout, tasks=tasks, slices=slices, backend=backend, device=device,
            threads=threads, drift=drift,
        )  # fmt: skip
    if out is not None:
        write_report(found, out)
    return found


def calibrate(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    unknown: StrPath | None = None,
    threads: int | None = None,
) -> CalibrationReport:
    """Calibrate a trained model's scores; the command is `manyheads calibrate`.

    Training does this by itself. The calibration is stored in the model's folder; thresholds are of
    the scores before, and are removed.

    Args:
        model: a model folder, or a run's folder (its best model).
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        unknown: a file of texts that are of no class that the model knows.
        threads: processor threads; default: all available cores.

    Raises:
        ManyheadsError: the model or the data cannot be used, or there are too few records.
    """
    from manyheads.evaluation import calibrate as verb

    with ExitStack() as named:
        path = optional_data(data, "calibration", named)
        return verb(model, data=path, unknown=unknown, threads=threads)


def thresholds(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    precision: float = 0.95,
    confidence: float = 0.95,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
) -> ThresholdReport:
    """Find the scores from which a share of the answers is right, and store them in the model.

    The command is `manyheads thresholds`. Load the model again to predict with them.

    Args:
        model: a model folder, or a run's folder (its best model).
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        precision: the share of answers that has to be right.
        confidence: the probability with which it has to hold on further data of the same kind.
        tasks: the tasks; default: all that are calibrated.
        threads: processor threads; default: all available cores.

    Raises:
        ManyheadsError: the model is not calibrated, the data cannot be used, or a share is
            impossible.
    """
    from manyheads.evaluation import thresholds as verb

    with ExitStack() as named:
        path = optional_data(data, "thresholds", named)
        return verb(
            model, precision=precision, confidence=confidence, data=path, tasks=tasks,
            threads=threads,
        )  # fmt: skip
