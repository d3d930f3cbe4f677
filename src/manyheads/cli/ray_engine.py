"""`manyheads predict --engine ray`: its options, and the prediction with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.texts import WhenEmpty, is_person
from manyheads.errors import RequestError, counted


class Engine(str, Enum):
    """The engine that makes predictions."""

    LOCAL = "local"
    RAY = "ray"


EngineOption = Annotated[
    Engine,
    typer.Option(
        help="ray predicts in many processes, on one machine or many: the arguments, or --file, "
        "are files, folders and URIs, and --output a folder or URI for Parquet."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="With --engine ray: processes. Default: as many as fit.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --engine ray: the cluster to join. Default: this machine alone.",
    ),
]


def refuse_ray_options(workers: int | None, address: str | None) -> None:
    """Refuse the options of the engine ray without it.

    Raises:
        RequestError: one was given.
    """
    for option, value in (("--workers", workers), ("--ray-address", address)):
        if value is not None:
            raise RequestError(f"{option} without --engine ray", fix="Add --engine ray.")


def predict_with_ray(
    model: str,
    inputs: Sequence[str],
    output: str | None,
    *,
    unsupported: Sequence[str],
    input_format: str | None,
    embed: bool,
    tasks: Sequence[str] | None,
    when_empty: WhenEmpty,
    backend: str,
    device: str,
    threads: int | None,
    batch_tokens: int,
    workers: int | None,
    address: str | None,
) -> None:
    """Predict for files with `manyheads.inference.ray.predict_files`, and report what was written.

    Raises:
        ManyheadsError: the request is at fault.
    """
    if unsupported:
        raise RequestError(f"{unsupported[0]} with --engine ray, which writes Parquet, whole")
    if not inputs:
        raise RequestError(
            "--engine ray without an input",
            expected="Parquet, JSON lines or CSV: files, folders or URIs",
            fix="Name them after the model, or with --file.",
        )
    if output is None:
        raise RequestError(
            "--engine ray without an output",
            expected="a folder for Parquet files",
            fix="Add --output FOLDER.",
        )

    from manyheads.inference.ray import predict_files

    written = predict_files(
        model,
        inputs,
        output,
        format=input_format,
        backend=backend,
        device=device,
        tasks=tasks,
        embed=embed,
        when_empty="refuse" if when_empty is WhenEmpty.REFUSE else "flag",
        skip_empty=when_empty is WhenEmpty.SKIP,
        batch_tokens=batch_tokens,
        threads=threads,
        workers=workers,
        address=address,
        progress=is_person(sys.stderr),
    )
    tell("note", f"{counted(written.rows, 'row')} in {counted(written.files, 'file')}: {output}")
