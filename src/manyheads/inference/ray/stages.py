"""The work of Ray's processes: predicting for blocks of rows and writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from ray.data import ActorPoolStrategy, Datasink

from manyheads.errors import DataError, ManyheadsError, RequestError, counted, listing
from manyheads.inference.loading import load_model
from manyheads.inference.predictor import Predictor
from manyheads.inference.ray.inputs import Input
from manyheads.inference.ray.outputs import Place
from manyheads.inference.ray.tables import conformed, result_columns
from manyheads.inference.runtime import Runtime
from manyheads.inference.texts import Text, TextPair, WhenEmpty
from manyheads.tasks.label_values import SECOND_TEXT


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of a worker."""

    model: str
    runtime: Runtime
    tasks: tuple[str, ...]
    embed: bool
    when_empty: WhenEmpty
    skip_empty: bool
    chunk: int
    """Rows that are predicted for at a time."""
    input: pa.Schema
    results: pa.Schema
    output: pa.Schema
    """The input's columns, then the results' columns under free names."""
    source: str
    """The input, for messages."""
    before_chunk: Callable[[], None] | None


class Worker:
    """A model in its own process, which predicts for blocks of rows."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._loaded: Predictor | ManyheadsError
        try:
            self._loaded = load_model(job.model, job.runtime).predictor
        except ManyheadsError as error:
            # Raised with the first block, since Ray passes on only the traceback of errors here.
            self._loaded = error

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Predict for the rows of a block.

        Raises:
            ManyheadsError: a text, or the model on this machine, is invalid.
        """
        job, predictor = self._job, self._loaded
        if isinstance(predictor, ManyheadsError):
            raise predictor
        for start in range(0, block.num_rows, job.chunk):
            if job.before_chunk is not None:
                job.before_chunk()
            rows = conformed(block.slice(start, job.chunk), job.input, job.source)
            predictions = predictor.predict(
                texts_of(rows, predictor.pairs),
                embed=job.embed,
                tasks=job.tasks,
                when_empty=job.when_empty,
            )
            results = result_columns(predictions, predictor.specs, job.results)
            table = pa.Table.from_arrays([*rows.columns, *results], schema=job.output)
            if job.skip_empty:
                table = table.filter(pa.array([not one.empty for one in predictions]))
            yield table


def texts_of(rows: pa.Table, pairs: bool) -> list[Text]:
    """Return each row's text, or its tokens if it has no text.

    Args:
        rows: a block of the input.
        pairs: whether `text2`, where a row has it, makes a pair with its text.
    """
    names = rows.column_names
    texts = rows["text"].to_pylist() if "text" in names else [None] * rows.num_rows
    tokens = rows["tokens"].to_pylist() if "tokens" in names else [None] * rows.num_rows
    given: list[Text] = [
        text if text is not None else [token or "" for token in words or ()]
        for text, words in zip(texts, tokens, strict=True)
    ]
    if pairs and SECOND_TEXT in names:
        for i, (text, other) in enumerate(zip(texts, rows[SECOND_TEXT].to_pylist(), strict=True)):
            if text is not None and other is not None:
                given[i] = TextPair(text, other)
    return given


class ParquetSink(Datasink[str]):
    """Writes each task's blocks in their order as one file, under the task's number.

    Ray's Parquet sink writes a file with several threads (`pyarrow.dataset.write_dataset`), which
    does not keep the order of the rows.
    """

    def __init__(self, place: Place, schema: pa.Schema) -> None:
        self._place = place
        self._schema = schema
        self.rows = 0
        self.files = 0

    def write(self, blocks: Iterable[Any], ctx: Any) -> str:
        """Write some blocks; return the file's name."""
        return self.write_file(ctx.task_idx, blocks)

    def write_file(self, number: int, blocks: Iterable[Any]) -> str:
        """Write the file of a number; return its name."""
        name = f"part-{number:06}.parquet"
        with (
            self._place.files.open_output_stream(f"{self._place.folder}/{name}") as stream,
            pq.ParquetWriter(stream, self._schema, compression="zstd") as writer,
        ):
            for block in blocks:
                # A block without rows may have lost its columns.
                if block.num_rows:
                    writer.write_table(block.cast(self._schema))
        return name

    def on_write_complete(self, write_result: Any) -> None:
        """Check that all files have arrived.

        Raises:
            RequestError: this process does not see one of them.
        """
        written = write_result.write_returns
        missing = sorted(set(written) - set(self._place.names()))
        if missing:
            raise RequestError(
                f"this machine does not see {len(missing):,} of {counted(len(written), 'file')} "
                f"that were written: {listing(missing, 3)}",
                expected="an output folder that all machines of the cluster share",
                fix="Use a shared file system, or a URI such as s3://BUCKET/FOLDER.",
            )
        self.rows, self.files = int(write_result.num_rows), len(written)


def predict_and_write(
    source: Input, rows: int, job: Job, place: Place, workers: int
) -> tuple[int, int]:
    """Run the workers over the input, and return the numbers of rows and files written.

    Raises:
        ManyheadsError: a text, the model or the cluster is invalid, or the number of rows has
            changed since the first reading.
    """
    sink = ParquetSink(place, job.output)
    if not rows:
        # So that a reader of the output finds the columns.
        sink.write_file(0, [])
        return 0, 1
    source.read(job.input).map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=job.runtime.threads,
        udf_modifying_row_count=job.skip_empty,
    ).write_datasink(sink)
    if sink.rows != rows and not job.skip_empty:
        raise DataError(
            f"{counted(rows, 'row')} at the first reading, then {sink.rows:,}",
            where=source.name,
            expected="an input that does not change meanwhile",
            fix="Run it again.",
        )
    return sink.rows, sink.files
