"""`manyheads serve`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import catching
from manyheads.cli.options import InputOptions, takes_groups
from manyheads.server import ServerSettings

_STEP_SECONDS = 1.0
"""How long the command waits in the end for the threads that still compute."""

_DEFAULTS = ServerSettings()

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _help(field: str) -> str:
    return ServerSettings.model_fields[field].description or ""


@app.command()
@takes_groups
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]MODEL ...", help="Models; the first is the default."),
    ] = None,
    *,
    host: Annotated[str, typer.Option(help=_help("host"))] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(help=_help("port"))] = _DEFAULTS.port,
    threads: Annotated[int | None, typer.Option(help=_help("threads"))] = _DEFAULTS.threads,
    examples: Annotated[
        Path | None, typer.Option(metavar="FILE", help=_help("examples"))
    ] = _DEFAULTS.examples,
    data: InputOptions,
    max_body: Annotated[int, typer.Option(help=_help("max_body"))] = _DEFAULTS.max_body,
    max_texts: Annotated[int, typer.Option(help=_help("max_texts"))] = _DEFAULTS.max_texts,
    max_characters: Annotated[
        int, typer.Option(help=_help("max_characters"))
    ] = _DEFAULTS.max_characters,
    max_queue: Annotated[int, typer.Option(help=_help("max_queue"))] = _DEFAULTS.max_queue,
    max_connections: Annotated[
        int, typer.Option(help=_help("max_connections"))
    ] = _DEFAULTS.max_connections,
    timeout: Annotated[float, typer.Option(help=_help("timeout"))] = _DEFAULTS.timeout,
    api_keys: Annotated[
        Path | None,
        typer.Option(
            help="File with the accepted keys, one per line; SIGHUP reads it again. Default: no "
            "key is needed."
        ),
    ] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help=_help("cors_origins"))] = None,
    log_format: Annotated[str, typer.Option(help=_help("log_format"))] = _DEFAULTS.log_format,
    log_texts: Annotated[bool, typer.Option(help=_help("log_texts"))] = _DEFAULTS.log_texts,
) -> None:
    """Serve models over HTTP: classes, entities and the embedding from one pass of the encoder."""
    if threading.current_thread() is threading.main_thread():
        # Nothing is loaded yet that could be loaded again. The server sets its own handler.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from manyheads.server import serve as run
    from manyheads.server import wait_for_threads

    def work() -> int:
        run(
            *(models or ()), report=typer.echo, host=host, port=port, threads=threads,
            examples=examples, layout=data.layout(),
            max_body=max_body, max_texts=max_texts, max_characters=max_characters,
            max_queue=max_queue, max_connections=max_connections, timeout=timeout,
            api_keys=() if api_keys is None else api_keys,
            cors_origins=tuple(cors_origin or ()), log_format=log_format, log_texts=log_texts,
        )  # fmt: skip
        return 0

    # A program that serves already may run the command too.
    others = threading.enumerate()
    status = catching(work)
    if not wait_for_threads(_STEP_SECONDS, others):
        # A library that computes while the interpreter ends would abort the process.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    raise typer.Exit(status)
