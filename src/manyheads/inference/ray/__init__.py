"""Prediction on many machines with Ray Data.

Ray Data reads the files, passes blocks of rows in order through the workers (`map_batches`), and
calls the writer. The input is read twice: once for its columns and types, so that all output files
have one schema, and once to predict, beside which reading costs little.

If a worker dies, another predicts its block again. Each output file is written by one task under
the task's number, so that a repeated task replaces its own file. Ray's Parquet writer is not used,
since several threads write a file with it, which does not keep the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from manyheads.errors import RequestError, install, listing
from manyheads.inference.loading import load_model
from manyheads.inference.runtime import Runtime
from manyheads.inference.texts import WhenEmpty
from manyheads.storage import StrPath, resolve_model

if TYPE_CHECKING:
    from manyheads.tasks import TaskSpec

DEVICES = ("auto", "cpu")


@dataclass(frozen=True, slots=True)
class Written:
    """The output of a prediction of files."""

    output: str
    rows: int
    files: int


def predict_files(
    model: StrPath,
    inputs: Sequence[str],
    output: str,
    runtime: Runtime = Runtime(),
    *,
    format: str | None = None,
    tasks: Sequence[str] | None = None,
    embed: bool = False,
    when_empty: WhenEmpty = "flag",
    skip_empty: bool = False,
    workers: int | None = None,
    address: str | None = None,
    progress: bool = False,
    chunk: int = 2048,
    before_chunk: Callable[[], None] | None = None,
) -> Written:
    """Predict for the records of files, and write them with their predictions as Parquet.

    The output has the input's rows in their order, its columns, and a column for each task (see
    `manyheads.inference.ray.tables`). Sorted by name, its files follow each other.

    If Ray already runs in this process, its cluster is used and left running.

    Args:
        model: a model folder, a checkpoint or a run's folder, readable on every machine.
        inputs: files and folders of Parquet, JSON lines or CSV: paths, or URIs of any file system
            that Ray reads. Records have a `text`, or `tokens`, a list of words.
        output: a folder, or the URI of one, which must be new or empty.
        runtime: what runs the model in each worker: on the device "auto" or "cpu", which mean the
            same here, and with one thread by default.
        format: "parquet", "jsonl" or "csv"; default, by the files' endings.
        tasks: the tasks to answer; default, all.
        embed: whether to add the embedding.
        when_empty: whether a text without words is flagged in its row or refused.
        skip_empty: whether such texts are left out of the output.
        workers: the number of workers; default, as many as fit on the processors.
        address: the address of a Ray cluster to join; default, a new cluster on this machine.
        progress: whether to show Ray's progress bars.
        chunk: rows that a worker predicts for at a time.
        before_chunk: called in the worker before each chunk.

    Raises:
        ManyheadsError: Ray is not installed, or the model, input, output or cluster is invalid.
        RuntimeError: a worker failed for another reason.
    """
    if runtime.device not in DEVICES:
        raise RequestError(
            f"device {runtime.device!r} with the engine ray",
            expected=f"one of: {listing(DEVICES)}; the engine's workers compute on processors",
            fix="Leave the device out, or use the engine local.",
        )
    _require_ray()
    import pyarrow as pa  # type: ignore[import-untyped]

    from manyheads.inference.ray.cluster import joined
    from manyheads.inference.ray.failures import explained
    from manyheads.inference.ray.inputs import find_input, survey
    from manyheads.inference.ray.outputs import output_folder
    from manyheads.inference.ray.stages import Job, predict_and_write
    from manyheads.inference.ray.tables import output_columns, result_schema

    source = find_input(inputs, format)
    path = resolve_model(model).resolve()
    threads = runtime.threads or 1
    runtime = replace(runtime, device="cpu", threads=threads)
    specs, scoped = _answered(path, runtime, tasks)
    with ExitStack() as stack:
        place = stack.enter_context(output_folder(output))
        # Inside, so that the folder is removed after a failure is explained.
        stack.enter_context(explained(source.name))
        count = stack.enter_context(joined(address, workers, threads, progress))
        found = survey(source)
        results = result_schema(specs, embed, scoped=scoped)
        names = output_columns(results.names, found.columns.names)
        renamed = [field.with_name(names[field.name]) for field in results]
        job = Job(
            model=str(path),
            runtime=runtime,
            tasks=tuple(spec.name for spec in specs),
            embed=embed,
            when_empty=when_empty,
            skip_empty=skip_empty,
            chunk=chunk,
            input=found.columns,
            results=results,
            output=pa.schema([*found.columns, *renamed]),
            source=source.name,
            before_chunk=before_chunk,
        )
        rows, files = predict_and_write(source, found.rows, job, place, count)
    return Written(output, rows, files)


def _require_ray() -> None:
    try:
        import pyarrow  # noqa: F401
        import ray.data  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"the engine ray needs packages that cannot be imported ({error})",
            fix=install("ray"),
        ) from error


def _answered(
    path: StrPath, runtime: Runtime, tasks: Sequence[str] | None
) -> tuple[list[TaskSpec], bool]:
    """Load the model in this process first, so that its errors are raised at once.

    Returns:
        the tasks that are answered, and whether predictions have `in_scope`.
    """
    predictor = load_model(path, runtime).predictor
    predictor.predict([], tasks=tasks)
    specs = [spec for spec in predictor.specs if spec.answers]
    chosen = [spec for spec in specs if tasks is None or spec.name in tasks]
    return chosen, predictor.answers_scope(tasks)
