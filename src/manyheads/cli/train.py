"""`manyheads train`: a configuration, the options laid over it, and a run with its progress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.help import SettingsCommand
from manyheads.cli.options import Resume, Settings, overrides_of, takes_config_fields
from manyheads.config import Config, load_config
from manyheads.errors import RequestError
from manyheads.tasks import kind_of

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=SettingsCommand)
@takes_config_fields()
def train(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="A YAML file. Default: config.yaml."),
    ] = None,
    *,
    resume: Resume = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that is in save_dir.")
    ] = False,
    settings: Settings = None,
    **fields: str | None,
) -> None:
    """Train a model; keep a checkpoint an epoch and the best.

    They go to save_dir, the best model to its folder best. Options lie over what the
    configuration says; underscores in their names are as good as hyphens.
    """
    path = config or _default_config(context)
    configuration = load_config(path, overrides_of(fields, settings or ()))
    run_training(configuration, f"Configuration: {path}", resume=resume, overwrite=overwrite)


def run_training(config: Config, title: str, *, resume: bool, overwrite: bool) -> None:
    """Train, show the progress under a title, and tell where the best model is."""
    from manyheads.display import TrainingProgress
    from manyheads.modeling import keep_freed_memory
    from manyheads.training import is_first_process
    from manyheads.training import train as run

    keep_freed_memory()
    if not is_first_process():
        run(config, resume=resume, overwrite=overwrite)
        return
    main = {name: kind_of(task.kind).main_metric for name, task in config.tasks.items()}
    with TrainingProgress(main) as progress:
        progress.message(title)
        result = run(config, resume=resume, overwrite=overwrite, reporter=progress)
    print(f"Best model: epoch {result.best_epoch}, score {result.best_score:.4f}, {result.best}")
    for task, folder in result.best_of.items():
        print(f"Best model for {task}: {folder}")


def _default_config(context: typer.Context) -> Path:
    path: Path = context.obj["default_config"] or Path("config.yaml")
    if not path.exists():
        raise RequestError(
            f"no configuration is named, and there is no {path} here",
            expected="a YAML file",
            fix=f"Name one: {context.command_path} CONFIG",
        )
    return path
