"""The labels of a task, decided from what its records have and what its configuration says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from manyheads.config import TaskConfig
from manyheads.data.records.label_readers import indices_need_names, is_numeral, numbered_tags
from manyheads.errors import DataError, listing, nearest, shorten
from manyheads.tasks import OUTSIDE, LabelSet, Scheme, TagSet, bio_names, is_prefixed, scheme_of


@dataclass(frozen=True, slots=True)
class Found:
    """The labels that a task's records have, each with the place of its first."""

    names: dict[str, str] = field(default_factory=dict)
    """Classes, or tags."""
    indices: dict[int, str] = field(default_factory=dict)
    """Of classes, or tags."""
    types: dict[str, str] = field(default_factory=dict)
    """Of entities that are given as spans."""

    def __len__(self) -> int:
        return len(self.names) + len(self.indices) + len(self.types)


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names, the numbers in them by value: `level 2` comes before `level 10`."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", name)
        # `2` and `02` have the same value: the text decides.
        return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p], name

    return sorted(names, key=key)


Refuse = Callable[[DataError], None]
"""Takes the error of one label that the configuration does not allow."""


def raise_error(error: DataError) -> None:
    """Refuse a label by raising its error."""
    raise error


def decide_classes(
    task: str, config: TaskConfig, found: Found, refuse: Refuse = raise_error
) -> LabelSet:
    """Decide the labels of a classification or multilabel task.

    Raises:
        DataError: what was found contradicts itself or the configuration.
    """
    if config.labels is not None:
        known = LabelSet(config.labels)
        reads_numerals = not any(map(is_numeral, config.labels))
        for name, where in found.names.items():
            if name not in known and not (
                reads_numerals and is_numeral(name) and int(name) < len(known)
            ):
                refuse(_unlisted(task, name, known.names, where))
        _check_range(task, found, len(known), refuse)
        return known
    _refuse_mixture(task, found)
    count = config.num_labels
    if found.indices:
        if count is not None:
            _check_range(task, found, count, refuse)
        return LabelSet(_numerals(_count(found) if count is None else count))
    if count is not None and all(is_numeral(n) and int(n) < count for n in found.names):
        return LabelSet(_numerals(count))
    _check_bound(task, found.names, count)
    return LabelSet(tuple(natural_order(found.names)))


def decide_tags(
    task: str, config: TaskConfig, found: Found, refuse: Refuse = raise_error
) -> TagSet:
    """Decide the tags of a tagging task; those of every scheme become BIO.

    Raises:
        DataError: what was found contradicts itself or the configuration.
    """
    scheme = _scheme(task, config, found)
    if config.labels is not None:
        return _listed_tags(task, config.labels, found, scheme, refuse)
    _refuse_mixture(task, found)
    count = config.num_labels
    if found.indices:
        if count is None:
            raise indices_need_names(task, "tags", next(iter(found.indices.values())))
        _check_range(task, found, count, refuse)
        return TagSet(numbered_tags(count), Scheme.BIO if count % 2 else Scheme.PLAIN)
    if scheme is Scheme.PLAIN:
        _check_bound(task, found.names, count)
        return TagSet(tuple(natural_order(found.names)), Scheme.PLAIN)
    types = _types(found)
    _check_bound(task, types, count, are_types=True)
    return TagSet.of_types(natural_order(types))


def _scheme(task: str, config: TaskConfig, found: Found) -> Scheme:
    """Tell by all tags together, and without any by the configuration, what they mark."""
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
    task: str, labels: Sequence[str], found: Found, scheme: Scheme, refuse: Refuse
) -> TagSet:
    """Make the tags that the configuration lists: tags in any scheme, or entity types alone."""
    if any(map(is_prefixed, labels)):
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
            raise _unlisted(task, bare, labels, found.names[bare])
        types = tuple(dict.fromkeys(label[2:] for label in labels if label != OUTSIDE))
        same = set(labels) == set(bio_names(types))
        known = TagSet(tuple(labels)) if same else TagSet.of_types(types)
        count = len(labels)
    elif scheme is Scheme.PLAIN or (found.indices and not found.types):
        known = TagSet(tuple(labels), Scheme.PLAIN)
        count = len(labels)
    else:
        known = TagSet.of_types(label for label in labels if label != OUTSIDE)
        count = len(known)
    _check_range(task, found, count, refuse)
    found_types = _types(found) if known.scheme is Scheme.BIO else found.names
    for name, where in found_types.items():
        if name not in known.types:
            refuse(_unlisted(task, name, known.types, where))
    return known


def _types(found: Found) -> dict[str, str]:
    """Return the entity types of tags and spans, each with its first place."""
    types = dict(found.types)
    for tag, where in found.names.items():
        if is_prefixed(tag):
            types.setdefault(tag[2:], where)
    return types


def _count(found: Found) -> int:
    """Return how many classes indices speak of, where nothing else says it."""
    largest = max(found.indices)
    if largest + 1 > 2 * len(found.indices) + 10:
        raise DataError(
            f"the largest index is {largest}, but only {len(found.indices)} indices occur",
            where=found.indices[largest],
            expected="indices that count the labels from 0",
            fix="Write codes as strings, or set `num_labels` if so many labels are meant.",
        )
    return largest + 1


def _numerals(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _check_range(task: str, found: Found, count: int, refuse: Refuse) -> None:
    for index, where in found.indices.items():
        if index >= count:
            refuse(
                DataError(
                    f"the index {index} is beyond the {count} labels of the task {task!r}",
                    where=where,
                    expected=f"0 to {count - 1}",
                    fix="Correct the record, or the number of labels in the configuration.",
                )
            )


def _check_bound(
    task: str, places: dict[str, str], count: int | None, *, are_types: bool = False
) -> None:
    """Refuse more labels than the configuration says, at the place of the first one too many."""
    size = 2 * len(places) + 1 if are_types else len(places)
    if count is None or size <= count:
        return
    what = f"{len(places)} entity types ({size} tags)" if are_types else f"{size} labels"
    allowed = (count - 1) // 2 if are_types else count
    raise DataError(
        f"the task {task!r} has {what}: {listing(natural_order(places))}",
        where=list(places.values())[allowed],
        expected=f"at most {count} {'tags' if are_types else 'labels'}, as the configuration says",
        fix="Correct the records, or the number of labels in the configuration.",
    )


def _refuse_mixture(task: str, found: Found) -> None:
    named = {**found.names, **found.types}
    if named and found.indices:
        (name, place), (index, where) = next(iter(named.items())), next(iter(found.indices.items()))
        raise DataError(
            f"the task {task!r} has the name {shorten(name)} ({place}) and the index {index}",
            where=where,
            expected="names or indices, not both",
            fix="List the names in order as the task's `labels`, and both can be read.",
        )


def _unlisted(task: str, name: str, known: Sequence[str], where: str) -> DataError:
    return DataError(
        f"{shorten(name)} is no label of the task {task!r}{nearest(name, known)}",
        where=where,
        expected=f"one of its `labels`: {listing(known)}",
        fix="Correct the record, or add the label to the configuration.",
    )
