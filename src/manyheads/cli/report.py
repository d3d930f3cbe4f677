"""`manyheads report`: what a model gets wrong, as one page to look at."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    Backend,
    BatchTokens,
    Device,
    FieldMap,
    LabelSeparator,
    Tasks,
    Text2Field,
    TextField,
    Threads,
    TokensField,
    layout_of,
    task_names,
)
from manyheads.config import BATCH_TOKENS
from manyheads.errors import counted
from manyheads.storage import Prefer, atomic_file

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Form(str, Enum):
    """The form of the report."""

    HTML = "html"
    MD = "md"


@app.command()
def report(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A model folder, a .pt checkpoint, or the folder of a run: its best model. "
            f"Default: the best model in {DEFAULT_MODEL}.",
            show_default=False,
        ),
    ] = None,
    *,
    checkpoint: Annotated[
        Prefer | None,
        typer.Option(help="Which model of a run's folder to score.", show_default=False),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Labelled data of any format. Default: the validation data."
        ),
    ] = None,
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
    input_format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The format of the data (`manyheads data formats`). Default: what content and "
            "ending show.",
        ),
    ] = None,
    text_field: TextField = None,
    text2_field: Text2Field = None,
    tokens_field: TokensField = None,
    field_map: FieldMap = None,
    label_separator: LabelSeparator = None,
    tasks: Tasks = None,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Threads = None,
    batch_tokens: BatchTokens = BATCH_TOKENS,
    drift: Annotated[
        bool,
        typer.Option(help="Compare the embedding with that of the encoder training began with."),
    ] = True,
) -> None:
    """Write what a model gets wrong: one HTML file with scores, pictures and every error.

    The file needs no network and no other file. It begins with the labels to work on first.
    """
    from manyheads.display.report import html_page, markdown
    from manyheads.evaluation.report import report as run

    name = out or f"report.{'md' if form is Form.MD else 'html'}"
    chosen = form or (Form.MD if Path(name).suffix.lower() == ".md" else Form.HTML)
    found = run(
        model,
        checkpoint=checkpoint,
        data=file,
        layout=layout_of(
            input_format, text_field, text2_field, tokens_field, field_map, label_separator
        ),
        tasks=task_names(tasks),
        slices=task_names(slices) or (),
        backend=backend,
        device=device,
        threads=threads,
        batch_tokens=batch_tokens,
        drift=drift,
        warn=lambda text: tell("warning", text),
    )
    content = (html_page if chosen is Form.HTML else markdown)(found).encode()
    if name == "-":
        sys.stdout.write(content.decode())
        return
    with atomic_file(name) as stream:
        stream.write(content)
    for sentence in found.verdict:
        print(sentence)
    print(
        f"Report: {name} ({len(content) / 1024:,.0f} KiB, {counted(found.wrong_records, 'error')})"
    )
