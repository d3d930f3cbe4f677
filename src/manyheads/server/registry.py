"""The served models by name: loaded, warmed up, and replaced without losing a request."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from manyheads.data.own_files import refuse_layout_alone
from manyheads.errors import RequestError, at, listing, nearest, option, shorten
from manyheads.inference import LoadedModel, Predictor, Runtime, Text, Watched, load_model
from manyheads.inference.parallel import parallel_batches
from manyheads.server.examples import Examples, embed_examples, read_examples
from manyheads.server.memory import return_freed_memory
from manyheads.server.scheduling import Predict, Scheduler, Wanted
from manyheads.server.settings import ServerSettings
from manyheads.server.tracing import Tracing
from manyheads.storage import StrPath
from manyheads.tasks import Prediction

_DRAIN_SECONDS = 60.0
# A request that has looked up the old version submits its texts well within this time.
_GRACE_SECONDS = 1.0
_WARM_SECONDS = 60.0
# Above the noise of float32 with other numbers of threads, below the effect of any training.
_SAME_VECTORS = 1e-3
_PROBE_TEXTS = ("Where is the next station?", "It rained all day.", "2 apples, please!")


class ReloadRunning(RequestError):
    """Another reload of the model is running."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is ready for requests."""

    name: str
    path: Path
    version: str
    """Twelve hexadecimal digits, derived from the checksums of the model's files."""
    probes: NDArray[np.float32]
    """[3, H] the embeddings of three fixed sentences."""
    predictor: Predictor
    scheduler: Scheduler
    examples: Examples | None = None
    """The examples among which the nearest are searched."""

    @property
    def embedding(self) -> str:
        """A fingerprint of the embedding: twelve hexadecimal digits."""
        return hashlib.sha256(np.round(50 * self.probes).astype("<i2").tobytes()).hexdigest()[:12]

    def embeds_like(self, other: ServedModel) -> bool:
        """Return whether the vectors of two models can be compared with each other."""
        same = self.probes.shape == other.probes.shape
        return same and bool(np.allclose(self.probes, other.probes, atol=_SAME_VECTORS))


Load = Callable[[Path, int | None], LoadedModel]


class Registry:
    """The models by name.

    Args:
        paths: each model's folder by name; the first is the default of requests.
        settings: the server's settings.
        load: loads a model from a path with a number of threads.
        tracing: starts a span for each batch.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        settings: ServerSettings,
        load: Load | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing
        self._examples = _read_examples(settings)
        self._settings = settings
        self._load = load or _load
        self._paths = dict(paths)
        self._models: dict[str, ServedModel] = {}
        try:
            for name in self._paths:
                self._models[name] = self._open(name)
        except BaseException:
            # One fails to load, and the threads of those before it end too.
            self.close(0)
            raise
        self._reloading = {name: threading.Lock() for name in self._paths}
        self._opening = threading.Lock()
        """Held while a new version is loaded, so that memory holds one version more at a time."""

    @property
    def names(self) -> list[str]:
        """The models' names; the first is the default."""
        return list(self._models)

    def get(self, name: str | None = None) -> ServedModel:
        """Return a model; without a name, the first.

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
        """Return all models in the order of the command line."""
        return list(self._models.values())

    def reload(
        self, name: str, *, allow_new_embedding: bool = False, wait: bool = True
    ) -> ServedModel:
        """Load a model's files again and replace the old version by the new one.

        The old version finishes the requests that it has accepted. If an error is raised, it stays.

        Args:
            name: the model.
            allow_new_embedding: whether the new version's embedding may differ from the old one's.
            wait: whether to wait while another reload of the model is running.

        Raises:
            ReloadRunning: another reload of the model is running, and `wait` is false.
            RequestError: there is no such model, its embedding differs, or it does not answer.
            ModelError: the files are missing or damaged.
        """
        self.get(name)
        reloading = self._reloading[name]
        if not reloading.acquire(blocking=wait):
            raise ReloadRunning(
                f"a reload of model {name!r} is running already",
                fix="Wait until it is done; reload again if the files changed after it began.",
            )
        try:
            return self._replace(name, allow_new_embedding)
        finally:
            reloading.release()

    def _replace(self, name: str, allow_new_embedding: bool) -> ServedModel:
        with self._opening:
            old = self.get(name)
            new = self._open(name)
            try:
                self._check(old, new, allow_new_embedding)
            except BaseException:
                new.scheduler.close(0)
                raise
            self._models[name] = new
        # A list, so that the thread can drop the last reference to the old version.
        threading.Thread(target=_drain, args=([old],), name="manyheads-drain", daemon=True).start()
        return new

    def close(self, timeout: float) -> bool:
        """Finish the accepted texts; returns whether all were computed in time."""
        end = time.monotonic() + timeout
        finished = [m.scheduler.close(max(0.0, end - time.monotonic())) for m in self.all()]
        return all(finished)

    @staticmethod
    def _check(old: ServedModel, new: ServedModel, allow_new_embedding: bool) -> None:
        if not (allow_new_embedding or new.embeds_like(old)):
            raise RequestError(
                f"the embedding of the new version of model {new.name!r} differs, so its vectors "
                "cannot be compared with those that clients have stored",
                where=at(new.path),
                fix="Once the old vectors are no longer used, call POST "
                f"/v1/models/{quote(new.name)}:reload?allow_new_embedding=true, or restart the "
                "server.",
            )
        if not new.scheduler.wait_ready(_WARM_SECONDS):
            raise RequestError(
                f"the new version of model {new.name!r} did not compute a text in "
                f"{_WARM_SECONDS:.0f} seconds",
                where=at(new.path),
            )

    def _open(self, name: str) -> ServedModel:
        path = self._paths[name]
        loaded = self._load(path, self._settings.threads)
        predictor = loaded.predictor
        probes = _probes(predictor)
        examples = None if self._examples is None else embed_examples(predictor, self._examples)
        # Last: if one of the above fails, no thread keeps the model in memory.
        scheduler = Scheduler(
            _predict_with(predictor),
            lanes=parallel_batches(predictor.backend),
            max_waiting=self._settings.max_queue,
            hang_seconds=self._settings.timeout,
            tracing=self._tracing,
        )
        return ServedModel(name, path, _version(loaded), probes, predictor, scheduler, examples)


def _drain(old: list[ServedModel]) -> None:
    """Let a version finish what it accepted, and free it."""
    time.sleep(_GRACE_SECONDS)
    old[0].scheduler.close(_DRAIN_SECONDS)
    time.sleep(_GRACE_SECONDS)  # its threads end
    return_freed_memory()


def _read_examples(settings: ServerSettings) -> list[dict[str, Any]] | None:
    examples, name = settings.examples, option("--examples FILE", "`examples`")
    refuse_layout_alone(settings.layout, examples, name=name, otherwise="")
    return None if examples is None else read_examples(examples, settings.layout)


def _load(path: Path, threads: int | None) -> LoadedModel:
    return load_model(path, Runtime(threads=threads))


def _predict_with(predictor: Predictor) -> Predict:
    """Return a function that predicts on the thread that calls it."""

    def predict(
        texts: Sequence[Text], wanted: Wanted, step: Callable[[], None]
    ) -> Sequence[Prediction]:
        limits = wanted.thresholds
        single = predictor.with_prompt(wanted.prompt).on_calling_thread()
        single.backend = Watched(single.backend, step)
        return single.predict(
            texts, embed=wanted.embed, top_k=wanted.top_k,
            thresholds=limits if isinstance(limits, bool) else dict(limits),
        )  # fmt: skip

    return predict


def _probes(predictor: Predictor) -> NDArray[np.float32]:
    predictions = predictor.predict(_PROBE_TEXTS, tasks=[], embed=True)
    return np.array([p.embedding for p in predictions if p.embedding is not None], np.float32)


def _version(loaded: LoadedModel) -> str:
    if loaded.manifest is not None:
        files = loaded.manifest.files
        checksums = repr(sorted((name, file.sha256) for name, file in files.items()))
        return hashlib.sha256(checksums.encode()).hexdigest()[:12]
    stat = Path(loaded.path).stat()
    return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]


def model_names(paths: Sequence[StrPath]) -> dict[str, Path]:
    """Return the models of a command line by name.

    Args:
        paths: a path, by whose run's or model's folder the model is named; or NAME=PATH, if there
            is no such path.

    Raises:
        RequestError: two models have the same name, or a name is empty or has a slash.
    """
    named: dict[str, Path] = {}
    for given in paths:
        name, equals, path = os.fspath(given).partition("=")
        # The name of a folder may have the sign too: runs/lr=3e-5.
        if not equals or Path(given).exists():
            path = os.fspath(given)
            folder = Path(path).resolve()
            name = (folder.parent if folder.name == "best" else folder).name
        if not name or "/" in name:
            raise RequestError(
                f"{name!r} is not a name for a model", expected="a name without slashes",
                fix="Name it: manyheads serve NAME=PATH",
            )  # fmt: skip
        if name in named:
            raise RequestError(
                f"two models have the name {name!r}: {named[name]} and {path}",
                fix="Name them: manyheads serve first=PATH second=PATH",
            )
        named[name] = Path(path)
    return named
