"""The verbs about a model's answers: `evaluate`, `report`, `calibrate` and `thresholds`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from manyheads.api.arguments import optional_data, optional_texts, warn
from manyheads.api.model import Model
from manyheads.config import BATCH_TOKENS
from manyheads.data.json_lines import json_line
from manyheads.data.readers import Layout
from manyheads.errors import RequestError, shorten
from manyheads.inference import Runtime
from manyheads.storage import Prefer, StrPath, atomic_file, require_folder

if TYPE_CHECKING:
    from manyheads.evaluation import CalibrationReport, EvaluationReport, ThresholdReport
    from manyheads.evaluation.report import Report
    from manyheads.inference import LoadedModel


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
    batch_tokens: int = BATCH_TOKENS,
    drift: bool = True,
    errors: StrPath | None = None,
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
        batch_tokens: tokens of a batch, padding included.
        drift: whether the embedding is compared with that of the original encoder.
        errors: where to write every record with an error as JSON lines; default: nowhere.

    Raises:
        ManyheadsError: the model or the data cannot be used, or have no label in common.
    """
    return evaluate_model(
        model, data, checkpoint=checkpoint, layout=layout, tasks=tasks,
        runtime=Runtime(backend, device, threads, batch_tokens), drift=drift, errors=errors,
    )  # fmt: skip


def evaluate_model(
    model: StrPath | LoadedModel | None, data: Any, *, errors: StrPath | None, **options: Any
) -> EvaluationReport:
    """Score a model that may be loaded already (see `evaluate`)."""
    from manyheads.evaluation import evaluate as verb

    if errors is not None:
        require_folder(errors)
    with ExitStack() as named:
        path = optional_data(data, "evaluation", named)
        found = verb(model, data=path, warn=warn, **options)
    if errors is not None:
        write_errors(found, errors)
    return found


def write_errors(evaluated: EvaluationReport, path: StrPath) -> None:
    """Write every record with an error as a JSON line: the gold label and the predicted one."""
    from manyheads.evaluation.report import error_lines

    with atomic_file(path) as stream:
        stream.writelines(json_line(line) for line in error_lines(evaluated))


def report(
    model: StrPath | None = None,
    data: Any = None,
    *,
    against: StrPath | None = None,
    suspects: bool = False,
    curve: bool = False,
    out: StrPath | None = None,
    format: Literal["html", "md"] | None = None,
    checkpoint: Prefer | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
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
        out: where to write the report; default: nowhere.
        format: its form; default: Markdown if `out` ends with `.md`, or else an HTML page.
        checkpoint: which model of a run's folder is scored; default: the best one.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks to score; default: all that the data have labels for.
        slices: fields of the records by whose values scores are compared.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.
        batch_tokens: tokens of a batch, padding included.
        drift: whether the embedding is compared with that of the original encoder.
        progress: whether the progress of `suspects` and `curve` is shown.

    Raises:
        ManyheadsError: the model or the data cannot be used, or no record has a field of `slices`.
    """
    from manyheads.api.searches import find_suspects, measure_curves
    from manyheads.display.report import write_report
    from manyheads.evaluation.report import report as verb

    if format not in (None, "html", "md"):
        raise RequestError(f"the format of the report is {shorten(format)}", expected="html or md")
    if out is not None:
        require_folder(out)
    with ExitStack() as named:
        found = verb(
            model, data=optional_data(data, "report", named), against=against,
            suspects=find_suspects(progress) if suspects else None,
            curve=measure_curves(progress) if curve else None, checkpoint=checkpoint,
            layout=layout, tasks=tasks, slices=slices,
            runtime=Runtime(backend, device, threads, batch_tokens), drift=drift, warn=warn,
        )  # fmt: skip
    if out is not None:
        write_report(found, out, as_markdown=None if format is None else format == "md")
    return found


def calibrate(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    unknown: Any = None,
    layout: Layout | None = None,
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> CalibrationReport:
    """Calibrate a trained model's scores; the command is `manyheads calibrate`.

    Training does this by itself. The calibration is stored in the model's folder; thresholds are of
    the scores before, and are removed.

    Args:
        model: a model folder, a run's folder (its best model), or a `Model`, which then predicts
            with the calibration.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        unknown: texts that are of no class that the model knows, in memory or a file.
        layout: how `data` are laid out, where content and names do not show it.
        threads: processor threads; default: all available cores.
        batch_tokens: tokens of a batch, padding included.

    Raises:
        ManyheadsError: the model or the data cannot be used, or there are too few records.
    """
    from manyheads.evaluation import calibrate as verb

    with ExitStack() as named:
        found = verb(
            model, data=optional_data(data, "calibration", named),
            unknown=optional_texts(unknown, "unknown", named), layout=layout, threads=threads,
            batch_tokens=batch_tokens, warn=warn,
        )  # fmt: skip
    if isinstance(model, Model):
        model._read_trust_again()
    return found


def thresholds(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    precision: float = 0.95,
    confidence: float = 0.95,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> ThresholdReport:
    """Find the scores from which a share of the answers is right, and store them in the model.

    The command is `manyheads thresholds`.

    Args:
        model: a model folder, a run's folder (its best model), or a `Model`, which then predicts
            with the thresholds. A model that was loaded from the path before has to be loaded
            again.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        precision: the share of answers that has to be right.
        confidence: the probability with which it has to hold on further data of the same kind.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks; default: all that are calibrated.
        threads: processor threads; default: all available cores.
        batch_tokens: tokens of a batch, padding included.

    Raises:
        ManyheadsError: the model is not calibrated, the data cannot be used, or a share is
            impossible.
    """
    from manyheads.evaluation import thresholds as verb

    with ExitStack() as named:
        path = optional_data(data, "thresholds", named)
        found = verb(
            model, precision=precision, confidence=confidence, data=path, layout=layout,
            tasks=tasks, threads=threads, batch_tokens=batch_tokens, warn=warn,
        )  # fmt: skip
    if isinstance(model, Model):
        model._read_trust_again()
    return found
