"""`manyheads add-label`: adds classes or entity types to a trained task from a few examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import Overwrite, Threads, TrainedModel
from manyheads.display.tables import printable

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(name="add-label")
def add_label(
    model: TrainedModel,
    *,
    task: Annotated[str, typer.Option(metavar="NAME", help="The task that has new labels.")],
    train_file: Annotated[
        str,
        typer.Option(
            "--train",
            "--train-file",
            metavar="FILE",
            help="Examples of the new labels: about ten of each.",
        ),
    ],
    kept: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Labelled records of the old labels. Default: the validation data of the run, and "
            "training records where they have few of an old label.",
        ),
    ] = None,
    save_dir: Annotated[
        Path,
        typer.Option("--output", "--save-dir", metavar="DIR", help="The folder of the new model."),
    ] = Path("extended_model"),
    limit: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="The right answers that may be lost, in percentage points of the kept records, "
            "for tasks with one class a text. A lower limit also costs the new classes some right "
            "answers.",
        ),
    ] = 0.3,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Add classes or entity types to a trained task, from a few examples.

    The weights of the old labels, the other tasks and the embedding stay as they are, so that the
    most probable label can only change to a new one. How often it does is counted on the kept
    records. The task's calibration and thresholds are left out. MODEL itself is not modified.
    """
    from manyheads.training import add_label as verb

    result = verb(
        model, task, train_file=train_file, kept=kept, save_dir=save_dir, limit=limit,
        overwrite=overwrite, threads=threads, report=lambda text: tell("add-label", text),
        warn=lambda text: tell("warning", text),
    )  # fmt: skip
    print(f"{printable(str(result))}\nThe new model: {result.path}")
