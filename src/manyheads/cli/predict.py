"""`manyheads predict`: texts from anywhere to labels, entities and embeddings.

Nothing here needs a deep-learning framework; only the backend may import one.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from threading import Timer
from typing import Annotated, Any, BinaryIO

import typer

from manyheads.cli.errors import tell
from manyheads.cli.kept_fields import CsvRows, columns_of, json_line, write_parquet
from manyheads.cli.options import (
    DEFAULT_MODEL,
    Backend,
    BatchTokens,
    DataOptions,
    Device,
    FieldMap,
    Tasks,
    Text2Field,
    TextField,
    Threads,
    TokensField,
    task_names,
)
from manyheads.cli.ray_engine import (
    Engine,
    EngineOption,
    RayAddress,
    Workers,
    predict_with_ray,
    refuse_ray_options,
)
from manyheads.cli.texts import (
    GivenText,
    WhenEmpty,
    argument_texts,
    count_texts,
    file_texts,
    has_lines,
    is_person,
    stdin_texts,
)
from manyheads.config import BATCH_TOKENS
from manyheads.errors import ManyheadsError, RequestError, counted
from manyheads.inference import Predictor, Text, can_continue, describe_run, write_predictions
from manyheads.tasks import Prediction, two_lines

EXAMPLES = (
    "John lives in Paris.",
    "Where does Mary Jane Watson work?",
    "I wonder whether Ravi ever went back to Nova Scotia.",
    "is it far from Marseille to Lyon",
)

# The control characters that JSON leaves as they are; a terminal acts on some of them.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x00, 0x0A), *range(0x7F, 0xA0))}

# Seconds without input after which the command reports what it waits for.
_PATIENCE = 2.0

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class Form(str, Enum):
    """The form in which predictions are written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


_FORMS = {
    ".jsonl": Form.JSONL, ".ndjson": Form.JSONL, ".csv": Form.CSV, ".parquet": Form.PARQUET,
}  # fmt: skip
"""By its ending, the form of an output file."""


@app.command()
def predict(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|TEXT",
            help="A model folder, the folder of a run or a .pt checkpoint (default: "
            f"{DEFAULT_MODEL}), and texts. The first argument is a model if there is such a path, "
            "or if it ends in .pt or looks like a path. After `--` everything is an argument.",
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model; then all arguments are texts."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Read texts from a data file of any format, a .txt with one a line, or - for "
            "standard input.",
        ),
    ] = None,
    input_format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The format of FILE, if its ending does not show it, or of standard input.",
        ),
    ] = None,
    text_field: TextField = None,
    text2_field: Text2Field = None,
    tokens_field: TokensField = None,
    field_map: FieldMap = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="FILE", help="Write to a file, which appears when it is complete."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the --output of a run that was stopped, where it stopped."
        ),
    ] = False,
    form_named: Annotated[
        Form | None,
        typer.Option(
            "--format",
            show_default=False,
            help="Lines for people, a JSON object per text, or a table. Default: by the ending of "
            "the output (.jsonl, .csv, .parquet), or else text.",
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Also the sentence embedding.")] = False,
    top_k: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            show_default=False,
            help="List the K most probable labels with each answer (jsonl).",
        ),
    ] = 0,
    thresholds: Annotated[
        bool,
        typer.Option(
            help="Leave undecided what does not reach the model's thresholds, if it has any "
            "(manyheads thresholds)."
        ),
    ] = True,
    logits: Annotated[
        bool, typer.Option("--logits", help="Also the heads' own outputs (jsonl).")
    ] = False,
    tasks: Tasks = None,
    when_empty: Annotated[
        WhenEmpty, typer.Option(help="A text without words ends the command, is answered, or left.")
    ] = WhenEmpty.REFUSE,
    backend: Backend = "auto",
    device: Device = "auto",
    threads: Threads = None,
    batch_tokens: BatchTokens = BATCH_TOKENS,
    engine: EngineOption = Engine.LOCAL,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Predict labels and entities, and the embedding on request.

    Texts come from the arguments, a file, or the lines of standard input. Without any, a few
    example sentences are shown; on a terminal, your own follow.
    """
    name, given = (model, list(arguments or ())) if model else split_arguments(arguments or ())
    if file is not None and given:
        raise RequestError(
            f"{counted(len(given), 'text')} among the arguments and --file {file}",
            fix="Give one of the two.",
        )
    if engine is Engine.RAY:
        odd = ["--resume"] * resume + ["--top-k"] * bool(top_k) + ["--logits"] * logits
        odd += ["--no-thresholds"] * (not thresholds)
        odd += [f"--format {one.value}" for one in Form if one is form_named is not Form.TEXT]
        fields = {"text": text_field, "text2": text2_field, "tokens": tokens_field}
        odd += [f"--{name}-field" for name, value in fields.items() if value is not None]
        odd += ["--map"] * bool(field_map)
        predict_with_ray(
            name, [file] if file is not None else given, to, unsupported=odd,
            input_format=input_format, embed=embed, tasks=task_names(tasks),
            when_empty=when_empty, backend=backend, device=device, threads=threads,
            batch_tokens=batch_tokens, workers=workers, address=ray_address,
        )  # fmt: skip
        return
    refuse_ray_options(workers, ray_address)
    output = None if to is None else Path(to)
    form = form_named or (_FORMS.get(output.suffix.lower(), Form.TEXT) if output else Form.TEXT)
    if resume and (file in (None, "-") or output is None or not can_continue(output)):
        raise RequestError(
            "--resume has nothing to continue",
            expected="--file and --output, each an ordinary file",
        )
    if form is Form.PARQUET and (output is None or resume):
        raise RequestError(
            "--format parquet cannot be written "
            + ("with --resume" if resume else "to standard output"),
            expected="--output FILE, written in one go",
            fix="Use --format jsonl.",
        )
    texts = argument_texts(given, when_empty)

    from manyheads.inference import load_predictor

    predictor = load_predictor(
        name, backend=backend, device=device, threads=threads, batch_tokens=batch_tokens,
        alone=bool(given), warn=lambda text: tell("warning", text),
    )  # fmt: skip
    scoring = {"top_k": top_k, "thresholds": thresholds, "logits": logits}
    job = _Job(predictor, form, embed, task_names(tasks), when_empty, scoring)
    job.check_tasks()
    if given:
        job.write(texts, output)
    elif file is not None:
        layout = DataOptions(
            input_format, text_field, text2_field, tokens_field, field_map
        ).layout()
        texts_of_file = file_texts(file, layout, when_empty, pairs=predictor.pairs)
        if form in (Form.CSV, Form.PARQUET) and file != "-":
            lines = has_lines(file) or input_format == "text"
            job = replace(job, fields={} if lines else columns_of(file, layout))
        if form is not Form.PARQUET and output and file != "-" and can_continue(output):
            run = describe_run(
                name,
                file,
                backend=predictor.backend.name,
                input_format=input_format,
                fields=dict(layout.names),
                format=form.value,
                embed=embed,
                tasks=job.tasks,
                when_empty=when_empty.value,
                **scoring,
            )
            job.write_file(texts_of_file, output, run, resume, count_texts(file, input_format))
        else:
            total = count_texts(file, input_format)
            job.write(texts_of_file, output, progress=True, total=total)
    elif output is None and form is Form.TEXT and _stdin_is_silent():
        job.show_examples()
        if is_person(sys.stdin) and is_person(sys.stdout):
            job.converse()
    else:
        count = job.write(announced(stdin_texts(when_empty)), output, progress=True)
        if not count and output is None and form is Form.TEXT:
            job.show_examples()


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split the arguments into the model, if the first one is one, and the texts.

    Raises:
        RequestError: the first argument is a file that is no model.
    """
    if not arguments or not arguments[0]:
        return DEFAULT_MODEL, list(arguments)
    first, *rest = arguments
    path = Path(first)
    with suppress(OSError, ValueError):  # a text longer than any path
        if path.is_file() and path.suffix != ".pt":
            raise RequestError(
                f"{first} is a file, but not a model",
                expected="a model folder, the folder of a run or a .pt checkpoint",
                fix=f"To predict for its lines or records: --file {first}",
            )
        if path.exists():
            return first, rest
    looks_like_a_path = first.endswith((".pt", os.sep)) or (
        os.sep in first and not any(map(str.isspace, first))
    )
    return (first, rest) if looks_like_a_path else (DEFAULT_MODEL, [first, *rest])


@dataclass(frozen=True)
class _Job:
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


def announced(texts: Iterable[GivenText]) -> Iterator[GivenText]:
    """Pass texts on; if the first one is late, report what the command waits for."""
    note = "reading sentences from standard input, one a line; Ctrl-C ends"
    timer = Timer(_PATIENCE, lambda: tell("note", note))
    timer.daemon = True
    timer.start()
    try:
        for text in texts:
            timer.cancel()
            yield text
    finally:
        timer.cancel()


def _stdin_is_silent() -> bool:
    """Return whether only a person can be at the other end of standard input."""
    if sys.stdin is None or sys.stdin.closed or is_person(sys.stdin):
        return True
    try:
        return os.path.samestat(os.fstat(sys.stdin.fileno()), Path(os.devnull).stat())
    except (OSError, ValueError):
        return False


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
