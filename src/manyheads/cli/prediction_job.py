"""The predictions of a command: in one of several forms, to a file, standard output or a person."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from manyheads.cli.errors import tell
from manyheads.cli.kept_fields import CsvRows, json_line, write_parquet
from manyheads.cli.texts import (
    GivenText,
    WhenEmpty,
    argument_texts,
    is_person,
)
from manyheads.errors import ManyheadsError, counted
from manyheads.inference import Predictor, Text, write_predictions
from manyheads.tasks import Prediction, two_lines

EXAMPLES = (
    "John lives in Paris.",
    "Where does Mary Jane Watson work?",
    "I wonder whether Ravi ever went back to Nova Scotia.",
    "is it far from Marseille to Lyon",
)

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
}  # fmt: skip
"""By its ending, the form of an output file."""


@dataclass(frozen=True)
class PredictionJob:
    """A predictor and the form of its output."""

    predictor: Predictor
    form: Form
    embed: bool
    tasks: list[str] | None
    when_empty: WhenEmpty
    scoring: Mapping[str, Any]
    """The options of `Predictor.predict` about scores."""
    fields: Mapping[str, set[type]] | None = None
    """The other fields of the records, for a table; None: not known before the first record."""

    @cached_property
    def csv_rows(self) -> CsvRows:
        return CsvRows(None if self.fields is None else list(self.fields), embed=self.embed)

    def check_tasks(self) -> None:
        """Refuse unknown tasks before any text is read."""
        self.predictor.predict([], tasks=self.tasks)

    def predictions(
        self, texts: Iterable[Text | GivenText], chunk: int = 2048
    ) -> Iterator[Prediction]:
        waiting: deque[Mapping[str, Any]] = deque()

        def noted() -> Iterator[Text]:
            for text in texts:
                given = text if isinstance(text, GivenText) else GivenText(text)
                waiting.append(given.fields)
                yield given.text

        predictions = self.predictor.predict_stream(
            noted(),
            embed=self.embed,
            tasks=self.tasks,
            when_empty="refuse" if self.when_empty is WhenEmpty.REFUSE else "flag",
            chunk=chunk,
            **self.scoring,
        )
        for prediction in predictions:
            fields = waiting.popleft()
            # Texts of invisible characters alone come to light only here.
            if not (prediction.empty and self.when_empty is WhenEmpty.SKIP):
                yield replace(prediction, fields=fields) if fields else prediction

    def write(
        self,
        texts: Iterable[Text | GivenText],
        output: Path | None,
        progress: bool = False,
        total: int | None = None,
    ) -> int:
        """Predict for texts and write the results; return how many there were."""
        predictions = self.predictions(texts)
        if progress and (output is not None or not is_person(sys.stdout)):
            from manyheads.display import track

            predictions = track(predictions, f"Predicting ({self.predictor.backend.name})", total)
        count = 0
        with _opened(output) as stream:
            if self.form is Form.PARQUET:
                return self.write_parquet(stream, predictions)
            for count, prediction in enumerate(predictions, 1):
                stream.write(self.shown(prediction, first=count == 1))
        return count

    def write_parquet(self, stream: BinaryIO, predictions: Iterator[Prediction]) -> int:
        specs = [s for s in self.predictor.specs if self.tasks is None or s.name in self.tasks]
        fields = self.fields
        if fields is None:
            first = list(islice(predictions, 1))
            predictions = chain(first, predictions)
            fields = {n: {type(v)} for one in first for n, v in one.fields.items()}
        answering = [spec for spec in specs if spec.answers]
        return write_parquet(
            stream, predictions, answering, fields, embed=self.embed, pairs=self.predictor.pairs
        )

    def write_file(
        self,
        texts: Iterable[Text | GivenText],
        output: Path,
        run: Mapping[str, Any],
        resume: bool,
        total: int | None,
    ) -> int:
        """Predict for a file's texts, resumably; return how many there are."""
        from manyheads.display import track

        left = total

        def started(done: int) -> None:
            nonlocal left
            left = None if total is None else max(0, total - done)
            if resume:
                tell("note", f"{counted(done, 'text')} already done; continuing after that")

        description = f"Predicting ({self.predictor.backend.name})"
        return write_predictions(
            output,
            texts,
            lambda some: track(self.predictions(some), description, left),
            self.shown,
            run=run,
            resume=resume,
            started=started,
        )

    def shown(self, prediction: Prediction, first: bool = True) -> bytes:
        if self.form is Form.JSONL:
            return json_line(prediction)
        if self.form is Form.CSV:
            return self.csv_rows.row(prediction, header=first)
        text = two_lines(prediction).translate(_CONTROLS)
        if prediction.embedding is not None:
            text += f"\nEmbedding: {json.dumps(prediction.embedding.tolist())}"
        return f"{text}\n".encode() if first else f"\n{text}\n".encode()

    def show_examples(self) -> None:
        """Predict for a few sentences and show each above its results."""
        with _opened(None) as stream:
            for prediction in self.predictions(EXAMPLES):
                stream.write(f"> {prediction.text}\n".encode() + self.shown(prediction) + b"\n")

    def converse(self) -> None:
        """Predict for the sentences that a person types, until the end of input."""
        with suppress(ImportError):
            import readline  # noqa: F401 - gives `input` its line editing

        print("Your own sentences (Ctrl-D ends):")
        while True:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            except UnicodeDecodeError as error:
                tell("error", f"byte {error.object[error.start]:#04x} is not UTF-8")
                continue
            try:
                for text in argument_texts([line], WhenEmpty.SKIP):
                    for prediction in self.predictions([text], chunk=1):
                        print(self.shown(prediction).decode())
            except ManyheadsError as error:
                tell("error", str(error))


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
