"""`manyheads calibrate`: calibrates the scores of a trained model."""

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
    Threads,
    takes_groups,
    write_json_to,
)
from manyheads.config import BATCH_TOKENS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@takes_groups
def calibrate(
    model: ModelFolder = DEFAULT_MODEL,
    *,
    file: LabelledFile = None,
    unknown: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Texts of no class that the model knows, to recognise such texts better.",
        ),
    ] = None,
    data: DataOptions,
    json_file: JsonFile = None,
    threads: Threads = None,
    batch_tokens: BatchTokens = BATCH_TOKENS,
) -> None:
    """Calibrate a trained model, so that of answers with score 0.8 eight in ten are right.

    Training does this by itself; models of earlier versions, and data that have changed, need it.
    Thresholds belong to the former scores and are removed.
    """
    from manyheads.evaluation import calibrate as run

    report = run(
        model, data=file, unknown=unknown, layout=data.layout(), threads=threads,
        batch_tokens=batch_tokens, warn=lambda text: tell("warning", text),
    )  # fmt: skip
    write_json_to(json_file, report.to_json())
    if json_file != "-":
        from manyheads.display import calibration_table, show

        show([calibration_table(report)])
