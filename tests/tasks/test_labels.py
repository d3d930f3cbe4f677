"""Tags and spans mean the same under every scheme, and as in the reference scorer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import DataError
from manyheads.tasks import (
    LabelSet,
    Scheme,
    Span,
    TagSet,
    bio_names,
    is_prefixed,
    scheme_of,
    spans_of,
    tags_of,
)
from tag_sets import to_bio

TYPES = st.sampled_from(["PER", "LOC", "B-x"])
CHUNKS = st.lists(st.tuples(st.one_of(st.just(""), TYPES), st.integers(1, 4)), max_size=8)
ANY_TAGS = st.lists(
    st.one_of(
        st.just("O"),
        st.builds("{}-{}".format, st.sampled_from("BIES"), st.sampled_from(["PER", "LOC"])),
    ),
    max_size=12,
)


def word_spans(count: int) -> list[tuple[int, int]]:
    """Words of two characters with a space after each."""
    return [(3 * i, 3 * i + 2) for i in range(count)]


def spans_of_chunks(chunks: list[tuple[str, int]]) -> tuple[Span, ...]:
    spans, place = [], 0
    for kind, length in chunks:
        if kind:
            spans.append(Span(3 * place, 3 * (place + length) - 1, kind))
        place += length
    return tuple(spans)


def write(chunks: list[tuple[str, int]], scheme: str) -> list[str]:
    """Write entities in a scheme, independently of the code under test."""
    tags: list[str] = []
    before = ""
    for kind, length in chunks:
        if not kind:
            tags += ["O"] * length
        elif scheme == "IOB1":
            tags += [f"{'B' if before == kind else 'I'}-{kind}", *[f"I-{kind}"] * (length - 1)]
        elif scheme == "BIO":
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
        else:
            single, last = ("S", "E") if scheme == "IOBES" else ("U", "L")
            inside = [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"{last}-{kind}"]
            tags += [f"{single}-{kind}"] if length == 1 else inside
        before = kind
    return tags


def is_valid_bio(tags: list[str]) -> bool:
    return all(
        not tag.startswith("I-") or before in (f"B-{tag[2:]}", f"I-{tag[2:]}")
        for before, tag in zip(["O", *tags], tags, strict=False)
    )


@pytest.mark.parametrize("scheme", ["BIO", "IOB1", "IOBES", "BILOU"])
@given(chunks=CHUNKS)
def test_every_scheme_is_read_as_the_same_entities(
    scheme: str, chunks: list[tuple[str, int]]
) -> None:
    tags = write(chunks, scheme)
    assert to_bio(tags) == write(chunks, "BIO")
    assert spans_of(tags, word_spans(len(tags))) == spans_of_chunks(chunks)


@given(CHUNKS)
def test_spans_of_whole_words_become_tags_and_the_same_spans_again(
    chunks: list[tuple[str, int]],
) -> None:
    words = word_spans(sum(length for _, length in chunks))
    spans = spans_of_chunks(chunks)
    assert spans_of(tags_of(reversed(spans), words), words) == spans


@settings(max_examples=60)
@given(ANY_TAGS)
def test_any_tags_are_read_as_seqeval_reads_them(tags: list[str]) -> None:
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities(tags)
    expected = [Span(first, last + 1, kind) for kind, first, last in entities]
    assert list(spans_of(tags, [(i, i + 1) for i in range(len(tags))])) == expected


@given(ANY_TAGS)
def test_bio_tags_made_from_any_tags_are_valid_and_do_not_change_again(tags: list[str]) -> None:
    bio = to_bio(tags)
    assert is_valid_bio(bio)
    assert to_bio(bio) == bio


@st.composite
def spans_and_words(draw: st.DrawFn) -> tuple[list[Span], list[tuple[int, int]]]:
    """Any spans (overlapping, empty, parts of words) and any words in order."""
    cuts = sorted(draw(st.sets(st.integers(0, 30), max_size=16)))
    words = list(zip(cuts[::2], cuts[1::2], strict=False))
    ends = st.integers(0, 32)
    return draw(st.lists(st.builds(Span, ends, ends, TYPES), max_size=6)), words


@settings(max_examples=150)
@given(spans_and_words())
def test_a_word_is_tagged_exactly_when_it_shares_a_character_with_a_span(
    case: tuple[list[Span], list[tuple[int, int]]],
) -> None:
    spans, words = case
    tags = tags_of(spans, words)
    assert is_valid_bio(tags)
    for tag, (start, end) in zip(tags, words, strict=True):
        touching = [s for s in spans if set(range(s.start, s.end)) & set(range(start, end))]
        if not touching:
            assert tag == "O"
        else:
            assert tag[2:] == min(touching).label


def test_neighbours_of_one_type_stay_two_entities() -> None:
    words = [(0, 4), (5, 9)]
    spans = (Span(0, 4, "PER"), Span(5, 9, "PER"))
    assert tags_of(spans, words) == ["B-PER", "B-PER"]
    assert spans_of(["B-PER", "B-PER"], words) == spans


def test_with_plain_tags_each_word_has_its_own_class() -> None:
    words = [(0, 4), (5, 9)]
    spans = spans_of(["NOUN", "NOUN"], words, Scheme.PLAIN)
    assert spans == (Span(0, 4, "NOUN"), Span(5, 9, "NOUN"))
    assert tags_of(spans, words, Scheme.PLAIN) == ["NOUN", "NOUN"]


def test_tags_and_words_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        spans_of(["O"], [(0, 1), (2, 3)])


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["O", "B-PER", "I-PER"], Scheme.BIO),
        (["U-PER", "L-LOC"], Scheme.BIO),
        (["O"], Scheme.BIO),
        ([], Scheme.BIO),
        (["NOUN", "VERB"], Scheme.PLAIN),
        (["O", "NOUN"], Scheme.PLAIN),
    ],
)
def test_the_scheme_follows_from_the_form_of_the_tags(tags: list[str], scheme: Scheme) -> None:
    assert scheme_of(tags) is scheme


def test_tags_of_mixed_form_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"tags LOC have no prefix .* 'B-PER', have one"):
        scheme_of(["B-PER", "LOC", "O"])


def test_a_prefix_needs_a_type() -> None:
    assert is_prefixed("B-x")
    assert not any(map(is_prefixed, ["B-", "B", "O", "", "X-PER", "BPER"]))


def test_the_index_of_a_label_is_its_position() -> None:
    labels = LabelSet(("no", "yes"))
    assert [labels.index(name) for name in labels.names] == [0, 1]
    assert len(labels) == 2
    assert "yes" in labels
    assert "maybe" not in labels


def test_the_error_for_an_unknown_label_names_the_nearest_and_the_known_ones() -> None:
    with pytest.raises(
        DataError, match=r"label 'weathr' is not known \(did you mean \"weather\"\?\).*one of: "
    ):
        LabelSet(("weather", "music")).index("weathr")


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a", "b", "a"), "label 'a' is listed twice"), (("a", ""), "a label is an empty string")],
)
def test_label_names_are_distinct_and_not_empty(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelSet(names)


def test_a_tag_set_is_made_from_types_and_lists_them() -> None:
    tags = TagSet.of_types(["PER", "LOC"])
    assert tags.names == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC") == bio_names(tags.types)
    assert tags.types == ("PER", "LOC")
    assert TagSet(("NOUN", "VERB"), Scheme.PLAIN).types == ("NOUN", "VERB")


@pytest.mark.parametrize("names", [("B-PER", "I-PER"), ("O", "B-PER"), ("O", "PER")])
def test_an_incomplete_bio_tag_set_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="are not a BIO tag set; expected O and"):
        TagSet(names)
