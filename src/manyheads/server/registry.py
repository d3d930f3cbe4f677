"""The models that a server has, by name: loaded, warmed, and swapped without losing a request."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyheads.errors import RequestError, at, listing, nearest, shorten
from manyheads.inference import Predictor, Text, load_predictor, narrowed
from manyheads.inference.parallel import lanes_of
from manyheads.server.scheduling import Scheduler
from manyheads.server.settings import ServerSettings
from manyheads.storage import is_model_folder, read_manifest, resolve_model
from manyheads.tasks import Prediction

_DRAIN_SECONDS = 60.0
_FINGERPRINT_TEXTS = ("Where is the next station?", "It rained all day.", "2 apples, please!")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that answers requests."""

    name: str
    path: Path
    version: str
    """Twelve hexadecimal digits that change with any of the model's files."""
    embedding: str
    """A fingerprint of its vectors: models that embed alike have the same."""
    predictor: Predictor
    scheduler: Scheduler


Load = Callable[[Path, int | None], Predictor]


class Registry:
    """The models by name.

    Args:
        paths: each model's folder by name; the first one answers requests that name none.
        settings: the server's.
        load: loads a predictor with a number of threads.
    """

    def __init__(
        self, paths: Mapping[str, Path], settings: ServerSettings, load: Load | None = None
    ) -> None:
        self._settings = settings
        self._load = load or _load
        self._paths = dict(paths)
        self._models = {name: self._open(name) for name in self._paths}
        self._reloading = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The models' names; the first one is the default."""
        return list(self._models)

    def get(self, name: str | None = None) -> ServedModel:
        """Return a model; the first one if no name is given.

        Raises:
            RequestError: there is no model of that name.
        """
        if name is None:
            return next(iter(self._models.values()))
        if name not in self._models:
            raise RequestError(
                f"there is no model {shorten(name)}{nearest(name, self._models)}",
                expected=f"one of: {listing(self._models)}",
            )
        return self._models[name]

    def all(self) -> list[ServedModel]:
        """Return all models, in the order in which they were given."""
        return list(self._models.values())

    def reload(self, name: str, *, allow_new_embedding: bool = False) -> ServedModel:
        """Load a model's files again, and let the new version answer from now on.

        Requests that the old version has accepted are answered by it.

        Args:
            name: the model.
            allow_new_embedding: whether the new version may make other vectors than the old one.

        Raises:
            RequestError: there is no such model, or its vectors have changed; the old version
                stays.
            ModelError: the files are no model; the old version stays.
        """
        with self._reloading:
            old = self.get(name)
            new = self._open(name)
            if new.embedding != old.embedding and not allow_new_embedding:
                new.scheduler.close(0)
                raise RequestError(
                    f"the new version of model {name!r} embeds texts differently, so that its "
                    "vectors cannot be compared with those that clients have",
                    where=at(new.path),
                    fix="Reload it with allow_new_embedding once old vectors are no longer used.",
                )
            self._models[name] = new
        threading.Thread(
            target=old.scheduler.close, args=(_DRAIN_SECONDS,), name="manyheads-drain", daemon=True
        ).start()
        return new

    def close(self, timeout: float) -> bool:
        """Finish what was accepted; returns whether all of it was finished in time."""
        finished = [model.scheduler.close(timeout) for model in self.all()]
        return all(finished)

    def _open(self, name: str) -> ServedModel:
        path = self._paths[name]
        predictor = self._load(path, self._settings.threads)
        scheduler = Scheduler(
            _predict_with(predictor),
            lanes=lanes_of(predictor.backend),
            max_waiting=self._settings.max_queue,
            hang_seconds=self._settings.timeout,
        )
        return ServedModel(
            name, path, _version(path), _fingerprint(predictor), predictor, scheduler
        )


def _load(path: Path, threads: int | None) -> Predictor:
    return load_predictor(path, threads=threads)


def _predict_with(
    predictor: Predictor,
) -> Callable[[Sequence[Text], bool], Sequence[Prediction]]:
    """Return what computes a batch on the thread that calls it."""
    narrow = copy.copy(predictor)
    narrow.backend = narrowed(predictor.backend)
    return lambda texts, embed: narrow.predict(texts, embed=embed)


def _fingerprint(predictor: Predictor) -> str:
    """Return the checksum of a few rounded vectors."""
    predictions = predictor.predict(_FINGERPRINT_TEXTS, tasks=[], embed=True)
    vectors = [np.round(50 * p.embedding) for p in predictions if p.embedding is not None]
    return hashlib.sha256(np.array(vectors, "<i2").tobytes()).hexdigest()[:12]


def _version(path: Path) -> str:
    resolved = resolve_model(path)
    if is_model_folder(resolved):
        files = read_manifest(resolved).files
        told = repr(sorted((name, file.sha256) for name, file in files.items()))
        return hashlib.sha256(told.encode()).hexdigest()[:12]
    stat = resolved.stat()
    return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]


def model_names(paths: Sequence[str]) -> dict[str, Path]:
    """Name the models of a command line: NAME=PATH, or a path, which names the model itself.

    Raises:
        RequestError: two models have the same name.
    """
    named: dict[str, Path] = {}
    for given in paths:
        name, equals, path = given.partition("=")
        if not equals:
            path = given
            folder = Path(given).resolve()
            name = (folder.parent if folder.name == "best" else folder).name
        if name in named:
            raise RequestError(
                f"two models are called {name!r}: {named[name]} and {path}",
                fix="Name them: manyheads serve first=PATH second=PATH",
            )
        named[name] = Path(path)
    return named
