"""`manyheads evaluate`: a model's metrics on labelled data, as tables and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    Backend,
    BatchTokens,
    Device,
    FieldMap,
    FileFormat,
    JsonFile,
    LabelSeparator,
    Tasks,
    Text2Field,
    TextField,
    Threads,
    TokensField,
    layout_of,
    task_names,
    write_json_to,
)
from manyheads.config import BATCH_TOKENS
from manyheads.storage import Prefer, atomic_file, other_best

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model folder, a .pt checkpoint, or the folder of a run: its best model. "
            f"Default: the latest checkpoint in {DEFAULT_MODEL}.",
            show_default=False,
        ),
    ] = None,
    *,
    checkpoint: Annotated[
        Prefer | None,
        typer.Option(help="Which model of a run's folder to score.", show_default=False),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled data of any format. Default: the validation data."
        ),
    ] = None,
    format: FileFormat = None,
    text_field: TextField = None,
    text2_field: Text2Field = None,
    tokens_field: TokensField = None,
    field_map: FieldMap = None,
    label_separator: LabelSeparator = None,
    json_file: JsonFile = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every record with an error as JSON lines: gold, predicted."
        ),
    ] = None,
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

    Also the frame accuracy, which is the share of sentences with all tasks right, and how far the
    sentence embedding has moved from that of the encoder that training began with.
    """
    from manyheads.display import evaluation_tables, show
    from manyheads.evaluation import evaluate as run
    from manyheads.evaluation.report import error_lines

    report = run(
        model,
        checkpoint=checkpoint,
        data=file,
        layout=layout_of(format, text_field, text2_field, tokens_field, field_map, label_separator),
        tasks=task_names(tasks),
        backend=backend,
        device=device,
        threads=threads,
        batch_tokens=batch_tokens,
        drift=drift,
        warn=lambda text: tell("warning", text),
    )
    if model is None:
        tell_which(Path(report.model))
    write_json_to(json_file, report.to_json())
    if errors is not None:
        with atomic_file(errors) as stream:
            stream.writelines(json.dumps(line).encode() + b"\n" for line in error_lines(report))
    if json_file != "-":
        show(evaluation_tables(report.evaluation, report.kinds))
        if drift and report.no_drift:
            tell("note", f"how far the embedding has moved is not known: {report.no_drift}")


def tell_which(scored: Path) -> None:
    """Report which model was scored where none was named, and whether the best is another."""
    best = other_best(scored)
    other = f"; the best model is another: {best}" if best else ""
    tell("note", f"scored {scored}{other}")
