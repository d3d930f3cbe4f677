"""`manyheads add-head`: adds a task to a trained model and leaves its other outputs unchanged."""

from __future__ import annotations

from typing import Annotated

import typer

from manyheads.cli.help import SettingsCommand
from manyheads.cli.options import (
    Overwrite,
    Resume,
    Settings,
    TrainedModel,
    overrides_of,
    takes_config_fields,
)
from manyheads.cli.train import run_training
from manyheads.tasks import known_kinds

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(name="add-head", cls=SettingsCommand)
@takes_config_fields(
    without=("model_name", "init_from", "num_classes", "num_ner_labels"),
    defaults={"freeze": "encoder"},
)
def add_head(
    model: TrainedModel,
    *,
    task: Annotated[str, typer.Option(metavar="NAME", help="The name of the new task.")],
    kind: Annotated[
        str,
        typer.Option(metavar="KIND", help=f"The kind of the new task: {', '.join(known_kinds())}."),
    ],
    train_file: Annotated[
        str, typer.Option("--train", "--train-file", metavar="FILE", help="Training records.")
    ],
    save_dir: Annotated[
        str,
        typer.Option(
            "--output",
            "--save-dir",
            metavar="DIR",
            help="The folder for checkpoints and, in its folder best, the new model.",
        ),
    ],
    valid_file: Annotated[
        str | None,
        typer.Option(
            "--valid",
            "--valid-file",
            metavar="FILE",
            help="Validation records, by which the best head is chosen. Default: a part of the "
            "training records is held out.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="The records' field with the labels. Default: the kind's own."
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
    **fields: str | None,
) -> None:
    """Add a task to a trained model; its other outputs stay bit-identical.

    Only the new head is trained. The encoder is frozen (unless --freeze says otherwise), so the
    other tasks' results and the embedding do not change. MODEL itself is not modified: the new
    model has its tasks and the new one.
    """
    from manyheads.training import add_head_config

    configuration = add_head_config(
        model, task, overrides_of({**fields, "save_dir": save_dir}, settings or ()), kind=kind,
        train_file=train_file, valid_file=valid_file, field=field, resume=resume,
    )  # fmt: skip
    run_training(configuration, f"Model: {model}", resume=resume, overwrite=overwrite)
