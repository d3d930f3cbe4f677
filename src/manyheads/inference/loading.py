"""Loading a trained model from a run folder, a checkpoint or a model folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manyheads.config import Config, stored_config
from manyheads.errors import (
    ModelError,
    RequestError,
    at,
    install,
    listing,
    nearest,
    option,
    shorten,
)
from manyheads.inference.graphs import GRAPHS, load_exported, runnable_backends
from manyheads.inference.predictor import Predictor
from manyheads.inference.runtime import Runtime
from manyheads.inference.trust import read_scope, read_scorings
from manyheads.storage import (
    Manifest,
    Prefer,
    StrPath,
    fetch_model,
    is_hub_name,
    is_model_folder,
    read_model,
    resolve_model,
)
from manyheads.text import limit_tokenizer_threads

BACKENDS = ("auto", "torch", *GRAPHS)
"""The backends. `auto` is the fastest exported graph, or PyTorch if there is none."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict, and the configuration it was trained with."""

    path: str
    predictor: Predictor
    config: Config
    manifest: Manifest | None = None
    """That of the model folder that was read; None for a checkpoint."""


def load_model(
    model: StrPath = "saved_model",
    runtime: Runtime = Runtime(),
    *,
    prefer: Prefer = "best",
    precision: str = "float32",
    alone: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> LoadedModel:
    """Load a model with the configuration it was trained with.

    Args:
        model: a model folder, a checkpoint, a run's folder, or a model's name on the hub.
        runtime: what runs it.
        prefer: whether a run's folder means its best model or its latest checkpoint.
        precision: `float32` or `bf16`, in which PyTorch runs the model; graphs have their own.
        alone: whether only a text or two follow, for which another graph may be the fastest.
        warn: takes messages to the user, about graphs that were tried or a doubtful encoder.

    Raises:
        ModelError: there is no such model, or it is damaged.
        RequestError: there is no such backend or device.
    """
    _check_options(runtime)
    path = resolve_model(fetch_model(os.fspath(model)) if is_hub_name(model) else model, prefer)
    limit_tokenizer_threads(runtime.threads)
    _check_backend(path, runtime)

    def load(manifest: Manifest | None) -> LoadedModel:
        if manifest is not None and _runs_graph(manifest, runtime):
            predictor = load_exported(manifest, runtime, alone=alone, warn=warn)
            config = stored_config(manifest.config)
        else:
            predictor, config = _load_in_torch(manifest or path, runtime, precision, warn)
        return LoadedModel(os.fspath(path), predictor, config, manifest)

    return read_model(path, load) if is_model_folder(path) else load(None)


def read_trust(loaded: LoadedModel) -> None:
    """Give a predictor the calibration, thresholds and scope that its model's folder has now.

    Raises:
        ModelError: they are damaged, or the folder holds another model by now.
    """
    read_model(loaded.path, partial(_read_trust, loaded))


def _read_trust(loaded: LoadedModel, manifest: Manifest) -> None:
    predictor = loaded.predictor
    if loaded.manifest is None or not loaded.manifest.is_same_model(manifest):
        raise ModelError(
            "the folder holds another model than the one that was loaded",
            expected="the model that was loaded",
            fix="Load the model again.",
            where=at(manifest.folder),
        )
    backend, _, _ = predictor.backend.name.partition(" ")
    scorings = read_scorings(manifest, predictor.specs, backend)
    predictor.scope = read_scope(manifest, predictor.specs)
    predictor.scorings = scorings


def _check_options(runtime: Runtime) -> None:
    if runtime.backend not in BACKENDS:
        raise RequestError(
            f"there is no backend {shorten(runtime.backend)}{nearest(runtime.backend, BACKENDS)}",
            expected=f"one of: {listing(BACKENDS)}",
        )
    for name in ("threads", "batch_tokens"):
        value = getattr(runtime, name)
        if value is not None and (type(value) is not int or value < 1):
            raise RequestError(
                f"{name} is {shorten(value)}",
                expected="a whole number of at least 1",
                fix="Leave it out for all cores." if name == "threads" else "",
            )


def _load_in_torch(
    source: Path | Manifest, runtime: Runtime, precision: str, warn: Callable[[str], None]
) -> tuple[Predictor, Config]:
    try:
        from manyheads.inference.backends import pytorch
    except ImportError as error:
        raise ModelError(
            f"running this model needs PyTorch and transformers ({error})",
            where=at(source.folder if isinstance(source, Manifest) else source),
            fix=install("train"),
        ) from error  # fmt: skip
    return pytorch.load(source, runtime, precision, warn=warn)


def _check_backend(path: Path, runtime: Runtime) -> None:
    """Check that a graph can be asked for, if one is asked for by name."""
    backend, device = runtime.backend, runtime.device
    if backend in ("auto", "torch"):
        return
    if not is_model_folder(path):
        raise ModelError(
            f"a checkpoint has no graph for backend {backend!r}", where=at(path),
            expected="a model folder, such as the run's best model",
            fix="Export that one first: "
            + option("manyheads export MODEL", "manyheads.export(MODEL)"),
        )  # fmt: skip
    if device not in ("auto", "cpu"):
        raise RequestError(
            f"backend {backend!r} does not run on device {device!r}",
            expected="device cpu",
            fix=f"Use {option('--backend torch')}.",
        )


def _runs_graph(manifest: Manifest, runtime: Runtime) -> bool:
    """Return whether one of the model's graphs is to run it, and not PyTorch."""
    if runtime.backend == "auto":
        return runtime.device in ("auto", "cpu") and bool(runnable_backends(manifest))
    return runtime.backend != "torch"
