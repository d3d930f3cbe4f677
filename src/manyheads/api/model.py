"""Models for Python: predict, embed, evaluate and save, from one object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from manyheads.api.arguments import chosen_prompt, warn
from manyheads.api.frames import is_frame, texts_of, with_predictions
from manyheads.api.predictions import Predictions
from manyheads.config import BATCH_TOKENS, kept_threads
from manyheads.data.readers import Layout, have_fields, is_column
from manyheads.errors import (
    RequestError,
    counted,
    listed,
    listing,
    nearest,
    shorten,
)
from manyheads.inference import (
    LoadedModel,
    Predictor,
    Runtime,
    Text,
    WhenEmpty,
    embed_texts,
    load_model,
    read_trust,
)
from manyheads.storage import StrPath
from manyheads.tasks import Prediction, TaskSpec
from manyheads.tasks.html import table
from manyheads.text import Floats

if TYPE_CHECKING:
    from manyheads.config import Config
    from manyheads.evaluation import EvaluationReport
    from manyheads.evaluation.report import Report
    from manyheads.inference.backends.base import Backend
    from manyheads.modeling import MultiTaskModel
    from manyheads.training import AddedLabels, TrainResult

_LABELS_SHOWN = 8


def load_again(
    model: StrPath,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> LoadedModel:
    """Load a model with the options of `manyheads.load`.

    A pickle of a `Model` holds a call of this function, which therefore takes plain values alone.
    """
    return load_model(model, Runtime(backend, device, threads, batch_tokens))


class Model:
    """A trained model. Functions that take the path of a model take this object as well.

    A pickle or a copy holds the path and loads the model again.

    Args:
        load: loads it when it is first used.
        loaded: the model, if that was done.
    """

    def __init__(self, load: Callable[[], LoadedModel], loaded: LoadedModel | None = None) -> None:
        self._load = load
        self._module: MultiTaskModel | None = None
        if loaded is not None:
            self._loaded = loaded

    @cached_property
    def _loaded(self) -> LoadedModel:
        with kept_threads():
            return self._load()

    def __getstate__(self) -> dict[str, Any]:
        if self._has_changed():
            raise RequestError(
                "the weights of `module` have changed and are in no folder",
                expected="a model as it was loaded; a pickle or a copy holds its path",
                fix="Save it, and load that: manyheads.load(model.save(FOLDER)).",
            )
        state = {name: value for name, value in vars(self).items() if name != "_loaded"}
        return {**state, "_module": None}

    def _has_changed(self) -> bool:
        """Return whether `module` has other weights than the model's files."""
        from manyheads.api.saving import has_weights_of

        return self._module is not None and not has_weights_of(self._module, self.path)

    def _read_trust_again(self) -> None:
        """Predict with the calibration, thresholds and scope that the model's folder has now."""
        if "_loaded" in vars(self):
            read_trust(self._loaded)

    @property
    def path(self) -> Path:
        """The model folder or checkpoint."""
        return Path(self._loaded.path)

    @property
    def config(self) -> Config:
        """The configuration that the model was trained with."""
        return self._loaded.config

    @property
    def predictor(self) -> Predictor:
        """The predictor."""
        return self._loaded.predictor

    @property
    def backend(self) -> Backend:
        """The backend that runs the model."""
        return self.predictor.backend

    @property
    def specs(self) -> Sequence[TaskSpec]:
        """The tasks in their order."""
        return self.predictor.specs

    @property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """The tasks by name, each with its kind and labels."""
        return {spec.name: spec for spec in self.specs}

    @property
    def module(self) -> MultiTaskModel:
        """The model as a `torch.nn.Module`, for a training loop of your own.

        With the backend `torch` it makes the predictions. After that, `save` writes its weights.
        """
        if self._module is None:
            from manyheads.inference.backends.pytorch import TorchBackend, load_trained

            backend = self.backend
            if isinstance(backend, TorchBackend):
                self._module = backend.model
            else:
                self._module = load_trained(self.path).model
        return self._module

    def __fspath__(self) -> str:
        return os.fspath(self._loaded.path)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__}({os.fspath(self)!r})"]
        for name, spec in self.tasks.items():
            labels = listing(spec.labels, _LABELS_SHOWN)
            lines.append(f"  {name}: {spec.kind}{f' ({labels})' if labels else ''}")
        lines.append(f"  encoder: {self.config.model_name}, {self.predictor.max_length} tokens")
        return "\n".join([*lines, f"  backend: {self.backend.name}"])

    def _repr_html_(self) -> str:
        """Return a table for notebooks: a row for each task, encoder and backend."""
        rows = [
            [name, f"{spec.kind}: {listing(spec.labels, _LABELS_SHOWN)}".removesuffix(": ")]
            for name, spec in self.tasks.items()
        ]
        rows.append(["encoder", f"{self.config.model_name}, {self.predictor.max_length} tokens"])
        rows.append(["backend", self.backend.name])
        return table(os.fspath(self), ["task", "kind and labels"], rows)

    @overload
    def predict(
        self,
        texts: Sequence[Text],
        *,
        embed: bool = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        tasks: Sequence[str] | None = ...,
        when_empty: WhenEmpty = ...,
        top_k: int = ...,
        thresholds: bool | Mapping[str, float] = ...,
        logits: bool = ...,
    ) -> Predictions: ...

    @overload
    def predict(
        self,
        texts: Any,
        *,
        text: str = ...,
        embed: bool = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        tasks: Sequence[str] | None = ...,
        when_empty: WhenEmpty = ...,
        top_k: int = ...,
        thresholds: bool | Mapping[str, float] = ...,
        logits: bool = ...,
    ) -> Any: ...

    def predict(
        self,
        texts: Any,
        *,
        text: str = "text",
        embed: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
    ) -> Any:
        """Predict for texts: a list of predictions, or for a DataFrame a DataFrame.

        A notebook shows the list as a table.

        The result has the columns and index of the DataFrame, for each task a column of its name
        (`predicted_NAME` if that exists), for classes their probability (`NAME_score`), with
        `top_k` the most probable ones (`NAME_candidates`), with `logits` the head's own output
        (`NAME_logit`), and `in_scope` if the model has a scope.

        Args:
            texts: strings, lists of tokens, pairs of strings, a pandas or polars DataFrame, or
                records in another form that `train` takes.
            text: the column or field of texts. A model with a task of pairs reads `text2` too.
            embed: whether to return embeddings as well.
            prompt_name, prompt: what embeddings read before each text, as for `encode`.
            tasks: the tasks to answer; default: all.
            when_empty: whether a text without words gets an empty prediction (`flag`) or is an
                error (`refuse`).
            top_k: how many of the most probable labels are listed with each result.
            thresholds: whether results that do not reach the model's thresholds are undecided; or
                by task the score that they have to reach.
            logits: whether results have the head's own output as well.

        Raises:
            RequestError: a text, column, task or option is invalid.
        """
        tasks = listed("tasks", tasks)
        predictor = self._prompted(embed, prompt_name, prompt)
        predict = partial(
            predictor.predict, embed=embed, tasks=tasks, top_k=top_k, thresholds=thresholds,
            logits=logits,
        )  # fmt: skip
        found = predict(_given(texts, text, predictor.pairs), when_empty=when_empty)
        if not is_frame(texts):
            return Predictions(found)
        [blank] = predict([""])
        return with_predictions(
            texts, found, blank, scoped=predictor.answers_scope(tasks), embed=embed, top_k=top_k,
            logits=logits,
        )  # fmt: skip

    def predict_stream(
        self,
        texts: Iterable[Text],
        *,
        embed: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        tasks: Sequence[str] | None = None,
        when_empty: WhenEmpty = "flag",
        chunk: int = 2048,
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
    ) -> Iterator[Prediction]:
        """Predict for any number of texts in constant memory (see `Predictor.predict_stream`)."""
        return self._prompted(embed, prompt_name, prompt).predict_stream(
            texts, embed=embed, tasks=tasks, when_empty=when_empty, chunk=chunk, top_k=top_k,
            thresholds=thresholds, logits=logits,
        )  # fmt: skip

    def predict_file(
        self,
        file: StrPath,
        output: StrPath | None = None,
        *,
        format: str | None = None,
        layout: Layout | None = None,
        resume: bool = False,
        embed: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        tasks: Sequence[str] | None = None,
        when_empty: str = "flag",
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        logits: bool = False,
        progress: bool = True,
    ) -> Any:
        """Predict for the texts of a file; other fields of its records are kept.

        Args:
            file: a data file of any format, or a .txt with a text a line.
            output: the file to write, which appears when it is complete. `format` and `resume`
                are refused without it.
            format: `jsonl`, `csv`, `parquet` or `text`; default: by the ending of `output`.
            layout: how the file is laid out, as far as you know it.
            resume: continue the output of a run that was stopped.
            embed, prompt_name, prompt, tasks, top_k, thresholds, logits: see `predict`.
            when_empty: whether a text without words is answered (`flag`), is an error (`refuse`) or
                is left out (`skip`).
            progress: whether progress is shown: a bar on a terminal, lines elsewhere.

        Returns:
            the number of texts; without an output the predictions, each with its record's `fields`.

        Raises:
            ManyheadsError: the file, a text or an option is invalid.
        """
        from manyheads.api.arguments import messages, refuse_unused
        from manyheads.api.prediction_job import PredictionJob, answer_file, check_output, form_of
        from manyheads.api.texts import EmptyTexts

        if output is None:
            refuse_unused(
                {"format": format, "resume": resume}, "without `output`",
                expected="a file to write; without one the predictions are returned",
            )  # fmt: skip
        if not isinstance(file, str | os.PathLike):
            raise RequestError(
                f"the file is a {type(file).__name__}", expected="the path of a file",
                fix="For data in memory, use `predict`.",
            )  # fmt: skip
        chosen = listed("tasks", tasks)
        treatment = EmptyTexts.named(when_empty)
        form = form_of(format, output)
        path, used = os.fspath(file), layout or Layout()
        scoring = {"top_k": top_k, "thresholds": thresholds, "logits": logits}
        job = PredictionJob(
            self.predictor, form, embed, chosen, treatment, scoring, progress=progress,
            prompt=chosen_prompt(self.predictor, embed, prompt_name, prompt),
        )  # fmt: skip
        job.check_tasks()
        note = messages("predict", progress)
        if output is None:
            return Predictions(job.predictions(job.file_texts(path, used, note)))
        check_output(form, path, output, resume, scoring)
        return answer_file(job, self.path, path, used, Path(output), resume=resume, note=note)

    def predict_proba(self, texts: Any, task: str | None = None, *, text: str = "text") -> Floats:
        """Return the probability of every label of a task (see `Predictor.predict_proba`).

        Args:
            texts: N texts, in any form that `predict` takes.
            task: a task with one class or several classes a text; default: the only one.
            text: the column or field of texts.

        Returns:
            [N, L] float32 in the order of `tasks[task].labels`; NaN for a text without words.

        Raises:
            RequestError: the task is unknown, has no such probabilities, or there are several.
        """
        return self.predictor.predict_proba(_given(texts, text, self.predictor.pairs), task)

    def encode(
        self,
        texts: Any,
        *,
        text: str = "text",
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Floats:
        """Embed texts as `SentenceTransformer.encode` does: [N, H] float32.

        Args:
            texts: N texts, in any form that `predict` takes. One without words becomes zeros.
            text: the column or field of texts.
            prompt_name: the prompt of the encoder to put before each text, by the name that
                `manyheads info` shows; default: the encoder's default prompt, if it has one.
            prompt: the prompt itself, in place of one of the encoder's.

        Raises:
            RequestError: both are given, the encoder has no such prompt, or it leaves prompts out
                of the pooling.
        """
        predictor = self._prompted(True, prompt_name, prompt)
        return embed_texts(predictor, _given(texts, text, pairs=False))

    def _prompted(self, embed: bool, prompt_name: str | None, prompt: str | None) -> Predictor:
        chosen = chosen_prompt(self.predictor, embed, prompt_name, prompt)
        return self.predictor.with_prompt(chosen)

    def evaluate(
        self,
        data: Any = None,
        *,
        layout: Layout | None = None,
        tasks: Sequence[str] | None = None,
        drift: bool = True,
        errors: StrPath | None = None,
    ) -> EvaluationReport:
        """Score the model (see `manyheads.evaluate`).

        Args:
            data: labelled records in memory or a file; default: the validation data of its run.
            layout: how `data` are laid out, where content and names do not show it.
            tasks: the tasks to score; default: all that the data have labels for.
            drift: whether the embedding is compared with that of the original encoder.
            errors: where to write every record with an error as JSON lines; default: nowhere.

        Raises:
            ManyheadsError: the data cannot be used.
        """
        from manyheads.api.scoring import evaluate_model

        return evaluate_model(
            self._loaded, data, layout=layout, tasks=tasks, drift=drift, errors=errors
        )

    def report(
        self,
        data: Any = None,
        out: StrPath | None = None,
        *,
        against: StrPath | None = None,
        format: Literal["html", "md"] | None = None,
        suspects: bool = False,
        curve: bool = False,
        layout: Layout | None = None,
        tasks: Sequence[str] | None = None,
        slices: Sequence[str] = (),
        drift: bool = True,
        progress: bool = True,
    ) -> Report:
        """Report what the model gets wrong (see `manyheads.report`)."""
        from manyheads.api import report

        return report(
            self, data, out=out, format=format, against=against, suspects=suspects, curve=curve,
            layout=layout, tasks=tasks, slices=slices, drift=drift, progress=progress,
        )  # fmt: skip

    def save(self, path: StrPath) -> Path:
        """Write the model to a folder: a copy, or the weights of `module` if they have changed.

        Calibration, thresholds, scope and graphs hold for the weights that they were made from. A
        warning names those that changed weights leave behind.

        Raises:
            RequestError: the folder holds something else.
            StorageError: it cannot be written.
        """
        from manyheads.api.saving import copy_model, made_from_weights

        is_folder = self.path.is_dir()
        if is_folder and not self._has_changed():
            copy_model(self.path, path)
            return Path(path)
        from manyheads.modeling import model_contents, save_model_folder

        left = made_from_weights(self.path) if is_folder else []
        max_length = self.predictor.max_length
        save_model_folder(path, model_contents(self.module, self.config, max_length, {}))
        if left:
            warn(
                f"the weights of `module` have changed: {os.fspath(path)} is saved without "
                f"{listing(left)}, which are of the weights before. Make them again with "
                "manyheads.calibrate, manyheads.thresholds and manyheads.export."
            )
        return Path(path)


def _given(data: Any, field: str, pairs: bool) -> Any:
    """Return the texts of a DataFrame or records; texts as they are.

    Args:
        data: what to predict for.
        field: the column or field of texts.
        pairs: whether `text2` has second texts.

    Raises:
        ManyheadsError: there is no such column or field, or a record has no text.
    """
    if is_frame(data):
        return texts_of(data, field, pairs)
    if have_fields(data) or (isinstance(data, Mapping) and is_column(data.get(field))):
        from manyheads.api.texts import record_texts

        return record_texts(data, field, pairs=pairs)
    if isinstance(data, Mapping) and field not in data:
        raise RequestError(
            f"there is no column {field!r}{nearest(field, map(str, data))}",
            expected=f"one of: {listing(map(str, data))}",
            fix="Name the column of texts: text=NAME.",
        )
    if field != "text":
        raise RequestError(
            f"`text` is {shorten(field)}, and the texts have no fields",
            expected="a DataFrame or records, whose field of texts it names",
        )
    return data


class TrainedModel(Model):
    """The best model of a run, and the run's results. It is loaded when it is first used.

    Args:
        result: the run's outcome.
        load: loads its best model.
    """

    def __init__(self, result: TrainResult, load: Callable[[], LoadedModel]) -> None:
        super().__init__(load)
        self.result = result

    def __fspath__(self) -> str:
        return os.fspath(self.best)

    @property
    def save_dir(self) -> Path:
        """The folder of the run."""
        return self.result.save_dir

    @property
    def best(self) -> Path:
        """The best model's folder."""
        return self.result.best

    @property
    def best_epoch(self) -> int:
        """The epoch of the best model."""
        return self.result.best_epoch

    @property
    def best_score(self) -> float | None:
        """Its score; None for a model that learned from all records (`refit`)."""
        return self.result.best_score

    @property
    def best_of(self) -> Mapping[str, Path]:
        """By task the folder of its best model, with `keep_best_per_task`."""
        return self.result.best_of

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One entry an epoch: losses, metrics and score (see `TrainResult`)."""
        return self.result.history

    def __repr__(self) -> str:
        trained = f"{super().__repr__()}\n  trained: {counted(len(self.history), 'epoch')}"
        if self.best_score is None:
            return f"{trained} on all records"
        return f"{trained}, best {self.best_epoch}, score {self.best_score:.4f}"


class ExtendedModel(Model):
    """A model with labels that were added to a task, and the answers that changed.

    Args:
        result: what was added and changed.
        load: loads the model.
    """

    def __init__(self, result: AddedLabels, load: Callable[[], LoadedModel]) -> None:
        super().__init__(load)
        self.result = result

    def __repr__(self) -> str:
        return f"{super().__repr__()}\n  extended: {self.result}"
