"""The services that `serving.py` compares; each is a process that listens on a port.

    python benchmarks/serving_systems.py prepare MODEL WORK
    python benchmarks/serving_systems.py {plain,classes,entities,vectors} FOLDER PORT

`plain` is FastAPI around our predictor, a text at a time. The other three are FastAPI around the
usual pipelines, whose models `prepare` writes to WORK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

THREADS = 2


class Ask(BaseModel):
    """A request."""

    text: str


def prepare(folder: Path, work: Path) -> None:
    """Write a model for each of the usual pipelines, with the trained weights."""
    from manyheads.inference.backends import pytorch
    from rivals import SeparateModels

    SeparateModels(folder, pytorch.load_trained(folder), work)


def plain(folder: Path) -> Callable[[str], Any]:
    """Load our predictor with its default settings."""
    from manyheads.inference import Runtime, load_model

    predictor = load_model(folder, Runtime(threads=THREADS)).predictor
    return lambda text: predictor.predict([text], embed=True)[0].to_json()


def pipeline(folder: Path, task: str, **options: Any) -> Callable[[str], Any]:
    """Load a pipeline of transformers."""
    import torch

    torch.set_num_threads(THREADS)
    hub: Any = import_module("transformers")
    pipe = hub.pipeline(task, model=str(folder / task), device="cpu", **options)

    def answer(text: str) -> Any:
        found = pipe(text)
        return [{**one, "score": float(one["score"])} for one in found]

    return answer


def vectors(folder: Path) -> Callable[[str], Any]:
    """Load a sentence transformer."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(str(folder), device="cpu")
    return lambda text: encoder.encode(text, show_progress_bar=False).tolist()


SYSTEMS: dict[str, Callable[[Path], Callable[[str], Any]]] = {
    "plain": plain,
    "classes": lambda folder: pipeline(folder, "text-classification"),
    "entities": lambda folder: pipeline(
        folder, "token-classification", aggregation_strategy="simple"
    ),
    "vectors": vectors,
}


def serve(answer: Callable[[str], Any], port: int) -> None:
    """Serve a function as FastAPI's users do: a plain route, on its pool of threads."""
    app = FastAPI()

    @app.post("/")
    def ask(given: Ask) -> Any:
        return answer(given.text)

    answer("Is everything ready?")
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    system, folder, last = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if system == "prepare":
        prepare(folder, Path(last))
    else:
        serve(SYSTEMS[system](folder), int(last))
