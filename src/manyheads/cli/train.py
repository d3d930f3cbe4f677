"""`manyheads train`: a configuration, the options that override it, and a run with its progress."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from manyheads.cli.errors import tell
from manyheads.cli.help import SettingsCommand
from manyheads.cli.options import (
    NamedTasks,
    Overwrite,
    Resume,
    Settings,
    named_tasks,
    overrides_of,
    takes_config_fields,
)
from manyheads.config import Config, key_groups
from manyheads.data.starting_config import starting_defaults
from manyheads.errors import counted

if TYPE_CHECKING:
    from manyheads.api.model import TrainedModel
    from manyheads.training import TrainResult

app = typer.Typer(add_completion=False, rich_markup_mode=None)


_WITH_FILE = starting_defaults()


class _TrainCommand(SettingsCommand):
    defaults: ClassVar = {
        key.name: f"{key.default}; with FILE, {_WITH_FILE[key.name]}"
        for group in key_groups()
        for key in group.keys
        if key.name in _WITH_FILE
    }


@app.command(cls=_TrainCommand)
@takes_config_fields(defaults=_TrainCommand.defaults)
def train(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG | FILE ...]",
            help="A YAML configuration, or labelled data of any format, from which the tasks are "
            "inferred. Default: config.yaml.",
        ),
    ] = None,
    *,
    tasks: NamedTasks = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    settings: Settings = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write report.html to save_dir when done.")
    ] = False,
    **fields: str | None,
) -> None:
    """Train a model; save a checkpoint after each epoch, and the best model.

    They are saved in save_dir, the best model in its folder best. Options override the
    configuration; their names may have underscores or hyphens.
    """
    from manyheads.api.training import CONFIG, default_config, report_run
    from manyheads.training.files import run_config

    overrides = dict(overrides_of(fields, settings or ())) | named_tasks(tasks)
    default = context.obj["default_config"] or Path(CONFIG)
    chosen = run_config(paths or default_config(resume, default), overrides, resume=resume)
    if chosen.found is not None:
        from manyheads.display import inferred_tables, show

        show(inferred_tables(chosen.found))
    run_training(chosen.config, chosen.source, resume=resume, overwrite=overwrite)
    if report and (path := report_run(chosen.config.save_dir, lambda text: tell("warning", text))):
        print(f"Report: {path}")


def run_training(config: Config, title: str, *, resume: bool, overwrite: bool) -> TrainedModel:
    """Train, show the progress under a title, and print where the best model is."""
    from manyheads.api.progress import progress_of
    from manyheads.api.training import run
    from manyheads.modeling import keep_freed_memory
    from manyheads.training import is_first_process

    keep_freed_memory()
    progress = progress_of(config)
    progress.message(title)
    model = run(config, resume, overwrite, reporter=progress)
    if is_first_process():
        _print_result(model.result)
    return model


def _print_result(result: TrainResult) -> None:
    from manyheads.display.tables import printable

    if result.best_score is None:
        print(f"Model: {result.best}")
    else:
        print(
            f"Best model: epoch {result.best_epoch}, score {result.best_score:.4f}, {result.best}"
        )
    for task, folder in result.best_of.items():
        print(f"Best model for {task}: {folder}")
    if result.summary:
        records = result.history[result.best_epoch - 1]["metrics"]["records"]
        print(f"\nOn the {counted(records, 'validation record')}:")
        for sentence in result.summary:
            print(f"  {printable(sentence)}")
    if result.summary or result.best_score is None:
        print("\nNext:")
        for command, purpose in next_steps(result.save_dir, scored=result.best_score is not None):
            print(f"  {command:<48}  {purpose}")


def next_steps(save_dir: Path, *, scored: bool = True) -> list[tuple[str, str]]:
    """Return the commands that follow training, each with its purpose.

    Args:
        save_dir: the folder of the run.
        scored: whether validation records were left to score the model on.
    """
    model = shlex.quote(str(save_dir))
    predict = (
        f'manyheads predict {model} "your own text"', "answers for texts, files or your input"
    )  # fmt: skip
    serve = f"manyheads serve {model}", "the same over HTTP, with a page to try it"
    if not scored:
        return [predict, serve]
    return [
        predict,
        (f"manyheads report {model}", "every error, and what to work on first, as a page"),
        serve,
        (f"manyheads refit {model}", "once more, on the validation records too"),
    ]
