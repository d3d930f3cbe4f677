"""Prediction on many machines: the engine `ray` of `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manyheads.api.texts import EmptyTexts
from manyheads.errors import RequestError, listed, option

if TYPE_CHECKING:
    from manyheads.inference import Runtime
    from manyheads.inference.ray import Written


def refuse_ray_options(workers: int | None, address: str | None) -> None:
    """Refuse the options of the engine ray without it.

    Raises:
        RequestError: one was given.
    """
    named = ((option("--workers"), workers), (option("--ray-address"), address))
    engine = option("--engine ray")
    for name, value in named:
        if value is not None:
            raise RequestError(f"{name} without {engine}", fix=f"Add {engine}.")


def predict_with_ray(
    model: str,
    inputs: Sequence[str],
    output: str | None,
    *,
    unsupported: Sequence[str],
    input_format: str | None,
    embed: bool,
    tasks: Sequence[str] | None,
    when_empty: EmptyTexts,
    runtime: Runtime,
    workers: int | None,
    address: str | None,
    progress: bool,
) -> Written:
    """Predict for files with `manyheads.inference.ray.predict_files`.

    Args:
        model, inputs, output: see there.
        unsupported: the options that were given and that this engine does not have.
        input_format, embed, tasks, when_empty, runtime, workers, address, progress: see there.

    Raises:
        ManyheadsError: the request is at fault.
    """
    tasks = listed("tasks", tasks)
    if unsupported:
        raise RequestError(
            f"{unsupported[0]} with {option('--engine ray')}, which writes Parquet, whole"
        )
    if not inputs:
        raise RequestError(
            f"{option('--engine ray')} without an input",
            expected="Parquet, JSON lines or CSV: files, folders or URIs",
            fix="Name them " + option("after the model, or with --file", "with `file`") + ".",
        )
    if output is None:
        raise RequestError(
            f"{option('--engine ray')} without an output",
            expected="a folder for Parquet files",
            fix=f"Add {option('--output FOLDER')}.",
        )

    from manyheads.inference.ray import predict_files

    return predict_files(
        model,
        inputs,
        output,
        runtime,
        format=input_format,
        tasks=tasks,
        embed=embed,
        when_empty=when_empty.of_predictor,
        skip_empty=when_empty is EmptyTexts.SKIP,
        workers=workers,
        address=address,
        progress=progress,
    )
