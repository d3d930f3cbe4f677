"""`manyheads thresholds`: the scores from which enough of a model's answers are right."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    BatchTokens,
    DataOptions,
    JsonFile,
    LabelledFile,
    ModelFolder,
    Tasks,
    Threads,
    takes_groups,
    task_names,
    write_json_to,
)
from manyheads.config import BATCH_TOKENS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@takes_groups
def thresholds(
    model: ModelFolder = DEFAULT_MODEL,
    *,
    precision: Annotated[
        float, typer.Option(metavar="SHARE", help="The share of answers that must be right.")
    ] = 0.95,
    confidence: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="The probability with which that must hold on further data.",
        ),
    ] = 0.95,
    file: LabelledFile = None,
    data: DataOptions,
    tasks: Tasks = None,
    json_file: JsonFile = None,
    threads: Threads = None,
    batch_tokens: BatchTokens = BATCH_TOKENS,
) -> None:
    """Find, by task and label, the score from which that share of the answers is right.

    The scores are stored in the model. `predict` leaves answers below them undecided. Exit status
    1 if a task does not reach the precision at any score.
    """
    from manyheads.evaluation import thresholds as run

    report = run(
        model, precision=precision, confidence=confidence, data=file, layout=data.layout(),
        tasks=task_names(tasks), threads=threads, batch_tokens=batch_tokens,
        warn=lambda text: tell("warning", text),
    )  # fmt: skip
    write_json_to(json_file, report.to_json())
    if json_file != "-":
        from manyheads.display import show, threshold_tables

        show(threshold_tables(report))
    if not report.reached:
        raise typer.Exit(1)
