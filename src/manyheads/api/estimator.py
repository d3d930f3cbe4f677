"""A scikit-learn classifier of texts, for pipelines, searches and cross-validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from manyheads.api import load, train
from manyheads.api.model import Model
from manyheads.data.readers import is_missing
from manyheads.errors import RequestError, shorten
from manyheads.text import Floats

try:
    from sklearn.base import BaseEstimator, ClassifierMixin  # type: ignore[import-untyped]
    from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]
except ImportError as error:
    raise RequestError(
        f"SentenceClassifier needs scikit-learn, which cannot be imported ({error})",
        fix="Run: pip install scikit-learn",
    ) from error

_TASK = "label"


class SentenceClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains an encoder with one classification head.

    A part of the records given to `fit` is held out to choose the best epoch. The fitted model is
    `model_`, which `save` writes to a folder; a pickled classifier has it inside.

    Args:
        model_name: the encoder.
        num_epochs: the number of epochs, or `auto`.
        learning_rate: the encoder's learning rate; None chooses it by the records a class.
        batch_size: sentences in a batch.
        seed: seed of all random numbers.
        settings: other fields of the configuration.
        progress: whether training shows its progress.
    """

    def __init__(
        self,
        *,
        model_name: str = "sentence-transformers/all-MiniLM-L6-v2",
        num_epochs: int | str = "auto",
        learning_rate: float | None = None,
        batch_size: int = 16,
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> None:
        self.model_name = model_name
        self.num_epochs = num_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.seed = seed
        self.settings = settings
        self.progress = progress

    def fit(self, X: Any, y: Any) -> SentenceClassifier:
        """Train on texts and their classes.

        Raises:
            RequestError: X has no texts, or not as many as y; y has a missing class or several
                columns; or `settings` has what is set elsewhere.
            ManyheadsError: a setting is invalid, or there are too few records.
        """
        texts, labels = _texts(X), _labels(y)
        if not texts:
            raise RequestError("X has no texts", expected="several of each class")
        if len(texts) != len(labels):
            raise RequestError(
                f"{len(texts)} texts and {len(labels)} classes", expected="as many of both"
            )
        classes: NDArray[Any]
        classes, indices = np.unique(labels, return_inverse=True)
        names = _class_names(classes)
        records = [{"text": text, _TASK: names[i]} for text, i in zip(texts, indices, strict=True)]
        with TemporaryDirectory(prefix="manyheads-fit-") as folder:
            own: dict[str, Any] = {
                "data": records,
                "tasks": {_TASK: {"kind": "classification", "labels": names}},
                "save_dir": folder,
                "progress": self.progress,
                "model_name": self.model_name,
                "num_epochs": self.num_epochs,
                "batch_size": self.batch_size,
                "seed": self.seed,
            }
            if self.learning_rate is not None:
                own["learning_rate"] = self.learning_rate
            settings = self.settings or {}
            self._refuse_twice(settings, own)
            trained = train(**own, **settings)
            model = self._copied(_files_of(trained.best))
        self.model_: Model = model
        self.classes_: NDArray[Any] = classes
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each text."""
        shares = self.predict_proba(X)
        found: NDArray[Any] = self.classes_[shares.argmax(axis=1)]
        return found

    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each class, [N, L] in the order of `classes_`.

        A text without words has the same probability for all.
        """
        check_is_fitted(self, "model_")
        shares = self.model_.predict_proba(_texts(X))
        return np.where(np.isnan(shares), np.float32(1 / len(self.classes_)), shares)

    def _refuse_twice(self, settings: Mapping[str, Any], own: Collection[str]) -> None:
        """Refuse settings that an argument of the classifier, or `fit` itself, sets.

        Raises:
            RequestError: there is one.
        """
        for name in settings:
            if name in own:
                is_argument = name in self.get_params(deep=False)
                raise RequestError(
                    f"`settings` has `{name}`, which "
                    + ("is an argument of the classifier" if is_argument else "`fit` sets itself"),
                    expected="other fields of the configuration",
                    fix=f"Say it there: SentenceClassifier({name}=...)."
                    if is_argument
                    else f"Leave out `{name}`.",
                )

    def _copied(self, files: Mapping[str, bytes]) -> Model:
        """Load a copy of a model folder, which is removed with the model."""
        folder = mkdtemp(prefix="manyheads-classifier-")
        for name, data in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        threads = (self.settings or {}).get("threads")
        model = load(folder, threads=threads)
        finalize(model, rmtree, folder, ignore_errors=True)
        return model

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        model = state.pop("model_", None)
        if model is not None:
            state["_files"] = _files_of(model.path)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is not None:
            self.model_ = self._copied(files)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.no_validation = True
        tags.non_deterministic = False
        return tags


def _texts(X: Any) -> Sequence[str]:
    """Return texts as a list, from a sequence, a column or a table of one column.

    Raises:
        RequestError: they are a single string, a table of several columns, or not strings.
    """
    if isinstance(X, str):
        raise RequestError("X is one string", expected="a list of texts")
    values = X if isinstance(X, list | tuple) else np.asarray(X, dtype=object)
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise RequestError(
                f"X has the shape {values.shape}",
                expected="texts, or one column of them",
                fix="Choose the column, such as X['text'].",
            )
        values = values.tolist()
    for number, text in enumerate(values, 1):
        if not isinstance(text, str):
            raise RequestError(f"text {number} of X is {shorten(text)}", expected="a string")
    return list(values)


def _class_names(classes: NDArray[Any]) -> list[str]:
    """Return the names of classes, [L].

    Raises:
        RequestError: a name is blank, or two differ only in white space around them.
    """
    names = [str(one) for one in classes]
    known: dict[str, str] = {}
    for name in names:
        key = name.strip()
        if not key:
            raise RequestError(f"a class of y is {name!r}", expected="a name")
        if (other := known.setdefault(key, name)) != name:
            raise RequestError(
                f"the classes {other!r} and {name!r} of y differ in nothing but white space",
                expected="one of them",
            )
    return names


def _labels(y: Any) -> NDArray[Any]:
    """Return the classes of texts, [N].

    Raises:
        RequestError: they are not a series, or one is missing.
    """
    # As an array of strings, it would have the text "nan" in place of a missing value.
    given = np.asarray(y, dtype=object)
    if given.ndim != 1:
        raise RequestError(
            f"y should be a 1d array, got an array of shape {given.shape} instead",
            expected="a class for each text",
            fix="Choose the column of classes, such as y['label'].",
        )
    for number, label in enumerate(given, 1):
        if is_missing(label):
            raise RequestError(
                f"label {number} of y is {label}",
                expected="a class for each text",
                fix="Leave out texts without a class.",
            )
    return np.asarray(y)


def _files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
