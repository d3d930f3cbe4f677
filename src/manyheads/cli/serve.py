"""`manyheads serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.server import ServerSettings

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def _help(field: str) -> str:
    return ServerSettings.model_fields[field].description or ""


@app.command()
def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]MODEL ...", help="Models; the first is the default."),
    ] = None,
    host: Annotated[str, typer.Option(help=_help("host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option(help=_help("port"))] = 8000,
    threads: Annotated[int | None, typer.Option(help=_help("threads"))] = None,
    examples: Annotated[Path | None, typer.Option(metavar="FILE", help=_help("examples"))] = None,
    max_body: Annotated[int, typer.Option(help=_help("max_body"))] = 4 << 20,
    max_texts: Annotated[int, typer.Option(help=_help("max_texts"))] = 1024,
    max_characters: Annotated[int, typer.Option(help=_help("max_characters"))] = 50_000,
    max_queue: Annotated[int, typer.Option(help=_help("max_queue"))] = 2048,
    max_connections: Annotated[int, typer.Option(help=_help("max_connections"))] = 512,
    timeout: Annotated[float, typer.Option(help=_help("timeout"))] = 30.0,
    api_keys: Annotated[
        Path | None,
        typer.Option(help="File with the accepted keys, one per line. Default: no key is needed."),
    ] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help=_help("cors_origins"))] = None,
    log_format: Annotated[str, typer.Option(help=_help("log_format"))] = "json",
    log_texts: Annotated[bool, typer.Option(help=_help("log_texts"))] = False,
) -> None:
    """Serve models over HTTP: classes, entities and the embedding from one pass of the encoder."""
    from manyheads.errors import RequestError
    from manyheads.server import serve as run
    from manyheads.storage import explained

    keys: tuple[str, ...] = ()
    if api_keys is not None:
        with explained(api_keys, "read"):
            lines = api_keys.read_text(encoding="utf-8").splitlines()
        keys = tuple(line.strip() for line in lines if line.strip())
        if not keys:
            raise RequestError(f"{api_keys} has no key", expected="one key per line")
    run(
        *(models or ()), report=typer.echo, host=host, port=port, threads=threads,
        examples=examples,
        max_body=max_body, max_texts=max_texts, max_characters=max_characters,
        max_queue=max_queue, max_connections=max_connections, timeout=timeout, api_keys=keys,
        cors_origins=tuple(cors_origin or ()), log_format=log_format, log_texts=log_texts,
    )  # fmt: skip
