"""The command line: arguments, messages and exit status.

A command is a module of its own with a typer `app`, imported only when it is asked for; so help
and prediction start without the packages that training needs. docs/files.md lists the exit
statuses.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from manyheads.cli.errors import catching
from manyheads.errors import RequestError, listing, nearest
from manyheads.version import __version__

COMMANDS = (
    "train", "init", "demo", "add-head", "add-label", "distill", "refit", "evaluate", "report",
    "calibrate", "thresholds", "compare", "predict", "export", "push", "serve", "data", "info",
)  # fmt: skip
"""The commands in the order of the help; each is the module of its name, hyphens as underscores."""


def main(
    argv: Sequence[str] | None = None,
    *,
    command: str | None = None,
    default_config: Path | None = None,
) -> int:
    """Run a command line and return its exit status.

    Args:
        argv: the arguments. Default: those of the process.
        command: the command whose arguments these are, for a script that is that command.
        default_config: what `train` reads where no configuration is named. Default:
            `config.yaml` in the working directory.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if command is None:
        program, target = "manyheads", typer.main.get_command(_app)
        arguments = arguments or ["--help"]
    else:
        program, target = f"python {sys.argv[0]}", _load(command)
    return catching(lambda: _invoke(target, program, arguments, default_config))


def _invoke(target: Any, program: str, arguments: list[str], default_config: Path | None) -> int:
    context = target.make_context(
        program,
        arguments,
        obj={"default_config": default_config},
        token_normalize_func=lambda name: name.replace("_", "-"),
        help_option_names=["--help", "-h"],
        max_content_width=shutil.get_terminal_size().columns,
    )
    with context:
        return target.invoke(context) or 0


def _load(name: str) -> Any:
    command = typer.main.get_command(import_module(f"manyheads.cli.{name.replace('-', '_')}").app)
    command.name = name
    return command


class _LazyGroup(TyperGroup):
    """The commands by name, each imported when it is first needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            raise RequestError(
                f"there is no command {args[0]!r}{nearest(args[0], COMMANDS)}",
                expected=f"one of: {listing(COMMANDS)}",
                fix="See `manyheads --help`.",
            )
        return super().resolve_command(ctx, args)


_app = typer.Typer(cls=_LazyGroup, add_completion=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"manyheads {__version__}")
        raise typer.Exit


@_app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """One sentence encoder, many heads: classes, entities and the embedding from one pass."""
