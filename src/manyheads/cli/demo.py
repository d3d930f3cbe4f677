"""`manyheads demo`: trains on the demonstration data of the package, and predicts sentences."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.options import Overwrite, Resume, Settings, overrides_of
from manyheads.cli.train import run_training
from manyheads.data.demo import SETTINGS, TEXTS
from manyheads.display.tables import printable
from manyheads.tasks import two_lines

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    *,
    save_dir: Annotated[str, typer.Option(metavar="PATH", help="The folder of the model.")] = str(
        SETTINGS["save_dir"]
    ),
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
) -> None:
    """Train a small model in a minute, and see what it answers.

    Is a sentence a question or a statement, and which persons and places does it mention? The data
    come with the package.
    """
    from manyheads.api.training import demo_config

    config = demo_config(overrides_of({"save_dir": save_dir}, settings or ()), resume)
    model = run_training(config, "The demonstration", resume=resume, overwrite=overwrite)
    print("\nSentences with names and places that the model has not seen:\n")
    for prediction in model.predict(TEXTS):
        print(f"{printable(prediction.text)}\n{two_lines(prediction)}\n")
