"""Labels that are tags or spans: how they are read from records, and which tags a task has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, shorten
from manyheads.tasks.class_labels import Names
from manyheads.tasks.found import (
    Found,
    Refuse,
    check_bound,
    check_range,
    natural_order,
    raise_error,
    refuse_mixture,
    unlisted,
)
from manyheads.tasks.kinds.values import UNKNOWN, RawRecord
from manyheads.tasks.label_values import IndexedTags, NamedTags, read_tags
from manyheads.tasks.labels import (
    OUTSIDE,
    PREFIXES,
    LabelSet,
    PartlyLabelled,
    Scheme,
    Span,
    Stretches,
    TagSet,
    are_tags,
    bio_names,
    from_io,
    is_prefixed,
    scheme_of,
    spans_of,
    tags_of,
    types_of,
    unlabelled_words,
    with_dashes,
)
from manyheads.text import Units

_SHARE = 0.02
"""Share of spans that begin or end inside a word; a smaller one is taken for annotation errors."""


@dataclass(slots=True)
class FoundTags(Found):
    """The tags and spans of a task's records, and how many spans begin or end inside words."""

    entities: int = 0
    """The number of spans."""
    inside_words: int = 0
    """The number of spans that begin or end inside a word."""

    @property
    def units(self) -> Units:
        """The units for the tags: pieces of words if more than a few spans need them."""
        needed = self.inside_words >= 2 and self.inside_words >= _SHARE * self.entities
        return Units.PIECES if needed else Units.WORDS


class TagReader:
    """Reads tags and spans into spans.

    Args:
        names: the task's labels.
        known: the tags, if they are decided.
        order: the tags that indices refer to (see `index_order`).
        form: how tags without a prefix are read (`TaskConfig.scheme`); indices of tags too.
    """

    def __init__(
        self, names: Names, known: TagSet | None, order: Sequence[str], form: str = "auto"
    ) -> None:
        self._names = names
        self._is_known = known is not None
        self._scheme = known.scheme if known else Scheme.PLAIN if form == "plain" else None
        self._tags = frozenset(_tags_of_any_scheme(known)) if known else frozenset()
        self._types = known.types if known else ()
        self._order, self._form = order, form

    def read(self, record: RawRecord, field: str) -> tuple[Span, ...]:
        """Read a record's label.

        Raises:
            DataError: it is not tags or spans, does not fit the text, or is not known.
        """
        where = record.where
        raw = read_tags(record.fields[field], field, record.text, record.tokens, where, self._form)
        if not isinstance(raw, NamedTags | IndexedTags):
            return self._checked_spans(raw, field, where)
        tags = raw.tags if isinstance(raw, NamedTags) else self._named(raw.tags, field, where)
        if self._is_known and not self._tags.issuperset(tags):
            self._check(tags, field, where)
        if self._scheme is not Scheme.PLAIN and tags.count(OUTSIDE) == len(tags):
            return PartlyLabelled((), raw.unlabelled) if raw.unlabelled else ()
        try:
            spans = spans_of(tags, raw.words, self._scheme or scheme_of(tags))
        except DataError as error:
            raise DataError(
                error.found, where=where, expected=error.expected, fix=error.fix
            ) from None
        return PartlyLabelled(spans, raw.unlabelled) if raw.unlabelled else spans

    def _named(self, indices: Sequence[int], field: str, where: str) -> Sequence[str]:
        if not self._order:
            raise indices_need_names(self._names.task, field, where)
        largest = max(indices)
        if largest >= len(self._order):
            place = f"{field}[{indices.index(largest)}]"
            raise self._names.beyond(largest, len(self._order), place, where)
        return [self._order[index] for index in indices]

    def _check(self, tags: Sequence[str], field: str, where: str) -> None:
        for i, tag in enumerate(tags):
            fits = tag in self._tags or (
                self._names.keeps_unseen and (is_prefixed(tag) or self._scheme is Scheme.PLAIN)
            )
            if not fits:
                raise self._names.unknown(tag, sorted(self._tags), f"{field}[{i}]", where)

    def _checked_spans(self, spans: tuple[Span, ...], field: str, where: str) -> tuple[Span, ...]:
        if not self._names.keeps_unseen:
            for span in spans:
                if span.label not in self._types:
                    raise self._names.unknown(span.label, self._types, field, where)
        return spans


def word_tags(
    spans: Sequence[Span], words: NDArray[np.integer[Any]], labels: LabelSet
) -> list[int]:
    """Derive a tag's index for each word from labelled spans.

    Words in no span get `O`, or `UNKNOWN` where the tag set has no `O` (plain classes). Words
    without a label get `UNKNOWN`.

    Args:
        spans: a record's label.
        words: [W, 2] the characters of the words.
        labels: the tags.
    """
    scheme = labels.scheme if isinstance(labels, TagSet) else Scheme.BIO
    outside = labels.index(OUTSIDE) if OUTSIDE in labels else UNKNOWN
    gaps = unlabelled_words(spans)
    if not spans and not gaps:
        return [outside] * len(words)
    places = [(int(s), int(e)) for s, e in words]
    tags = tags_of(spans, places, scheme)
    found = [outside if tag == OUTSIDE else labels.index(tag) for tag in tags]
    unlabelled = Stretches(gaps)
    for i, place in enumerate(places if gaps else ()):
        if tags[i] == OUTSIDE and unlabelled.touch(*place):
            found[i] = UNKNOWN
    return found


def index_order(
    labels: Sequence[str] | None,
    count: int | None,
    known: LabelSet | None = None,
    form: str = "auto",
) -> tuple[str, ...]:
    """Return the tags that indices refer to: as the configuration lists them, or the known ones.

    Without either, they follow from `num_labels` (see `numbered_tags`); empty if it is not set.

    Args:
        labels: `labels` of the configuration, where they are set.
        count: `num_labels`, where it is set.
        known: the tags, if they are decided.
        form: how tags without a prefix are read (`TaskConfig.scheme`).
    """
    if form == "io" and not (isinstance(known, TagSet) and known.scheme is Scheme.PLAIN):
        if labels is not None:
            return tuple(labels) if _lists_tags(labels, form) else tuple(from_io(labels))
        # Earlier versions numbered the B- and I- tags here, and their models have as many.
        if known is not None and count is not None and count != len(known):
            return numbered_tags(count, form)
    if labels is not None and (known is None or _lists_tags(labels, form)):
        return tuple(labels)
    if known is not None:
        return known.names
    return numbered_tags(count, form) if count is not None else ()


def numbered_tags(count: int, form: str = "auto") -> tuple[str, ...]:
    """Return tags with numbers for names.

    `O, I-1, I-2...` under the scheme `io`, the classes `0, 1, 2...` under `plain`. Under `auto`,
    `O, B-1, I-1, B-2, I-2...` for an odd count, which O and two tags per type have; the classes
    for an even one.
    """
    if form == "io":
        return (OUTSIDE, *from_io(list(map(str, range(1, count)))))
    if count % 2 and form == "auto":
        return bio_names(map(str, range(1, count // 2 + 1)))
    return tuple(map(str, range(count)))


def _lists_tags(labels: Sequence[str], form: str) -> bool:
    """Return whether listed labels are tags. Under `io`, only `B-` and `I-` can show it."""
    if form == "io":
        return any(label[:2] in ("B-", "I-") for label in labels)
    return are_tags(labels)


def indices_need_names(task: str, field: str, where: str) -> DataError:
    """Make the error for indices of tags without a list of tags."""
    return DataError(
        f"`{field}` has indices of tags, and no tags are listed for them",
        where=where,
        expected=f"names, or the task {task!r} with `labels` or `num_labels`",
        fix="List the tags in order as the task's `labels`.",
    )


def decide_tags(
    task: str,
    labels: Sequence[str] | None,
    count: int | None,
    found: Found,
    refuse: Refuse = raise_error,
    form: str = "auto",
) -> TagSet:
    """Decide the tags of a task; those of every scheme become BIO.

    Args and errors are those of `decide_classes`, and:
        form: how tags without a prefix are read (`TaskConfig.scheme`).

    Raises:
        DataError: what was found contradicts itself or the configuration.
    """
    tags = bool(found.names or found.indices)
    is_plain = form == "plain" and (tags or (labels is not None and not found.types))
    scheme = Scheme.PLAIN if is_plain else _scheme(task, found)
    if form == "io":
        _refuse_prefixes(task, found)
    if form == "auto" and not (labels is not None and are_tags(labels)):
        _check_meaning(task, labels or (), found, scheme)
    if labels is not None:
        return _listed_tags(task, labels, found, scheme, refuse, form)
    refuse_mixture(task, found)
    if found.indices:
        if count is None:
            first = next(iter(found.indices.values()))
            raise indices_need_names(task, found.index_field, first)
        check_range(task, found, count, refuse)
        names = numbered_tags(count, form)
        return TagSet.of_types(types_of(names)) if OUTSIDE in names else TagSet(names, Scheme.PLAIN)
    if scheme is Scheme.PLAIN:
        check_bound(task, found.names, count)
        return TagSet(tuple(natural_order(found.names)), Scheme.PLAIN)
    types = _types(found)
    if form == "io":
        check_bound(task, {OUTSIDE: "", **types}, count)
    else:
        check_bound(task, types, count, are_types=True)
    return TagSet.of_types(natural_order(types))


def _check_meaning(task: str, labels: Sequence[str], found: Found, scheme: Scheme) -> None:
    """Refuse tags that could be types of entities or classes of words."""
    if scheme is Scheme.PLAIN and (OUTSIDE in found.names or OUTSIDE in labels):
        bare = next(name for name in found.names if name != OUTSIDE)
        raise _one_or_the_other(task, bare, found.names[bare])
    if found.indices and not found.types and OUTSIDE in labels:
        for bare in labels:
            if bare != OUTSIDE:
                raise _one_or_the_other(task, bare, next(iter(found.indices.values())))


def _refuse_prefixes(task: str, found: Found) -> None:
    """Refuse tags that have prefixes though the scheme `io` says that they are types.

    A type may begin like a tag (`B-cell`), so one alone shows nothing among others.
    """
    types = [tag[2:] for tag in found.names if tag != OUTSIDE]
    begun = {tag for tag in with_dashes(types) if tag[:2] in ("B-", "I-")}
    pairs = any(f"B-{tag[2:]}" in begun and f"I-{tag[2:]}" in begun for tag in begun)
    if not pairs and not (begun.intersection(types) and all(map(is_prefixed, types))):
        return
    first = next(one for one, tag in zip(types, with_dashes(types), strict=True) if tag in begun)
    raise DataError(
        f"the tags of the task {task!r} have prefixes, such as {shorten(first)}, and its `scheme` "
        "is io",
        where=found.names[f"I-{first}"],
        expected="types of entities without prefixes, such as PER",
        fix=f"Leave out `tasks.{task}.scheme`: tags with prefixes are read as they are.",
    )


def _one_or_the_other(task: str, bare: str, where: str) -> DataError:
    """Make the error for tags that could be types of entities or classes of words."""
    return DataError(
        f"the tags of the task {task!r} are `O` and names without a prefix, such as "
        f"{shorten(bare)}",
        where=where,
        expected="B- and I- before the types of entities, or the scheme of the tags",
        fix=f"Set `tasks.{task}.scheme`: io, if they are types of entities, neighbours of one type "
        "together; plain, if every word has a class and O is one.",
    )


def _scheme(task: str, found: Found) -> Scheme:
    """Decide from all tags whether they mark entities or are classes of words."""
    try:
        scheme = scheme_of(found.names)
    except DataError as error:
        bare = next(n for n in found.names if n != OUTSIDE and not is_prefixed(n))
        raise DataError(
            f"tags of the task {task!r}: {error.found}",
            where=found.names[bare],
            expected=error.expected,
            fix=error.fix,
        ) from None
    if scheme is Scheme.PLAIN and found.types:
        name, where = next(iter(found.types.items()))
        raise DataError(
            f"the task {task!r} has an entity {shorten(name)} here, and elsewhere tags that are "
            f"classes of each token, such as {shorten(next(iter(found.names)))}",
            where=where,
            expected="one or the other",
            fix="Write entity tags as B-TYPE and I-TYPE.",
        )
    return scheme


def _listed_tags(
    task: str, labels: Sequence[str], found: Found, scheme: Scheme, refuse: Refuse, form: str
) -> TagSet:
    """Make the tags that the configuration lists: tags in any scheme, or entity types alone."""
    count = len(labels)
    if form == "plain" and scheme is Scheme.PLAIN:
        known = TagSet(tuple(labels), Scheme.PLAIN)
    elif _lists_tags(labels, form):
        try:
            scheme_of(labels)
        except DataError as error:
            raise DataError(
                f"`labels` of the task {task!r}: {error.found}",
                expected=error.expected,
                fix=error.fix,
            ) from None
        if scheme is Scheme.PLAIN:
            bare = next(name for name in found.names if name != OUTSIDE)
            raise unlisted(task, bare, labels, found.names[bare])
        types = tuple(dict.fromkeys(label[2:] for label in labels if label != OUTSIDE))
        same = set(labels) == set(bio_names(types))
        known = TagSet(tuple(labels)) if same else TagSet.of_types(types)
    elif scheme is Scheme.PLAIN or (found.indices and not found.types and form == "auto"):
        known = TagSet(tuple(labels), Scheme.PLAIN)
    else:
        known = TagSet.of_types(label for label in labels if label != OUTSIDE)
        count = len(labels) if form == "io" else len(known)
    check_range(task, found, count, refuse)
    found_types = _types(found) if known.scheme is Scheme.BIO else found.names
    for name, where in found_types.items():
        if name not in known.types:
            refuse(unlisted(task, name, known.types, where))
    return known


def _types(found: Found) -> dict[str, str]:
    """Return the entity types of tags and spans, each with its first place."""
    types = dict(found.types)
    for tag, where in found.names.items():
        if is_prefixed(tag):
            types.setdefault(tag[2:], where)
    return types


def _tags_of_any_scheme(tag_set: TagSet) -> tuple[str, ...]:
    if tag_set.scheme is Scheme.PLAIN:
        return tag_set.names
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in tag_set.types for prefix in PREFIXES))
