"""`manyheads evaluate`: a model's metrics on labelled data, as tables and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    ComputeOptions,
    DataOptions,
    JsonFile,
    ScoringOptions,
    model_argument,
    takes_groups,
    write_json_to,
)
from manyheads.storage import other_best, require_folder

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@takes_groups
def evaluate(
    model: Annotated[str | None, model_argument(default="the latest checkpoint")] = None,
    *,
    scoring: ScoringOptions,
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every record with an error as JSON lines: gold, predicted."
        ),
    ] = None,
    data: DataOptions,
    compute: ComputeOptions,
    json_file: JsonFile = None,
) -> None:
    """Precision, recall and F1 of each task on labelled data.

    Also the frame accuracy, which is the share of sentences with all tasks right, and how far the
    sentence embedding has moved from that of the encoder that training began with.
    """
    from manyheads.api.scoring import write_errors
    from manyheads.display import evaluation_tables, show
    from manyheads.evaluation import evaluate as run

    if errors is not None:
        require_folder(errors)
    report = run(
        model, layout=data.layout(), warn=lambda text: tell("warning", text),
        runtime=compute.runtime, **scoring.arguments(),
    )  # fmt: skip
    if model is None:
        tell_which(Path(report.model))
    write_json_to(json_file, report.to_json())
    if errors is not None:
        write_errors(report, errors)
    if json_file != "-":
        show(evaluation_tables(report.evaluation, report.kinds, report.confidence))
        if scoring.drift and report.no_drift:
            tell("note", f"how far the embedding has moved is not known: {report.no_drift}")


def tell_which(scored: Path) -> None:
    """Report which model was scored where none was named, and whether the best is another."""
    best = other_best(scored)
    other = f"; the best model is another: {best}" if best else ""
    tell("note", f"scored {scored}{other}")
