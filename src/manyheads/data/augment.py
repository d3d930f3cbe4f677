"""Data augmentation: new sentences with entities exchanged between sentences of the same class.

"play [Yesterday]" and "put on [Thriller]" also yield "play [Thriller]". An entity is exchanged for
another one of its type, from a sentence of the same class where sentences have one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from manyheads.data.convert import entities_and_classes, without_nulls
from manyheads.data.json_lines import json_line
from manyheads.data.readers import Layout, read_rows
from manyheads.errors import DataError, RequestError, option
from manyheads.storage import atomic_file
from manyheads.tasks import Span
from manyheads.tasks.label_values import SECOND_TEXT
from manyheads.tasks.labels import unlabelled_words
from manyheads.text import segment

_TRIES = 5

Values = Mapping[tuple[Hashable, str], Sequence[str]]
"""By class of the sentence and type of entity, the different texts of such entities."""


@dataclass(frozen=True)
class Augmented:
    """What `augment` wrote."""

    records: int
    """Records read."""
    new: int
    """New records written."""
    fixed: int
    """Records without an entity that can be exchanged, such as those with unlabelled words."""
    repeated: int
    """New sentences that were not written because their text exists already, or an entity would
    merge with a word."""
    left_out: tuple[str, ...] = ()
    """Fields that new records lack, because they are about the words of the old text."""


def is_exchangeable(text: str, spans: Sequence[Span]) -> bool:
    """Return whether a sentence has entities, none of which overlaps another or is part of a word.

    Another value would merge with the rest of the word.
    """
    ordered = sorted(spans)
    if not ordered or any(one.end > after.start for one, after in pairwise(ordered)):
        return False
    inside = {place for start, end in segment(text).tolist() for place in range(start + 1, end)}
    return all(
        text[span.start : span.end].strip() and inside.isdisjoint((span.start, span.end))
        for span in ordered
    )


def entity_values(sentences: Iterable[tuple[str, Sequence[Span], Hashable]]) -> Values:
    """Collect the different texts of entities.

    Args:
        sentences: each with its entities and its class, or None without one.
    """
    values: dict[tuple[Hashable, str], dict[str, None]] = {}
    for text, spans, group in sentences:
        if is_exchangeable(text, spans):
            for span in spans:
                found = values.setdefault((group, span.label), {})
                found[text[span.start : span.end]] = None
    return {key: tuple(found) for key, found in values.items()}


def exchange(
    text: str, spans: Sequence[Span], group: Hashable, values: Values, source: random.Random
) -> tuple[str, tuple[Span, ...]]:
    """Exchange every entity of a sentence for one that is drawn from those of its type.

    Args:
        text: the sentence.
        spans: its entities, which are exchangeable (`is_exchangeable`).
        group: its class, or None without one.
        values: as `entity_values` collected them; an entity of another type stays.
        source: the random numbers.

    Returns:
        The new sentence and its entities, in the order of the text.
    """
    parts: list[str] = []
    found: list[Span] = []
    read = length = 0
    for span in sorted(spans):
        own = text[span.start : span.end]
        value = source.choice(values.get((group, span.label), (own,)))
        parts += [text[read : span.start], value]
        start = length + span.start - read
        length, read = start + len(value), span.end
        found.append(Span(start, length, span.label))
    return "".join([*parts, text[read:]]), tuple(found)


def augment(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    copies: int = 1,
    seed: int = 42,
    layout: Layout | None = None,
) -> Augmented:
    """Write a file's records, and new ones made by exchanging their entities.

    The new records follow the others and have the same class. They also serve as unlabelled text.
    They lack fields with positions in the text or a value for each word, which the exchange moves.
    A record with words that have no tag stays as it is, since entities cannot say which words.
    The file is read three times; memory holds its entities and a checksum of each text.

    Args:
        source: data of any format, with entities.
        target: a JSON lines file, which appears when it is complete.
        copies: how many new records are made from each.
        seed: determines the new records.
        layout: the layout of the source, as far as the user states it.

    Raises:
        DataError: the source cannot be read, or has no entity that can be exchanged.
        RequestError: the source is the target, or no copies are asked for.
    """
    if copies < 1:
        raise RequestError(f"`copies` is {copies}", expected="1 or more")
    if os.path.realpath(source) == os.path.realpath(target):
        raise RequestError(
            f"{os.fspath(source)} would be written over itself", fix="Name another file to write."
        )
    sentences = (one for one in _sentences(source, layout) if one.is_complete)
    values = entity_values((one.text, one.spans, one.group) for one in sentences)
    if not values:
        raise _nothing_to_exchange(source, layout)
    texts: set[int] = set()
    fields = _FieldsOfWords()
    records = new = fixed = 0
    with atomic_file(Path(target)) as file:
        for one in _sentences(source, layout):
            file.write(json_line(one.written, one.where))
            records += 1
            texts.add(hash(one.text))
            fields.see(one)
        for number, one in enumerate(_sentences(source, layout)):
            if one.is_pair or not (one.is_complete and is_exchangeable(one.text, one.spans)):
                fixed += 1
                continue
            for copy in range(copies):
                numbers = random.Random(f"{seed} {number} {copy}")
                if made := _new_sentence(one, values, numbers, texts, fields.names):
                    file.write(json_line(made, one.where))
                    new += 1
    repeated = (records - fixed) * copies - new
    return Augmented(records, new, fixed, repeated, tuple(sorted(fields.names)))


def _nothing_to_exchange(source: str | os.PathLike[str], layout: Layout | None) -> DataError:
    if any(one.spans for one in _sentences(source, layout)):
        check = option(f"`manyheads data check {os.fspath(source)}`", "manyheads.check")
        return DataError(
            "each record with entities has one that is part of a word, or overlaps another, or "
            "has words without a label",
            where=os.fspath(source), expected="entities of whole words, and a label for each word",
            fix=f"{check} lists entities inside words.",
        )  # fmt: skip
    field = option("--map FIELD=ner", '`layout=Layout(names={FIELD: "ner"})`')
    return DataError(
        "no record has entities", where=os.fspath(source), expected="`entities` or `ner`",
        fix=f"Name their field: {field}.",
    )  # fmt: skip


def _new_sentence(
    one: _Sentence,
    values: Values,
    numbers: random.Random,
    texts: set[int],
    left_out: Set[str],
) -> dict[str, Any] | None:
    """Return a new record made from a sentence, or None if all tries repeat a known text.

    A try whose entity would merge with a word beside it, as in a text without spaces, is not used.

    Args:
        one: the sentence.
        values: what its entities are exchanged for.
        numbers: the random numbers.
        texts: the hashes of all texts, to which the new one is added.
        left_out: the fields that it does not keep.
    """
    for _ in range(_TRIES):
        text, spans = exchange(one.text, one.spans, one.group, values, numbers)
        if hash(text) not in texts and is_exchangeable(text, spans):
            texts.add(hash(text))
            kept = {k: v for k, v in one.others.items() if k not in left_out}
            return {**kept, "text": text, "entities": _as_json(spans)}
    return None


@dataclass(frozen=True)
class _Sentence:
    """The parts of a record from which new ones are made."""

    text: str
    spans: Sequence[Span]
    group: tuple[str, ...] | None
    """Its classes, whose order in a list means nothing."""
    value: Mapping[str, Any]
    """All of its fields."""
    where: str
    """Its place, for messages."""
    is_complete: bool
    """Whether its entities are known for all words."""

    @property
    def is_pair(self) -> bool:
        """Whether its label also depends on a second text, so that a new text might change it."""
        return self.value.get(SECOND_TEXT) is not None

    @property
    def written(self) -> Mapping[str, Any]:
        """Its fields, tags as entities: new records have those, and a task reads one field.

        Entities cannot express the tags of some words alone.
        """
        if "ner" not in self.value or not self.is_complete:
            return self.value
        others = {name: value for name, value in self.value.items() if name != "ner"}
        return {**others, "entities": _as_json(self.spans)}

    @property
    def others(self) -> dict[str, Any]:
        """The fields besides text and entities."""
        return {
            k: v for k, v in self.value.items() if k not in ("text", "tokens", "ner", "entities")
        }


class _FieldsOfWords:
    """The fields with positions in the text, or with one value for each word in all records."""

    def __init__(self) -> None:
        self._nested: set[str] = set()
        self._aligned: set[str] = set()
        self._unaligned: set[str] = set()

    @property
    def names(self) -> set[str]:
        """Their names, as far as records were seen."""
        return self._nested | (self._aligned - self._unaligned)

    def see(self, one: _Sentence) -> None:
        """Look at the fields of a record."""
        words = one.value.get("tokens")
        for name, value in one.others.items():
            if name in ("label", "labels"):
                continue
            if isinstance(value, Mapping):
                if any(isinstance(part, Mapping | list) for part in value.values()):
                    self._nested.add(name)
            elif isinstance(value, list) and not all(isinstance(part, str) for part in value):
                # Spans, offsets or a vector.
                self._nested.add(name)
            elif isinstance(value, list) and value:
                is_aligned = isinstance(words, list) and len(words) == len(value)
                (self._aligned if is_aligned else self._unaligned).add(name)


def _sentences(source: str | os.PathLike[str], layout: Layout | None) -> Iterator[_Sentence]:
    for row in read_rows(source, layout=layout):
        text, spans, classes = entities_and_classes(row)
        group = None if classes is None else tuple(sorted(set(classes)))
        is_complete = spans is not None and not unlabelled_words(spans)
        yield _Sentence(text, spans or (), group, without_nulls(row), row.where, is_complete)


def _as_json(spans: Iterable[Span]) -> list[dict[str, Any]]:
    return [{"start": s.start, "end": s.end, "label": s.label} for s in spans]
