"""`manyheads init`: a commented configuration for labelled files, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from manyheads.cli.help import SettingsCommand
from manyheads.cli.options import (
    NamedTasks,
    Settings,
    named_tasks,
    overrides_of,
    takes_config_fields,
)
from manyheads.data.starting_config import starting_defaults

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class _InitCommand(SettingsCommand):
    defaults: ClassVar = starting_defaults()


@app.command(cls=_InitCommand)
@takes_config_fields(
    without=("train_file", "num_classes", "num_ner_labels"), defaults=_InitCommand.defaults
)
def init(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE ...", help="Labelled data of any format.")
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="CONFIG", help="The configuration to write.")] = Path(
        "config.yaml"
    ),
    tasks: NamedTasks = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
    settings: Settings = None,
    **fields: str | None,
) -> None:
    """Write a configuration for labelled data, to read and change before training."""
    from manyheads.api.data import write_starting_config
    from manyheads.display import inferred_tables, show

    overrides: dict[str, Any] = dict(overrides_of(fields, settings or ()))
    _, found = write_starting_config(files, out, overrides | named_tasks(tasks), overwrite)
    show(inferred_tables(found))
    print(f"The configuration: {out}\nTrain with it: manyheads train {out}")
