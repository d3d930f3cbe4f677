"""`manyheads refit`: repeats a finished run on all of its labelled records."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.options import DEFAULT_MODEL, ModelFolder, Overwrite, Resume
from manyheads.cli.train import run_training

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def refit(
    model: ModelFolder = DEFAULT_MODEL,
    *,
    save_dir: Annotated[
        str,
        typer.Option(
            "--output",
            "--save-dir",
            metavar="DIR",
            help="The folder for checkpoints and, in its folder best, the new model.",
        ),
    ] = "refitted",
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="As for train. Default: that of the run before."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processor threads. Default: those of the run before."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train once more, on all labelled records of a run: those that it was validated on too.

    Settings and the number of epochs are those that the run chose. The new model is usually better,
    the more so the fewer records there are. It has no scores of its own: no record is left to
    score it on. Its calibration is that of the model before, whose scores tell what to expect.
    """
    from manyheads.training import refit_config

    settings = {"save_dir": save_dir, "device": device, "threads": threads}
    configuration = refit_config(model, settings, resume=resume)
    run_training(
        configuration,
        f"Refitting {model} on all of its records",
        resume=resume,
        overwrite=overwrite,
    )
