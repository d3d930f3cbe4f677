"""`manyheads evaluate`: a model's metrics on labelled data, as tables and as JSON."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    Backend,
    BatchTokens,
    Device,
    JsonFile,
    Tasks,
    Threads,
    task_names,
    write_json_to,
)
from manyheads.config import BATCH_TOKENS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model folder, a .pt checkpoint, or the folder of a run, whose newest "
            "checkpoint it is then.",
        ),
    ] = DEFAULT_MODEL,
    *,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled data of any format. Default: the validation data."
        ),
    ] = None,
    json_file: JsonFile = None,
    tasks: Tasks = None,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Threads = None,
    batch_tokens: BatchTokens = BATCH_TOKENS,
    drift: Annotated[
        bool,
        typer.Option(
            help="Compare the embedding with that of the encoder that training began with, on at "
            "most 300 of the records."
        ),
    ] = True,
) -> None:
    """Precision, recall and F1 of each task on labelled data.

    Also the frame accuracy: how often all tasks of a sentence are right; and how far the sentence
    embedding has gone from that of the encoder that training began with.
    """
    from manyheads.cli.report import evaluation_tables, show
    from manyheads.evaluation import evaluate as run

    report = run(
        model,
        data=file,
        tasks=task_names(tasks),
        backend=backend,
        device=device,
        threads=threads,
        batch_tokens=batch_tokens,
        drift=drift,
        warn=lambda text: tell("warning", text),
    )
    write_json_to(json_file, report.to_json())
    if json_file != "-":
        show(evaluation_tables(report.evaluation, report.kinds))
        if drift and report.no_drift:
            tell("note", f"how far the embedding has gone is not known: {report.no_drift}")
