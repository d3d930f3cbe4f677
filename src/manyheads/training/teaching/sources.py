"""Teachers: the form of their answers, and trained models, whose answers are cached.

Answers refer to characters, so that a teacher may have another tokenizer and encoder than its
student. A model's answers are cached in the run's folder, in files of a few thousand sentences that
are named by their content and written completely or not at all: an interrupted pass continues where
it stopped, and a resumed run no longer needs the teacher.

Axes: N sentences, W words of the student, V words of the teacher, S numbers of an answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError, DataError, counted, listing
from manyheads.inference import Predictor, Runtime, TextPair, load_model
from manyheads.inference.postprocessing import SoftAnswer
from manyheads.modeling import Compute
from manyheads.storage import (
    LAYOUT,
    atomic_file,
    explained,
    read_manifest,
    resolve_model,
    sha256,
    sha256_file,
    write_json,
)
from manyheads.tasks import EMBEDDING, LabelSet, TaskSpec, kind_of
from manyheads.tasks.soft_targets import Spans
from manyheads.text import Floats
from manyheads.training.refit import warn_if_learned

CHUNK = 2048
"""Sentences in a file of the cache."""

_TASKS = "tasks.json"
_TASK = "task."
_WORDS, _COUNTS = "words", "counts"


@dataclass(frozen=True)
class Texts:
    """Texts for which a teacher is queried."""

    texts: Sequence[str]
    """[N]."""
    seconds: Sequence[str | None]
    """[N] the second text of a pair, or None."""


@dataclass(frozen=True)
class Sentences(Texts):
    """Texts, with the words that the student reads."""

    words: Sequence[Spans]
    """[N] each [W, 2]: the spans of the words that the student reads, in characters."""


@dataclass(frozen=True)
class Answers:
    """A teacher's answers, as targets for the student."""

    tasks: Mapping[str, Sequence[Floats | None]]
    """By task, [N] arrays [S] or [W, S]; None or NaN where nothing is known."""
    embedding: Floats | None = None
    """[N, E]; NaN for a sentence without one."""


def mean_of(given: Sequence[Floats | None]) -> Floats | None:
    """Return the mean of several answers for a sentence, of one shape; None if none is known."""
    known = [one for one in given if one is not None and not np.isnan(one).any()]
    if len(known) < 2:
        return known[0] if known else None
    mean: Floats = np.mean(known, axis=0, dtype=np.float32)
    return mean


class Source(Protocol):
    """A teacher."""

    @property
    def digest(self) -> str:
        """A checksum of everything that its answers depend on besides the texts."""

    @property
    def embeds(self) -> bool:
        """Whether it has embeddings."""

    def tasks(self, tasks: Mapping[str, TaskConfig], labels: Mapping[str, LabelSet]) -> list[str]:
        """Return the tasks of the student that it teaches.

        Raises:
            ConfigError: one is of another kind or has other labels.
        """

    def describe(
        self, parts: Iterable[Texts], labels: Mapping[str, LabelSet], *, embed: bool
    ) -> str:
        """Describe where its answers come from, in a sentence for the user.

        Args:
            parts: all texts, in the parts in which it will be queried.
            labels, embed: see `answers`.
        """

    def answers(
        self, sentences: Sentences, labels: Mapping[str, LabelSet], *, embed: bool
    ) -> Answers:
        """Answer for some sentences.

        Args:
            sentences: at most `CHUNK`.
            labels: of the tasks to answer.
            embed: whether to return embeddings too.
        """


def taught(tasks: Iterable[str], embed: bool) -> str:
    """Return what a teacher teaches, in words."""
    return listing([*tasks, *(["the embedding"] if embed else [])])


class TrainedTeacher:
    """A trained model as a teacher; it runs with PyTorch.

    Args:
        path: a model folder, a checkpoint or a run's folder.
        cache: the folder for its answers.
        known: its digest in the checkpoint of a resumed run.
        compute: where, and in which precision, it runs.
        report: receives messages for the user.

    Raises:
        ModelError: the model is missing, and its answers are not cached.
    """

    embeds = True

    def __init__(
        self,
        path: str,
        cache: Path,
        known: str | None,
        *,
        compute: Compute,
        report: Callable[[str], None],
    ) -> None:
        self._path, self._compute, self._report = path, compute, report
        self._known = None if Path(path).exists() else known
        self.digest = self._known or model_digest(path)
        self._cache = cache / self.digest[:16]

    @cached_property
    def specs(self) -> Mapping[str, TaskSpec]:
        """Its tasks by name."""
        file = self._cache / _TASKS
        if self._known is not None and file.exists():
            found = json.loads(file.read_bytes())
        else:
            found = [spec.to_json() for spec in self._predictor.specs]
            with explained(self._cache):
                self._cache.mkdir(parents=True, exist_ok=True)
            write_json(file, found)
        specs = [TaskSpec.from_json(one) for one in found]
        return {spec.name: spec for spec in specs}

    @cached_property
    def _predictor(self) -> Predictor:
        compute = self._compute
        runtime = Runtime("torch", str(compute.device), compute.threads)
        loaded = load_model(self._path, runtime, precision=compute.precision)
        warn_if_learned(f"the teacher ({listing([self._path])})", loaded.config, self._report)
        return loaded.predictor

    def tasks(self, tasks: Mapping[str, TaskConfig], labels: Mapping[str, LabelSet]) -> list[str]:
        """Return the tasks that it teaches (see `Source.tasks`)."""
        shared = [name for name in tasks if name in self.specs]
        if not shared:
            raise ConfigError(
                f"`teacher`: {self._path} has none of the tasks {listing(tasks)}",
                expected=f"a task of the same name; it has {listing(self.specs)}",
                fix="Rename the tasks of the configuration.",
            )
        left = [name for name in self.specs if name not in tasks]
        if left:
            self._report(
                f"Tasks of the teacher ({listing([self._path])}) that the student will not have, "
                f"because its configuration names no data for them: {listing(left)}. To have one, "
                "set its `tasks.NAME.kind` and `tasks.NAME.train_file`."
            )
        empty = np.zeros((0, 2), np.int64)
        for name in shared:
            spec, kind = self.specs[name], kind_of(tasks[name].kind)
            if spec.kind == kind.name and not kind.teaches:
                continue
            if spec.kind != kind.name:
                raise ConfigError(
                    f"`teacher`: the task {name!r} of {self._path} is of kind {spec.kind}",
                    expected=f"{kind.name}, as configured",
                )
            shape = (0, len(spec.labels)) if kind.per_word else (max(1, len(spec.labels)),)
            try:
                kind.adopted(spec, np.zeros(shape, np.float32), labels[name], empty, empty)
            except DataError as error:
                raise ConfigError(
                    f"`teacher`: the task {name!r} of {self._path}: {error.found}",
                    expected=error.expected, fix=error.fix,
                ) from None  # fmt: skip
        return [name for name in shared if kind_of(tasks[name].kind).teaches]

    def describe(
        self, parts: Iterable[Texts], labels: Mapping[str, LabelSet], *, embed: bool
    ) -> str:
        """Describe how much of its answers is cached (see `Source.describe`)."""
        files: set[Path] = set()
        total = absent = 0
        for part in parts:
            total += len(part.texts)
            file = self._file(part, labels, embed)
            # Parts with the same texts are answered once.
            if file not in files and _read(file, len(part.texts)) is None:
                absent += len(part.texts)
            files.add(file)
        given = f"{counted(total, 'sentence')}, for {taught(labels, embed)}"
        name, cache = f"the teacher ({listing([self._path])})", self._cache.parent
        if not absent:
            return f"Taking the answers of {name} on {given}, from the cache in {cache}."
        if absent < total:
            return (
                f"Running {name} on {absent:,} of {given}; the other answers are taken from the "
                f"cache in {cache}."
            )
        return f"Running {name} on {given}."

    def _file(self, part: Texts, tasks: Iterable[str], embed: bool) -> Path:
        """Return the file of the cache for some texts."""
        key = json.dumps([part.texts, part.seconds, sorted(tasks), embed])
        return self._cache / f"{sha256(key.encode())[:32]}.safetensors"

    def answers(
        self, sentences: Sentences, labels: Mapping[str, LabelSet], *, embed: bool
    ) -> Answers:
        """Answer from the cache, or compute the answers and cache them."""
        asked = {name: self.specs[name] for name in labels}
        file = self._file(sentences, asked, embed)
        arrays = _read(file, len(sentences.texts))
        if arrays is None:
            arrays = self._computed(sentences, asked, embed)
            with atomic_file(file) as stream:
                stream.write(_packed(arrays))
        return _adopted(arrays, sentences, asked, labels)

    def _computed(
        self, sentences: Sentences, asked: Mapping[str, TaskSpec], embed: bool
    ) -> dict[str, Any]:
        """Run the model, and return the arrays of a file of the cache."""
        pairs = self._predictor.pairs
        texts = [
            text if second is None or not pairs else TextPair(text, second)
            for text, second in zip(sentences.texts, sentences.seconds, strict=True)
        ]
        found = list(self._predictor.soft_stream(texts, list(asked)))
        arrays: dict[str, Any] = {}
        counts = np.zeros(len(texts), np.int32)
        for name, spec in asked.items():
            answers: list[Any] = [one.results.get(name) for one in found]
            known = [one if isinstance(one, SoftAnswer) else None for one in answers]
            if kind_of(spec.kind).per_word:
                counts[:] = [0 if one is None else len(one.words) for one in known]
                words = [one.words for one in known if one is not None]
                values = [one.values for one in known if one is not None]
                size = len(spec.labels)
                arrays[_WORDS] = np.concatenate([np.zeros((0, 2)), *words]).astype(np.int32)
                arrays[_TASK + name] = np.concatenate([np.zeros((0, size)), *values]).astype(
                    np.float16
                )
            else:
                nothing = np.full(max(1, len(spec.labels)), np.nan, np.float32)
                arrays[_TASK + name] = np.stack(
                    [nothing if one is None else one.values for one in known]
                ).astype(np.float32)
        arrays[_COUNTS] = counts
        if embed:
            vectors = [one.embedding for one in found]
            size = next((len(vector) for vector in vectors if vector is not None), 1)
            nothing = np.full(size, np.nan, np.float32)
            arrays[EMBEDDING] = np.stack([nothing if v is None else v for v in vectors])
        return arrays


def model_digest(path: str) -> str:
    """Return a checksum of what determines a model's outputs; an export does not change it.

    Raises:
        ModelError: there is no such model.
    """
    found = resolve_model(path)
    if not found.is_dir():
        return sha256_file(found)
    manifest = read_manifest(found)
    names = (LAYOUT.weights, LAYOUT.heads, *manifest.tokenizer_files)
    sums = {name: manifest.files[name].sha256 for name in names if name in manifest.files}
    content = [sums, list(manifest.tasks), manifest.max_length, manifest.pooling]
    return sha256(json.dumps(content, sort_keys=True).encode())


def _packed(arrays: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    packed: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    digest = hashlib.sha256(packed).digest()
    return digest + packed


def _read(file: Path, count: int) -> dict[str, Any] | None:
    """Read a file of the cache; None if there is none, or it is damaged."""
    from safetensors.numpy import load

    if not file.exists():
        return None
    with explained(file, "read"):
        data = file.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    arrays: dict[str, Any] = load(data[32:])
    return arrays if len(arrays.get(_COUNTS, ())) == count else None


def _adopted(
    arrays: Mapping[str, Any],
    sentences: Sentences,
    asked: Mapping[str, TaskSpec],
    labels: Mapping[str, LabelSet],
) -> Answers:
    """Turn a teacher's answers into targets for the student."""
    found: dict[str, list[Floats | None]] = {}
    none = np.zeros((0, 2), np.int32)
    ends = np.cumsum(arrays[_COUNTS])
    for name, spec in asked.items():
        kind, values = kind_of(spec.kind), arrays[_TASK + name]
        if not kind.per_word:
            found[name] = [kind.adopted(spec, v, labels[name], none, none) for v in values]
            continue
        found[name] = []
        for end, count, words in zip(ends, arrays[_COUNTS], sentences.words, strict=True):
            part = slice(end - count, end)
            soft, read = values[part].astype(np.float32), arrays[_WORDS][part]
            found[name].append(
                kind.adopted(spec, soft, labels[name], read, words) if count else None
            )
    return Answers(found, arrays.get(EMBEDDING))
