"""`manyheads predict`: texts from anywhere to labels, entities and embeddings.

Nothing here needs a deep-learning framework; only the backend may import one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated, Any

import typer

from manyheads.api.arguments import check_prompt
from manyheads.api.prediction_job import Form, PredictionJob, answer_file, check_output, form_of
from manyheads.api.ray_prediction import predict_with_ray, refuse_ray_options
from manyheads.api.texts import EmptyTexts, GivenText, argument_texts, is_person, stdin_texts
from manyheads.cli.conversation import converse, show_examples
from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    ComputeOptions,
    Tasks,
    TextOptions,
    takes_groups,
    task_names,
)
from manyheads.cli.ray_engine import (
    Engine,
    EngineOption,
    RayAddress,
    Workers,
)
from manyheads.errors import ModelError, RequestError, counted, listing, shorten

if TYPE_CHECKING:
    from manyheads.inference import Predictor, Runtime

# Seconds without input after which the command reports what it waits for.
_PATIENCE = 2.0

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class _InputOptions(TextOptions):
    """The options for how the input is laid out; `--format` is that of the output."""

    format: Annotated[
        str | None,
        typer.Option(
            "--input-format",
            metavar="NAME",
            help="The format of FILE, if its ending does not show it, or of standard input.",
        ),
    ] = None


@dataclass(frozen=True)
class _EngineOptions(ComputeOptions):
    """The options for how a model runs, in this process or in those of Ray."""

    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processor threads. Default: all available cores; with --engine ray, 1 for each "
            "process.",
        ),
    ] = None


@app.command()
@takes_groups
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
    source: _InputOptions,
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
            "the output (.jsonl, .csv, .parquet), or else text; endings of other data files are "
            "refused.",
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Also the sentence embedding.")] = False,
    prompt_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --embed: the prompt of the encoder to embed texts behind, by the name that "
            "`manyheads info` shows. Default: the encoder's default prompt, if it has one.",
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="With --embed: the prompt itself, in place of one of the encoder's.",
        ),
    ] = None,
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
            help="Leave answers undecided whose score does not reach the model's thresholds, if it "
            "has any (manyheads thresholds)."
        ),
    ] = True,
    logits: Annotated[
        bool, typer.Option("--logits", help="Also the heads' own outputs (jsonl).")
    ] = False,
    tasks: Tasks = None,
    when_empty: Annotated[
        EmptyTexts,
        typer.Option(help="A text without words ends the command, is answered, or is left out."),
    ] = EmptyTexts.REFUSE,
    compute: _EngineOptions,
    engine: EngineOption = Engine.LOCAL,
    workers: Workers = None,
    ray_address: RayAddress = None,
) -> None:
    """Predict labels and entities, and the embedding on request.

    Texts come from the arguments, a file, or the lines of standard input. If that is a terminal, a
    few example sentences are shown, and your own follow.
    """
    name, given = (model, list(arguments or ())) if model else split_arguments(arguments or ())
    if file is not None and given:
        raise RequestError(
            f"{counted(len(given), 'text')} among the arguments and --file {file}",
            fix="Give one of the two.",
        )
    scoring = {"top_k": top_k, "thresholds": thresholds, "logits": logits}
    if engine is Engine.RAY:
        written = predict_with_ray(
            name, [file] if file is not None else given, to,
            unsupported=_not_with_ray(source, form_named, resume, scoring, prompt_name, prompt),
            input_format=source.format, embed=embed, tasks=task_names(tasks),
            when_empty=when_empty, workers=workers, address=ray_address,
            progress=is_person(sys.stderr), runtime=compute.runtime,
        )  # fmt: skip
        files = counted(written.files, "file")
        tell("note", f"{counted(written.rows, 'row')} in {files}: {written.output}")
        return
    refuse_ray_options(workers, ray_address)
    if file is None:
        _refuse_layout(source)
    output = None if to is None else Path(to)
    form = form_named or form_of(None, output)
    check_output(form, file, output, resume, scoring)
    check_prompt(embed, prompt_name, prompt)
    texts = argument_texts(given, when_empty)
    doubtful = not model and given == arguments and bool(given) and _is_word(given[0])
    predictor = _load(name, compute.runtime, given, doubtful)
    job = PredictionJob(
        predictor, form, embed, task_names(tasks), when_empty, scoring,
        prompt=predictor.prompt_of(prompt_name, prompt),
    )  # fmt: skip
    job.check_tasks()
    if given:
        job.write(texts, output)
    elif file is not None:
        answer_file(
            job, name, file, source.layout(), output, resume=resume,
            note=lambda text: tell("note", text),
        )  # fmt: skip
    else:
        _answer_input(job, output)


def _load(name: str, runtime: Runtime, texts: Sequence[str], doubtful: bool) -> Predictor:
    """Load the model; say so where a text may be meant as one.

    Args:
        name: the model.
        runtime: what runs it.
        texts: the texts among the arguments.
        doubtful: whether the first of them may be meant as a model.

    Raises:
        ModelError: there is no such model, or it is damaged.
    """
    from manyheads.inference import load_model

    try:
        loaded = load_model(
            name, runtime, alone=bool(texts), warn=lambda text: tell("warning", text)
        )
    except ModelError as error:
        if not doubtful or Path(name).exists():
            raise
        raise _neither(texts[0], name) from error
    if doubtful and len(texts) > 1:
        tell("note", f"model {name}; {shorten(texts[0])} is read as a text")
    return loaded.predictor


def _refuse_layout(source: TextOptions) -> None:
    """Refuse the options for how a file is laid out, without a file.

    Raises:
        RequestError: one was given.
    """
    if unused := listing(_layout_options(source, format=True)):
        raise RequestError(
            f"{unused} without --file",
            expected="a file, or - for standard input; texts among the arguments and lines have no "
            "layout",
            fix=f"Add --file, or leave out {unused}.",
        )


def _not_with_ray(
    source: TextOptions,
    form: Form | None,
    resume: bool,
    scoring: Mapping[str, Any],
    prompt_name: str | None,
    prompt: str | None,
) -> list[str]:
    """Return the options given that the engine ray does not have."""
    given = {
        "--resume": resume,
        "--top-k": scoring["top_k"],
        "--logits": scoring["logits"],
        "--no-thresholds": not scoring["thresholds"],
        f"--format {form.value if form else ''}": form not in (None, Form.TEXT),
        "--prompt-name": prompt_name is not None,
        "--prompt": prompt is not None,
    }
    unsupported = [option for option, value in given.items() if value]
    return [*unsupported, *_layout_options(source, format=False)]


def _layout_options(source: TextOptions, *, format: bool) -> list[str]:
    """Return the options given for how the input is laid out.

    Args:
        source: the options.
        format: whether that of its format is one of them.
    """
    given = {
        "--input-format": source.format if format else None,
        "--text-field": source.text_field,
        "--text2-field": source.text2_field,
        "--tokens-field": source.tokens_field,
        "--map": source.field_map,
    }
    return [option for option, value in given.items() if value]


def _answer_input(job: PredictionJob, output: Path | None) -> None:
    """Predict for standard input; at a terminal, show examples and talk to the person."""
    if output is None and job.form is Form.TEXT and is_person(sys.stdin):
        show_examples(job)
        if is_person(sys.stdout):
            converse(job)
        return
    job.write(announced(stdin_texts(job.when_empty)), output, progress=True)


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


def _is_word(text: str) -> bool:
    """Return whether a text could be the mistyped name of a model."""
    return bool(text) and not any(map(str.isspace, text))


def _neither(word: str, model: str) -> ModelError:
    """Make the error for a word that is no model, where the default model does not exist.

    Args:
        word: the first argument.
        model: the default model.
    """
    return ModelError(
        f"{shorten(word)} is not the path of a model, and there is no {model} that would read it "
        "as a text",
        expected="a model folder, a checkpoint (.pt) or a run's folder, and texts",
        fix="Train a model first (manyheads train CONFIG), or correct the path.",
    )


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
