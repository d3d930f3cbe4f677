"""Predictions for a person: a few example sentences, then their own."""

from __future__ import annotations

import sys
from contextlib import suppress

from manyheads.api.prediction_job import PredictionJob
from manyheads.api.texts import EmptyTexts, argument_texts
from manyheads.cli.errors import tell
from manyheads.data.demo import TEXTS
from manyheads.errors import ManyheadsError

EXAMPLES = (f"{TEXTS[0]}.", *TEXTS[1:])


def show_examples(job: PredictionJob) -> None:
    """Predict for a few sentences and show each above its results."""
    sys.stdout.flush()
    stream = sys.stdout.buffer
    for prediction in job.predictions(EXAMPLES):
        stream.write(f"> {prediction.text}\n".encode() + job.shown(prediction) + b"\n")
    stream.flush()


def converse(job: PredictionJob) -> None:
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
            for text in argument_texts([line], EmptyTexts.SKIP):
                for prediction in job.predictions([text], chunk=1):
                    print(job.shown(prediction).decode())
        except ManyheadsError as error:
            tell("error", str(error))
