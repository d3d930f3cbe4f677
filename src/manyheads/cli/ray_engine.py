"""The options of `manyheads predict --engine ray`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


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
