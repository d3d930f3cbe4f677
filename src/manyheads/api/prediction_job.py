"""Predictions in one of several forms, to a file or standard output."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from manyheads.api.kept_fields import (
    Columns,
    CsvRows,
    Type,
    columns_of,
    prediction_line,
    write_parquet,
)
from manyheads.api.texts import EmptyTexts, GivenText, count_texts, file_texts, has_lines, is_person
from manyheads.data.json_lines import json_line
from manyheads.data.readers import FORMATS, Layout
from manyheads.data.readers.text_lines import STDIN
from manyheads.errors import RequestError, counted, listing, nearest, option
from manyheads.inference import Predictor, Text, can_continue, describe_run, write_predictions
from manyheads.storage import StrPath
from manyheads.tasks import Prediction, TaskSpec, two_lines

if TYPE_CHECKING:
    from manyheads.display import Counter

# The control characters that JSON leaves as they are; a terminal acts on some of them.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x00, 0x0A), *range(0x7F, 0xA0))}


class Form(str, Enum):
    """The form in which predictions are written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


FORMS = {
    ".jsonl": Form.JSONL, ".ndjson": Form.JSONL, ".csv": Form.CSV, ".parquet": Form.PARQUET,
    ".pq": Form.PARQUET,
}  # fmt: skip
"""By its ending, the form of an output file."""

# Options about scores whose results only JSON lines hold.
_ONLY_IN_JSON = ("top_k", "logits")

# Endings of data files, which text for people would not be; those that are written are in `FORMS`.
_DATA_ENDINGS = {*(e for format in FORMATS.values() for e in format.endings), ".xls", ".gz"}


@dataclass(frozen=True)
class PredictionJob:
    """A predictor and the form of its output."""

    predictor: Predictor
    form: Form
    embed: bool
    tasks: Sequence[str] | None
    when_empty: EmptyTexts
    scoring: Mapping[str, Any]
    """The options of `Predictor.predict` about scores."""
    progress: bool = True
    """Whether the progress of long work is shown."""
    prompt: str | None = None
    """What the embedding reads before each text, in place of the encoder's default prompt."""
    fields: Mapping[str, Type] | None = None
    """The other fields of the records, for a table; None: not known before the first record."""

    @cached_property
    def columns(self) -> Columns:
        """The columns of the records' other fields."""
        return Columns(self.fields, typed=self.form is Form.PARQUET)

    @cached_property
    def csv_rows(self) -> CsvRows:
        """The rows of a CSV file."""
        return CsvRows(
            self.columns, self.answering, embed=self.embed,
            scoped=self.predictor.answers_scope(self.tasks), pairs=self.predictor.pairs,
        )  # fmt: skip

    @property
    def answering(self) -> list[TaskSpec]:
        """The tasks that have columns in a table."""
        specs = [s for s in self.predictor.specs if self.tasks is None or s.name in self.tasks]
        return [spec for spec in specs if spec.answers]

    def check_tasks(self) -> None:
        """Refuse unknown tasks before any text is read."""
        self.predictor.predict([], tasks=self.tasks)

    def file_texts(
        self, file: str, layout: Layout, note: Callable[[str], None]
    ) -> Iterator[GivenText]:
        """Yield the texts of a file; the note names, at the end, the contents that are not read."""
        name = STDIN if file == "-" else file

        def unread(counts: Mapping[str, int]) -> None:
            for what, count in counts.items():
                note(f"{name}: not read: {what} ({count:,})")

        pairs = self.predictor.pairs
        return file_texts(file, layout, self.when_empty, pairs=pairs, on_unread=unread)

    def predictions(
        self,
        texts: Iterable[Text | GivenText],
        chunk: int = 2048,
        after_chunk: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction]:
        """Predict for texts, each with its record's other fields as the output holds them."""
        return (one for one in self._answers(texts, chunk, after_chunk) if one is not None)

    def _answers(
        self,
        texts: Iterable[Text | GivenText],
        chunk: int = 2048,
        after_chunk: Callable[[], None] = lambda: None,
    ) -> Iterator[Prediction | None]:
        """Predict for texts; None for one that is left out as empty."""
        waiting: deque[Mapping[str, Any]] = deque()

        def noted() -> Iterator[Text]:
            for text in texts:
                given = text if isinstance(text, GivenText) else GivenText(text)
                waiting.append(self._kept(given))
                yield given.text

        predictions = self.predictor.with_prompt(self.prompt).predict_stream(
            noted(),
            embed=self.embed,
            tasks=self.tasks,
            when_empty=self.when_empty.of_predictor,
            chunk=chunk,
            after_chunk=after_chunk,
            **self.scoring,
        )
        for prediction in predictions:
            fields = waiting.popleft()
            # Texts of invisible characters alone come to light only here.
            is_skipped = prediction.empty and self.when_empty is EmptyTexts.SKIP
            answer = replace(prediction, fields=fields) if fields else prediction
            yield None if is_skipped else answer

    def _kept(self, given: GivenText) -> Mapping[str, Any]:
        """Return a record's other fields as the output holds them.

        Raises:
            DataError: the output cannot hold one.
        """
        if self.form in (Form.CSV, Form.PARQUET):
            return self.columns.cells(given.fields, given.where)
        if self.form is Form.JSONL and given.fields:
            # Here the record's place is known, for the message; it is written with its answers.
            json_line(given.fields, given.where)
        return given.fields

    def write(
        self,
        texts: Iterable[Text | GivenText],
        output: Path | None,
        progress: bool = False,
        total: int | None = None,
    ) -> int:
        """Predict for texts and write the results; return how many there were."""
        if progress and (output is not None or not is_person(sys.stdout)):
            counter = self._counter(total)
            predictions = counter.track(self.predictions(texts, after_chunk=counter.end_group))
        else:
            predictions = self.predictions(texts)
        count = 0
        with _opened(output) as stream:
            if self.form is Form.PARQUET:
                return self.write_parquet(stream, predictions)
            for count, prediction in enumerate(predictions, 1):
                stream.write(self.shown(prediction, first=count == 1))
        return count

    def write_parquet(self, stream: BinaryIO, predictions: Iterator[Prediction]) -> int:
        """Write predictions as a Parquet file; return how many there were."""
        # The columns may be those of the first record.
        predictions = chain(list(islice(predictions, 1)), predictions)
        return write_parquet(
            stream, predictions, self.answering, self.columns, embed=self.embed,
            scoped=self.predictor.answers_scope(self.tasks), pairs=self.predictor.pairs,
        )  # fmt: skip

    def write_file(
        self,
        texts: Iterable[Text | GivenText],
        output: Path,
        run: Mapping[str, Any],
        resume: bool,
        total: int | None,
        note: Callable[[str], None],
    ) -> int:
        """Predict for a file's texts, resumably; return how many there are."""
        left = total

        def started(done: int | None) -> None:
            nonlocal left
            left = None if total is None else max(0, total - (done or 0))
            if resume:
                note(_resumed(done, output))

        def predict(some: Iterable[Text | GivenText]) -> Iterator[Prediction | None]:
            counter = self._counter(left)
            return counter.track(self._answers(some, after_chunk=counter.end_group))

        return write_predictions(
            output,
            texts,
            predict,
            self.shown,
            run=run,
            resume=resume,
            started=started,
        )

    def _counter(self, total: int | None) -> Counter:
        from manyheads.display import Counter

        description = f"Predicting ({self.predictor.backend.name})"
        return Counter(description, total, enabled=self.progress, grouped=True)

    def shown(self, prediction: Prediction, first: bool = True) -> bytes:
        """Return a prediction in the form of the output, which may begin with a header."""
        if self.form is Form.JSONL:
            return prediction_line(prediction)
        if self.form is Form.CSV:
            return self.csv_rows.row(prediction, header=first)
        text = two_lines(prediction).translate(_CONTROLS)
        if prediction.embedding is not None:
            text += f"\nEmbedding: {json.dumps(prediction.embedding.tolist())}"
        return f"{text}\n".encode() if first else f"\n{text}\n".encode()


def _resumed(done: int | None, output: Path) -> str:
    """Return the message about what a run continues.

    Args:
        done: the number of texts that the stopped run answered; None if there was none, or if it
            is finished, which removes its record.
        output: the file to write.
    """
    if done:
        return f"{counted(done, 'text')} already done; continuing after that"
    found = "there is no stopped run" if done is None else "the stopped run recorded no answers"
    message = f"{found}; starting from the beginning"
    if output.exists():
        message += f". {output} is replaced when the new one is complete"
    return message


def form_of(named: str | None, output: StrPath | None) -> Form:
    """Return the form of the output: as named, or by the ending of the file, or else text.

    Raises:
        RequestError: there is no such form, or the ending is that of data in another one.
    """
    names = [form.value for form in Form]
    if named is None:
        ending = Path(output).suffix.lower() if output else ""
        if ending in FORMS or ending not in _DATA_ENDINGS:
            return FORMS.get(ending, Form.TEXT)
        raise RequestError(
            f"predictions are not written as {ending}",
            where=os.fspath(output or ""),
            expected=f"a file that ends in {listing(FORMS)}",
            fix=f"Rename it, or name its format with {option('--format NAME', '`format`')}: "
            f"{listing(names)}.",
        )
    if named not in names:
        raise RequestError(
            f"the format of the output is {named!r}{nearest(named, names)}",
            expected=f"one of: {listing(names)}",
        )
    return Form(named)


def check_output(
    form: Form, file: str | None, output: StrPath | None, resume: bool, scoring: Mapping[str, Any]
) -> None:
    """Refuse a run that cannot be resumed, and a form that cannot be written there or holds less.

    Args:
        form: the form of the output.
        file: the file with the texts, if any.
        output: the file to write; None for standard output.
        resume: whether a stopped run is continued.
        scoring: the options of `Predictor.predict` about scores.

    Raises:
        RequestError: it is one of these.
    """
    if resume and (file in (None, "-") or output is None or not can_continue(output)):
        raise RequestError(
            f"{option('--resume')} has nothing to continue",
            expected=f"{option('--file')} and {option('--output')}, each an ordinary file",
        )
    if form is Form.PARQUET and (output is None or resume):
        raise RequestError(
            f"{option('--format parquet')} cannot be written "
            + (f"with {option('--resume')}" if resume else "to standard output"),
            expected=f"{option('--output FILE')}, written in one go",
            fix=f"Use {option('--format jsonl')}.",
        )
    lost = [option(f"--{name.replace('_', '-')}") for name in _ONLY_IN_JSON if scoring[name]]
    if form is not Form.JSONL and lost:
        raise RequestError(
            f"{listing(lost)} with output as {form.value}, which has no place for it",
            expected="JSON lines",
            fix=f"Use {option('--format jsonl')}.",
        )


def answer_file(
    job: PredictionJob,
    model: StrPath,
    file: str,
    layout: Layout,
    output: Path | None,
    *,
    resume: bool,
    note: Callable[[str], None],
) -> int:
    """Predict for the texts of a file and write the results; return how many there are.

    The run can be resumed if the output can be continued.

    Args:
        job: the predictor and the form of the output.
        model: the model's path.
        file: a data file of any format, a .txt with a text a line, or - for standard input.
        layout: how it is laid out, as far as it is known.
        output: the file to write; None for standard output.
        resume: continue a run that was stopped.
        note: receives messages for the user.

    Raises:
        ManyheadsError: a text is invalid, or a file cannot be read or written.
    """
    texts = job.file_texts(file, layout, note)
    if job.form in (Form.CSV, Form.PARQUET) and file != "-":
        lines = has_lines(file) or layout.format == "text"
        job = replace(job, fields={} if lines else columns_of(file, layout))
    total = count_texts(file, layout.format)
    if job.form is Form.PARQUET or not output or file == "-" or not can_continue(output):
        return job.write(texts, output, progress=True, total=total)
    chosen = {} if job.prompt is None else {"prompt": job.prompt}
    run = describe_run(
        model,
        file,
        backend=job.predictor.backend.name,
        input_format=layout.format,
        fields=dict(layout.names),
        format=job.form.value,
        embed=job.embed,
        tasks=job.tasks,
        when_empty=job.when_empty.value,
        **job.scoring,
        **chosen,
    )
    return job.write_file(texts, output, run, resume, total, note)


@contextmanager
def _opened(output: Path | None) -> Iterator[BinaryIO]:
    """Open the destination of results: a file that appears when complete, or standard output."""
    if output is not None:
        from manyheads.storage import atomic_file

        with atomic_file(output) as file:
            yield file
        return
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
