"""Files of soft labels: answers of larger models or of annotators, looked up by their texts.

Axes: N sentences, E numbers of an embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from manyheads.config import TaskConfig
from manyheads.data.readers import Row, read_rows
from manyheads.data.records import SECOND_TEXT, Unread, check_text, read_text
from manyheads.errors import ConfigError, DataError, counted, listing, shorten
from manyheads.tasks import EMBEDDING, EXTRAS, LabelSet, kind_of
from manyheads.tasks.label_values import read_second_text
from manyheads.text import Floats
from manyheads.training.teaching.sources import Answers, Sentences, Texts, mean_of, taught

_Key = tuple[str, str | None]
"""A text, and the second one of a pair."""

_EMBEDDING2 = "embedding2"
"""The second text's embedding, in predictions for pairs."""
_LARGEST = float(np.finfo(np.float32).max)


class SoftLabels:
    """A file of soft labels: JSON lines of texts with a field for each task, which its kind reads,
    and `embedding`.

    Labels of a task that reads pairs belong to both texts, all others to the first text alone. Of
    several labels, such as those of several annotators, the mean is the answer; of several
    embeddings of a text, the first one.

    Args:
        path: the file.
        tasks: the student's tasks.
        embed: whether its embeddings are read.
        report: receives messages for the user.

    Raises:
        DataError: it cannot be read, labels a pair without a second text, or an embedding is not
            valid.
    """

    def __init__(
        self,
        path: str,
        tasks: Mapping[str, TaskConfig],
        *,
        embed: bool,
        report: Callable[[str], None],
    ) -> None:
        self._path = path
        self._kinds = {name: kind_of(task.kind) for name, task in tasks.items()}
        self._values: dict[_Key, dict[str, list[tuple[Any, str]]]] = {}
        self._vectors: dict[str, Floats] = {}
        self._fields: set[str] = set()
        digest = hashlib.sha256()
        unread = Unread({}, _fields_read(tasks))
        for row in read_rows(path, on_unread=unread.passed_over):
            text, _ = read_text(row)
            second = row.fields.get(SECOND_TEXT)
            second = None if second is None else check_text(second, SECOND_TEXT, row.where)
            self._add(row, text)
            if embed:
                self._add_vector(row, EMBEDDING, text)
                self._add_vector(row, _EMBEDDING2, second)
            unread.add_fields(row)
            digest.update(repr((text, sorted(row.fields.items(), key=str))).encode())
        self.digest = digest.hexdigest()
        for message in unread.messages():
            report(f"warning: {path}: {message}")

    def _add(self, row: Row, text: str) -> None:
        self._fields.update(row.fields)
        for name, kind in self._kinds.items():
            value = row.fields.get(name)
            if value is None:
                continue
            second = (
                read_second_text(row.fields, f"soft labels of the task {name!r}", row.where)
                if kind.pairs
                else None
            )
            labels = self._values.setdefault((text, second), {})
            labels.setdefault(name, []).append((value, row.where))

    def _add_vector(self, row: Row, field: str, text: str | None) -> None:
        value = row.fields.get(field)
        if value is None or text is None:
            return
        known = next(iter(self._vectors.values()), None)
        vector = _read_vector(value, field, None if known is None else len(known), row.where)
        self._vectors.setdefault(text, vector)

    @property
    def embeds(self) -> bool:
        """Whether a text has an embedding."""
        return bool(self._vectors)

    def tasks(self, tasks: Mapping[str, TaskConfig], labels: Mapping[str, LabelSet]) -> list[str]:
        """Return the tasks that any record has a field for; it may have embeddings alone."""
        labelled = {name for values in self._values.values() for name in values}
        shared = [name for name in tasks if name in labelled]
        if not shared and not self._vectors:
            raise ConfigError(
                f"`teacher`: {self._path} has no field of a task's name",
                expected=f"soft labels in one of: {listing(tasks)}",
                fix=f"It has {listing(sorted(self._fields))}; rename the fields.",
            )
        return shared

    def describe(
        self, parts: Iterable[Texts], labels: Mapping[str, LabelSet], *, embed: bool
    ) -> str:
        """Describe how many of the sentences it has (see `Source.describe`)."""
        total = known = 0
        for part in parts:
            total += len(part.texts)
            known += sum(
                (embed and text in self._vectors)
                or any(self._given(name, text, second) for name in labels)
                for text, second in zip(part.texts, part.seconds, strict=True)
            )
        return (
            f"The soft labels of {listing([self._path])} cover {known:,} of "
            f"{counted(total, 'sentence')}, for {taught(labels, embed and self.embeds)}."
        )

    def _given(self, task: str, text: str, second: str | None) -> Sequence[tuple[Any, str]]:
        """Return a task's values for a text, each with its place in the file."""
        # No pair has a second text of None, so that a single text is not taken for one.
        key = (text, second if self._kinds[task].pairs else None)
        return self._values.get(key, {}).get(task, ())

    def answers(
        self, sentences: Sentences, labels: Mapping[str, LabelSet], *, embed: bool
    ) -> Answers:
        """Look the sentences up by their texts."""
        found: dict[str, list[Floats | None]] = {name: [] for name in labels}
        for text, second, words in zip(
            sentences.texts, sentences.seconds, sentences.words, strict=True
        ):
            for name, known in labels.items():
                read = self._kinds[name].read_soft
                given = [
                    read(value, known, text, words, where)
                    for value, where in self._given(name, text, second)
                ]
                found[name].append(mean_of(given))
        return Answers(found, self._embeddings(sentences.texts) if embed else None)

    def _embeddings(self, texts: Sequence[str]) -> Floats | None:
        """Return the texts' embeddings, [N, E], NaN where there is none; None if there are none."""
        if not self._vectors:
            return None
        nothing = np.full_like(next(iter(self._vectors.values())), np.nan)
        return np.stack([self._vectors.get(text, nothing) for text in texts])


def _fields_read(tasks: Iterable[str]) -> list[str]:
    """Return the fields with a meaning: the tasks, and what predictions of files have besides."""
    fields = [*tasks, *EXTRAS]
    return [*fields, *(f"input_{name}" for name in fields)]


def _read_vector(value: Any, field: str, size: int | None, where: str) -> Floats:
    """Read an embedding, [E] float32.

    Args:
        value: the field's value.
        field: its name.
        size: E of the file's other embeddings, if there are any.
        where: its place, for messages.

    Raises:
        DataError: it is no list of E finite numbers, or has no direction.
    """
    if type(value) is not list or not value or not {int, float}.issuperset(map(type, value)):
        raise DataError(
            f"`{field}` is {shorten(value)}", where=where, expected="a list of numbers",
            fix="Leave the field out of records without an embedding.",
        )  # fmt: skip
    if size is not None and len(value) != size:
        raise DataError(
            f"`{field}` has {counted(len(value), 'number')}", where=where,
            expected=f"{size:,}, as in the records before",
        )  # fmt: skip
    strange = [number for number in value if not abs(number) <= _LARGEST]
    if strange or not any(value):
        raise DataError(
            f"`{field}` has the number {shorten(strange[0])}" if strange else f"`{field}` is all 0",
            where=where, expected="finite numbers, not all 0",
            fix="Leave the field out of records without an embedding.",
        )  # fmt: skip
    return np.asarray(value, np.float32)
