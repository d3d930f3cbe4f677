"""Labels: named classes, tags and the character spans they stand for.

A tagging label lives on the characters of the text, as a `Span`. Tags are derived from spans
for the words a model sees, and spans are read back from the tags it predicts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import accumulate, pairwise
from typing import Any

from manyheads.errors import DataError, listing, nearest, shorten
from manyheads.text import Units

OUTSIDE = "O"
WordSpan = tuple[int, int]

# The prefixes of the schemes read. BILOU's "U" and "L" are IOBES' "S" and "E", BMEWO's "M" and "W"
# are "I" and "S".
PREFIXES = frozenset("BIESLUMW")
_ENDING = frozenset("ESLUW")

UNTYPED = "ENTITY"
"""The type of entities whose tags are `B` and `I` alone."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A labelled stretch of text: characters `start` to `end`, which is exclusive."""

    start: int
    end: int
    label: str

    def overlaps(self, start: int, end: int) -> bool:
        """Return whether it shares a character with the characters `start` to `end`."""
        return self.start < end and start < self.end


class Stretches:
    """Stretches of a text, in any order, ready for many questions about what touches them."""

    def __init__(self, stretches: Iterable[WordSpan]) -> None:
        ordered = sorted(stretches)
        self._starts = [start for start, _ in ordered]
        # The furthest end so far: stretches may overlap.
        self._ends = list(accumulate((end for _, end in ordered), max))

    def touch(self, start: int, end: int) -> bool:
        """Return whether the characters `start` to `end` share one with any of the stretches."""
        before = bisect_left(self._starts, end)
        return before > 0 and start < self._ends[before - 1]


def borders_of(spans: Iterable[Span]) -> Iterator[WordSpan]:
    """Yield the characters of spans."""
    return ((span.start, span.end) for span in spans)


class PartlyLabelled(tuple[Span, ...]):
    """The spans of a text in which some words have no tag; they are neither learned nor scored."""

    unlabelled: tuple[WordSpan, ...]
    """The characters of these words, none of which is in a span."""

    def __new__(cls, spans: Iterable[Span], unlabelled: Iterable[WordSpan]) -> PartlyLabelled:
        """Make the label; a word that a span covers is not unlabelled: the span implies its tag."""
        label = super().__new__(cls, spans)
        covered = Stretches(borders_of(label))
        label.unlabelled = tuple(place for place in unlabelled if not covered.touch(*place))
        return label

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return the arguments with which the label is unpickled."""
        return tuple(self), self.unlabelled

    def __repr__(self) -> str:
        return f"{super().__repr__()} without {self.unlabelled}"


def unlabelled_words(label: object) -> tuple[WordSpan, ...]:
    """Return the characters of the words for which a label has no tag."""
    return label.unlabelled if isinstance(label, PartlyLabelled) else ()


@dataclass(frozen=True, slots=True)
class Pair:
    """The second text of a pair, and the label of the two: a score or a class."""

    text: str
    value: float | str


class Scheme(str, Enum):
    """How tags make entities."""

    BIO = "bio"
    """`B-` begins an entity, `I-` continues it, `O` is outside."""
    PLAIN = "plain"
    """Every token has a class of its own, as with parts of speech."""


@dataclass(frozen=True)
class LabelSet:
    """The ordered names of a task's labels; a label's index is its position.

    Raises:
        DataError: a name is empty or occurs twice.
    """

    names: tuple[str, ...]
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {name: i for i, name in enumerate(self.names)}
        if len(index) != len(self.names):
            twice = next(n for i, n in enumerate(self.names) if index[n] != i)
            raise DataError(f"label {shorten(twice)} is listed twice", expected="each label once")
        if "" in index:
            raise DataError("a label is an empty string", expected="a name for every label")
        object.__setattr__(self, "_index", index)

    @property
    def record_names(self) -> tuple[str, ...]:
        """The names by which records label: for tags of entities, the types of these."""
        return self.names

    @property
    def units(self) -> Units | None:
        """The units that carry the labels, if they are tags."""
        return None

    @property
    def marks_entities(self) -> bool:
        """Whether the labels are tags that mark entities."""
        return False

    def extended(self, names: Sequence[str]) -> LabelSet:
        """Return these labels followed by others, which are named as records name them."""
        return LabelSet((*self.names, *names))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def index(self, name: str) -> int:
        """Return the index of a name.

        Raises:
            DataError: the name is not one of the labels.
        """
        try:
            return self._index[name]
        except KeyError:
            raise DataError(
                f"label {shorten(name)} is not known{nearest(name, self.names)}",
                expected=f"one of: {listing(self.names)}",
            ) from None


@dataclass(frozen=True)
class TagSet(LabelSet):
    """The tags of a tagging task. Under BIO `O` comes first, then `B-` and `I-` of each type."""

    scheme: Scheme = Scheme.BIO
    units: Units = Units.WORDS
    """The units that carry tags: words, or pieces of words."""
    stages: tuple[int, ...] = field(default=(), compare=False)
    """The number of tags before each time that some were added to a trained head; decoding does not
    change what these made of a text, except where a later tag is (see `best_paths`)."""

    def __post_init__(self) -> None:
        LabelSet.__post_init__(self)
        for names in (self.names, *(self.names[:size] for size in self.stages)):
            expected = bio_names(types_of(names))
            if self.scheme is Scheme.BIO and set(names) != set(expected):
                raise DataError(
                    f"tags {listing(names)} are not a BIO tag set",
                    expected=f"O and, for each type, B- and I-: {listing(expected)}",
                )
        sizes = (0, *self.stages, len(self.names))
        if self.stages and not all(one < other for one, other in pairwise(sizes)):
            raise DataError(
                f"stages {listing(self.stages)} of {len(self.names)} tags",
                expected="rising numbers of tags, fewer than all",
            )

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types (BIO) or the classes themselves (plain), in the order of the tags."""
        if self.scheme is Scheme.PLAIN:
            return self.names
        return types_of(self.names)

    @property
    def record_names(self) -> tuple[str, ...]:
        """The names by which records label: the types."""
        return self.types

    @property
    def marks_entities(self) -> bool:
        """Whether the tags mark entities: not under plain, where every word has a class."""
        return self.scheme is Scheme.BIO

    def extended(self, names: Sequence[str]) -> TagSet:
        """Return these tags and those of further types, as a stage of their own."""
        added = bio_names(names)[1:] if self.marks_entities else names
        return replace(self, names=(*self.names, *added), stages=(*self.stages, len(self)))

    @classmethod
    def of_types(cls, types: Iterable[str]) -> TagSet:
        """Make the BIO tag set of some entity types, in their order."""
        return cls(bio_names(types), Scheme.BIO)


def units_of(label_sets: Iterable[LabelSet]) -> Units:
    """Return the units that carry tags in a model with these labels: the finest of its tasks."""
    pieces = any(labels.units is Units.PIECES for labels in label_sets)
    return Units.PIECES if pieces else Units.WORDS


def with_units(labels: LabelSet, units: Units) -> LabelSet:
    """Return labels with other units for their tags, if they are tags."""
    return replace(labels, units=units) if isinstance(labels, TagSet) else labels


def types_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return the entity types of BIO tags, in their order."""
    return tuple(dict.fromkeys(name[2:] for name in names if name != OUTSIDE))


def bio_names(types: Iterable[str]) -> tuple[str, ...]:
    """Return `O`, then `B-` and `I-` of each type."""
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))


def is_prefixed(tag: str) -> bool:
    """Return whether a tag has the form `B-PER` (or another prefix of a scheme)."""
    return len(tag) > 2 and tag[1] == "-" and tag[0] in PREFIXES


def are_tags(labels: Iterable[str]) -> bool:
    """Return whether the labels that a configuration lists are tags, and not types of entities.

    A type may look like a tag (`E-mail`, `U-Bahn`); tags have an `O`, or a `B-` or `I-`.
    """
    names = tuple(labels)
    return any(map(is_prefixed, names)) and any(
        n == OUTSIDE or n[:2] in ("B-", "I-") for n in names
    )


def with_dashes(tags: Sequence[str]) -> Sequence[str]:
    """Return one sentence's tags in the usual form, from `B_PER` or from `B` without a type.

    They are changed only where all tags of the sentence but `O` have that form.
    """
    marks = {tag for tag in tags if tag != OUTSIDE}
    if marks and marks <= {"B", "I"}:
        return [tag if tag == OUTSIDE else f"{tag}-{UNTYPED}" for tag in tags]
    if marks and all(tag[1:2] == "_" and is_prefixed(f"{tag[0]}-{tag[2:]}") for tag in marks):
        return [tag if tag == OUTSIDE else f"{tag[0]}-{tag[2:]}" for tag in tags]
    return tags


def from_io(tags: Sequence[str]) -> list[str]:
    """Return `I-` tags for bare types of entities, as in the scheme IO."""
    return [tag if tag == OUTSIDE else f"I-{tag}" for tag in tags]


def to_io(tags: Sequence[str | None]) -> list[str | None] | None:
    """Return BIO tags in the scheme IO, None where a word has none.

    None if two entities of a type are neighbours: IO would join them.
    """
    known = [tag for tag in tags if tag is not None]
    if any(two[:2] == "B-" and one[2:] == two[2:] for one, two in pairwise(known)):
        return None
    return [tag if tag is None or tag == OUTSIDE else tag[2:] for tag in tags]


def scheme_of(tags: Iterable[str]) -> Scheme:
    """Decide by their form whether tags mark entities or are classes of words.

    Raises:
        DataError: some tags have a prefix and some, other than `O`, have none.
    """
    distinct = set(tags) - {OUTSIDE}
    bare = sorted(tag for tag in distinct if not is_prefixed(tag))
    if not bare:
        return Scheme.BIO
    if len(bare) == len(distinct):
        return Scheme.PLAIN
    if bare == ["-"] or bare == ["_"]:
        raise DataError(
            f"the tag {bare[0]!r}, which marks untagged words, beside tags such as "
            f"{min(distinct - set(bare))!r}",
            expected="a tag for each word",
            fix="Write O where a word has no entity, or remove the record.",
        )
    raise DataError(
        f"tags {listing(bare)} have no prefix while others, such as "
        f"{min(distinct - set(bare))!r}, have one",
        expected="either B-/I- tags and O, or plain classes",
        fix="Write every entity tag as B-TYPE or I-TYPE.",
    )


def entity_starts(tags: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Yield for each tag whether an entity begins there, and its type; "" outside entities.

    The tags are BIO, IOB1, IOBES, BILOU or BMES, and the scheme need not be known: an entity begins
    at `B-`, `S-`, `U-` or `W-`, and wherever a type follows another type, `O`, or the end of an
    entity (`E-`, `L-`, `S-`, `U-`, `W-`). The reference scorer conlleval and seqeval's default mode
    read them so.
    """
    kind, ended = "", True
    for tag in tags:
        if tag == OUTSIDE or not is_prefixed(tag):
            kind, ended = "", True
            yield False, kind
            continue
        begins = ended or tag[2:] != kind or tag[0] in "BSUW"
        kind, ended = tag[2:], tag[0] in _ENDING
        yield begins, kind


def spans_of(
    tags: Sequence[str], words: Sequence[WordSpan], scheme: Scheme = Scheme.BIO
) -> tuple[Span, ...]:
    """Read the labelled spans off one sentence's tags.

    Args:
        tags: a tag for each word.
        words: the characters of each word, in order.
        scheme: under `PLAIN` every word is a span of its own.
    """
    if scheme is Scheme.PLAIN:
        return tuple(Span(s, e, tag) for tag, (s, e) in zip(tags, words, strict=True))
    spans: list[Span] = []
    for (begins, kind), (start, end) in zip(entity_starts(tags), words, strict=True):
        if begins:
            spans.append(Span(start, end, kind))
        elif kind:
            spans[-1] = Span(spans[-1].start, end, kind)
    return tuple(spans)


def inside_words(spans: Iterable[Span], starts: Container[int], ends: Container[int]) -> int:
    """Count the spans that begin or end inside a word.

    Args:
        spans: labelled spans of a text.
        starts: the first characters of the text's words.
        ends: the ends of its words, exclusive.
    """
    return sum(span.start not in starts or span.end not in ends for span in spans)


def tags_of(
    spans: Iterable[Span], words: Sequence[WordSpan], scheme: Scheme = Scheme.BIO
) -> list[str]:
    """Return the tag of each word, from labelled spans.

    A word belongs to a span that shares a character with it; where two do, to the one that
    begins first.
    """
    tags = [OUTSIDE] * len(words)
    first = 0
    for span in sorted(span for span in spans if span.start < span.end):
        while first < len(words) and words[first][1] <= span.start:
            first += 1
        begun = False
        for i in range(first, len(words)):
            start, end = words[i]
            if start >= span.end:
                break
            if tags[i] != OUTSIDE or end <= span.start:
                continue
            if scheme is Scheme.PLAIN:
                tags[i] = span.label
            else:
                tags[i] = f"{'I' if begun else 'B'}-{span.label}"
            begun = True
    return tags
