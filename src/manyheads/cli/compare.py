"""`manyheads compare`: trains each task alone and all together, with a verdict per task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import JsonFile, overrides_of, write_json_to
from manyheads.config import load_config
from manyheads.errors import RequestError, listing
from manyheads.storage import is_comparison

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def compare(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML file with two tasks or more.")
    ],
    *,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Runs of each option, from the configuration's seed upwards."
        ),
    ] = 3,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder for the runs and the result.")
    ] = Path("comparison"),
    test_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]FILE",
            help="Labelled data to score on, for all tasks or for one. Repeatable. Default: the "
            "validation data.",
        ),
    ] = None,
    json_file: JsonFile = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the result as a PNG (needs matplotlib)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any field of CONFIG. Repeatable."),
    ] = None,
) -> None:
    """Find out whether training the tasks together helps.

    Trains each task alone and all together, with the same data and budget, for each seed, and
    reports for each task the change due to joint training, its confidence interval, and the time
    saved. To continue a comparison that was stopped, run the same command again.
    """
    begun = is_comparison(out)
    configuration = load_config(config, overrides_of({}, settings or ()), stored=begun)
    files = _test_files(test_file or [])
    from manyheads.api.progress import comparison_progress
    from manyheads.display import show
    from manyheads.display.comparison import (
        comparison_sections,
        draw_comparison,
        require_matplotlib,
    )
    from manyheads.modeling import keep_freed_memory
    from manyheads.training import compare as run

    if picture is not None:
        require_matplotlib()
    keep_freed_memory()
    comparison = run(
        configuration,
        seeds=seeds,
        out=out,
        test_files=files,
        reporter_of=comparison_progress(),
        report=lambda text: tell("compare", text),
    )
    if picture is not None:
        draw_comparison(comparison, picture)
    write_json_to(json_file, comparison.to_json())
    if json_file != "-":
        show(comparison_sections(comparison))


def _test_files(values: list[str]) -> dict[str, str] | str | None:
    """Read `--test-file FILE` and `--test-file TASK=FILE`."""
    if not values:
        return None
    named = [value.partition("=") for value in values]
    if len(values) == 1 and (not named[0][1] or Path(values[0]).exists()):
        return values[0]
    files: dict[str, str] = {}
    for task, equals, path in named:
        if not equals or task in files:
            raise RequestError(
                f"--test-file is given as {listing(values)}",
                expected="one FILE for all tasks, or one TASK=FILE for each",
            )
        files[task] = path
    return files
