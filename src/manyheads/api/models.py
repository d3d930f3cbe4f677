"""The verbs about model folders: `load`, `predict`, `info`, `export` and `push`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import messages, optional_data
from manyheads.api.description import Description, describe
from manyheads.api.model import Model
from manyheads.storage import StrPath

if TYPE_CHECKING:
    from manyheads.exporting import ExportResult


def load(
    model: StrPath = "saved_model",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model.

    Args:
        model: a model folder, a checkpoint, a run's folder (its best model), or the name of a model
            on the hub: `user/name`, or `user/name@revision`.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.

    Raises:
        ModelError: there is no such model, or it is damaged.
        RequestError: the backend or device is unknown or not available.
    """
    from manyheads.inference import load_model

    loaded = load_model(model, backend=backend, device=device, threads=threads)
    return Model(lambda: loaded)


def predict(texts: Any, model: StrPath = "saved_model", **options: Any) -> Any:
    """Predict for texts; the command is `manyheads predict`.

    It loads the model. To predict more than once, load it yourself: `load(model).predict(texts)`.

    Args:
        texts: strings, lists of tokens, pairs of strings, or a DataFrame.
        model: a model folder, a checkpoint, a run's folder, or a name on the hub.
        **options: those of `Model.predict`.

    Raises:
        ManyheadsError: the model, a text or an option is invalid.
    """
    return load(model).predict(texts, **options)


def info(model: StrPath = "saved_model") -> Description:
    """Describe a model from its files, which are checked; the command is `manyheads info`.

    Raises:
        ModelError: there is no such model, or it is damaged.
    """
    found = describe(model)
    found.verify()
    return found


def export(
    model: StrPath = "saved_model",
    *,
    formats: Sequence[str] | None = None,
    data: Any = None,
    limit: float = 0.3,
    threads: int | None = None,
    progress: bool = True,
) -> ExportResult:
    """Add fast graphs of a model to its folder; the command is `manyheads export`.

    Each graph is compared with PyTorch first. `load` then runs the fastest one.

    Args:
        model: a model, its folder, or a run's folder.
        formats: `float32`, `int8` (both ONNX) or `openvino`; default: the first two.
        data: labelled records to compare on, or a file; default: the validation data of the run.
        limit: hundredths of its main metric that a task may lose to int8, beyond chance.
        threads: processor threads; default: all available cores.
        progress: whether each step is written to standard error.

    Raises:
        ManyheadsError: the model, the data or a format cannot be used.
    """
    from manyheads.exporting import DEFAULT_FORMATS, export_model

    with ExitStack() as named:
        path = optional_data(data, "comparison", named)
        return export_model(
            model, formats=formats or DEFAULT_FORMATS, data=path, limit=limit, threads=threads,
            progress=messages("export", progress),
        )  # fmt: skip


def push(model: StrPath, name: str, *, private: bool = False) -> str:
    """Push a model to the Hugging Face hub, for `load(name)`; the command is `manyheads push`.

    Safetensors, JSON and the model card are sent, and nothing else.

    Args:
        model: a model folder, or a run's folder (its best model).
        name: `user/name`; the repository is made if it does not exist.
        private: whether a new repository can be seen by its owner alone.

    Returns:
        the name with the commit, which loads this state of the model at any later time.

    Raises:
        ManyheadsError: the model or the name is invalid, or the hub refuses or cannot be reached.
    """
    from manyheads.storage import push_model, resolve_model

    return push_model(resolve_model(model), name, private=private)
