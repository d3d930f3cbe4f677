"""The verbs about model folders: `load`, `predict`, `info`, `export` and `push`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import messages, optional_data, refuse_unused
from manyheads.api.description import Description, describe
from manyheads.api.model import Model, load_again
from manyheads.api.ray_prediction import predict_with_ray, refuse_ray_options
from manyheads.api.texts import EmptyTexts
from manyheads.config import BATCH_TOKENS, restored_threads
from manyheads.data.readers import Layout
from manyheads.errors import RequestError, shorten
from manyheads.inference import Runtime
from manyheads.storage import StrPath

if TYPE_CHECKING:
    from manyheads.exporting import ExportResult


def load(
    model: StrPath = "saved_model",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Model:
    """Load a model.

    Args:
        model: a model folder, a checkpoint, a run's folder (its best model), or the name of a model
            on the hub: `user/name`, or `user/name@revision`.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores. PyTorch has one number for the
            whole process, which a model that runs in it sets.
        batch_tokens: tokens of a batch, padding included.

    Raises:
        ModelError: there is no such model, or it is damaged.
        RequestError: the backend or device is unknown or not available.
    """
    options: dict[str, Any] = {
        "backend": backend, "device": device, "threads": threads, "batch_tokens": batch_tokens,
    }  # fmt: skip
    loaded = load_again(model, **options)
    # The path, not `model`: a name on the hub may be another model later.
    return Model(partial(load_again, Path(loaded.path).absolute(), **options), loaded)


@restored_threads()
def predict(
    texts: Any = None,
    model: StrPath = "saved_model",
    *,
    file: StrPath | None = None,
    output: StrPath | None = None,
    format: str | None = None,
    layout: Layout | None = None,
    resume: bool = False,
    text: str = "text",
    embed: bool = False,
    prompt_name: str | None = None,
    prompt: str | None = None,
    tasks: Sequence[str] | None = None,
    when_empty: str = "flag",
    top_k: int = 0,
    thresholds: bool | Mapping[str, float] = True,
    logits: bool = False,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    engine: str = "local",
    workers: int | None = None,
    ray_address: str | None = None,
    progress: bool = True,
) -> Any:
    """Predict for texts or a file; the command is `manyheads predict`.

    It loads the model. To predict more than once, load it yourself: `load(model).predict(texts)`.

    Args:
        texts: strings, lists of tokens, pairs of strings, a DataFrame, or records in another form
            that `train` takes.
        model: a model folder, a checkpoint, a run's folder, or a name on the hub.
        file: a file of texts in place of them.
        output: where the predictions for a file are written (see `Model.predict_file`). Like
            `format`, `layout` and `resume`, it is refused with texts.
        format: the format of the output.
        layout: how the file is laid out, as far as you know it.
        resume: continue the output of a run that was stopped.
        text, embed, prompt_name, prompt, tasks, when_empty, top_k, thresholds, logits: see
            `Model.predict`; `when_empty="skip"` leaves out texts of a file without words.
        backend, device, threads, batch_tokens: see `load`; with the engine `ray`, `threads` is by
            default 1 for each worker.
        engine: `ray` predicts in many processes, on one machine or many; `file` and `output` are
            then folders too.
        workers: processes of the engine `ray`; default: as many as fit.
        ray_address: the cluster that it joins; default: this machine alone.
        progress: whether the progress of a file is shown.

    Returns:
        the predictions, a DataFrame for a DataFrame, or what was written for a file.

    Raises:
        ManyheadsError: the model, a text, a file or an option is invalid.
    """
    if (texts is None) == (file is None):
        raise RequestError(
            f"{'neither' if file is None else 'both'} texts {'nor' if file is None else 'and'} "
            "a file",
            expected="one of them",
            fix='Pass texts, such as predict(["a text"]), or file="texts.csv".',
        )
    answers: dict[str, Any] = {"embed": embed, "tasks": tasks, "when_empty": when_empty}
    scoring: dict[str, Any] = {"top_k": top_k, "thresholds": thresholds, "logits": logits}
    if engine not in ("local", "ray"):
        raise RequestError(f"the engine is {shorten(engine)}", expected="local or ray")
    if engine == "ray":
        others = {**scoring, "thresholds": thresholds is not True, "format": format}
        others |= {"layout": layout is not None and bool(layout.names), "resume": resume}
        others |= {"prompt_name": prompt_name is not None, "prompt": prompt is not None}
        others["text"] = text != "text"
        return predict_with_ray(
            os.fspath(model), [] if file is None else [os.fspath(file)],
            None if output is None else os.fspath(output),
            unsupported=[f"`{name}`" for name, value in others.items() if value],
            input_format=None if layout is None else layout.format, embed=embed, tasks=tasks,
            when_empty=EmptyTexts.named(when_empty), workers=workers, address=ray_address,
            progress=progress, runtime=Runtime(backend, device, threads, batch_tokens),
        )  # fmt: skip
    refuse_ray_options(workers, ray_address)
    if file is None:
        refuse_unused(
            {"output": output, "format": format, "layout": layout, "resume": resume},
            "with texts in memory", expected="`file`; the predictions for texts are returned",
        )  # fmt: skip
    else:
        refuse_unused(
            {"text": text != "text"}, "with a file",
            expected="a DataFrame; `layout` names the fields of a file",
        )  # fmt: skip
    loaded = load(model, backend=backend, device=device, threads=threads, batch_tokens=batch_tokens)
    answers |= {"prompt_name": prompt_name, "prompt": prompt}
    if file is None:
        return loaded.predict(texts, text=text, **answers, **scoring)
    return loaded.predict_file(
        file, output, format=format, layout=layout, resume=resume, progress=progress, **answers,
        **scoring,
    )  # fmt: skip


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
    layout: Layout | None = None,
    limit: float = 0.3,
    opset: int = 17,
    threads: int | None = None,
    progress: bool = True,
) -> ExportResult:
    """Add fast graphs of a model to its folder; the command is `manyheads export`.

    Each graph is compared with PyTorch first. `load` then runs the fastest one.

    Args:
        model: a model, its folder, or a run's folder.
        formats: `float32`, `int8` (both ONNX) or `openvino`; default: the first two.
        data: labelled records to compare on, or a file; default: the validation data of the run.
        layout: how `data` are laid out, where content and names do not show it.
        limit: percentage points of its main metric that a task may lose to int8, beyond chance.
        opset: the version of ONNX's operators.
        threads: processor threads; default: all available cores.
        progress: whether each step is written to standard error.

    Raises:
        ManyheadsError: the model, the data or a format cannot be used.
    """
    from manyheads.exporting import DEFAULT_FORMATS, export_model

    with ExitStack() as named:
        path = optional_data(data, "comparison", named)
        return export_model(
            model, formats=DEFAULT_FORMATS if formats is None else formats, data=path,
            layout=layout, limit=limit, opset=opset, threads=threads,
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
