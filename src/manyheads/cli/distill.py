"""`manyheads distill`: trains a student on the answers of trained models."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.help import SettingsCommand
from manyheads.cli.options import Overwrite, Resume, Settings, overrides_of, takes_config_fields
from manyheads.cli.train import run_training
from manyheads.errors import listing

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=SettingsCommand)
@takes_config_fields(
    without=("init_from", "teacher", "num_classes", "num_ner_labels"),
    defaults={"save_dir": "distilled", "student_layers": "all of the encoder", "lora": "off"},
    otherwise="that of TEACHER",
)
def distill(
    teachers: Annotated[
        list[str],
        typer.Argument(
            metavar="TEACHER",
            help="Model folders, .pt checkpoints or the folders of runs; their mean is learned. "
            "Or JSON lines with soft labels, beside a model.",
        ),
    ],
    *,
    texts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Unlabelled sentences on which the student learns too: plain lines (.txt), or "
            "records of any format.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
    **fields: str | None,
) -> None:
    """Train a student on the answers of trained models, beside the labels.

    Tasks, data and settings are those of the first TEACHER. The student starts from the same
    pretrained encoder; --student-layers makes it smaller and faster. It goes to save_dir, by
    default the folder distilled.
    """
    from manyheads.training import distill_config

    chosen = overrides_of(fields, settings or ())
    configuration = distill_config(teachers, texts, chosen, resume=resume)
    title = f"Teacher: {listing(teachers)}"
    run_training(configuration, title, resume=resume, overwrite=overwrite)
