"""`manyheads report`: what a model gets wrong, as one page to look at."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    ComputeOptions,
    InputOptions,
    ScoringOptions,
    model_argument,
    takes_groups,
    task_names,
)
from manyheads.errors import counted
from manyheads.storage import require_folder

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Form(str, Enum):
    """The form of the report."""

    HTML = "html"
    MD = "md"


@app.command()
@takes_groups
def report(
    model: Annotated[str | None, model_argument(default="the best model")] = None,
    against: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Another model: show what changed from it to MODEL."),
    ] = None,
    *,
    scoring: ScoringOptions,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where to write; - is standard output. Default: report.html or report.md.",
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            show_default=False,
            help="A page to look at, or Markdown for a pull request. Default: by the ending of the "
            "output, or else html.",
        ),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(
            "--slice",
            metavar="FIELD,...",
            help="Compare scores by the values of a field of the data. Repeatable.",
        ),
    ] = None,
    suspects: Annotated[
        bool,
        typer.Option(help="Look for wrong labels in the training data, as `data suspects`."),
    ] = False,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            help="Measure the score by number of training records, with heads on the frozen "
            "encoder, and extrapolate it.",
        ),
    ] = False,
    data: InputOptions,
    compute: ComputeOptions,
) -> None:
    """Write what a model gets wrong: one HTML file with scores, pictures and every error.

    The file needs no network and no other file. It begins with the labels to work on first.
    """
    from manyheads.api.searches import find_suspects, measure_curves
    from manyheads.display.report import html_page, markdown, write_report
    from manyheads.evaluation.report import report as run

    name = out or f"report.{'md' if form is Form.MD else 'html'}"
    as_markdown = Path(name).suffix.lower() == ".md" if form is None else form is Form.MD
    if name != "-":
        require_folder(name)
    found = run(
        model, against=against, suspects=find_suspects() if suspects else None,
        curve=measure_curves() if curve else None, layout=data.layout(),
        slices=task_names(slices) or (), warn=lambda text: tell("warning", text),
        runtime=compute.runtime, **scoring.arguments(),
    )  # fmt: skip
    if name == "-":
        sys.stdout.flush()
        # In UTF-8, as the page says, and not in the encoding of the terminal.
        sys.stdout.buffer.write((markdown if as_markdown else html_page)(found).encode())
        return
    size = write_report(found, name, as_markdown=as_markdown)
    for sentence in found.verdict:
        print(sentence)
    print(f"Report: {name} ({size / 1024:,.0f} KiB, {counted(found.wrong_records, 'error')})")
