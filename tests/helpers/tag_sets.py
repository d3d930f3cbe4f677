"""Tags in any order and of any scheme, for tests."""

from collections.abc import Sequence

from hypothesis import strategies as st

from manyheads.tasks import OUTSIDE, Scheme, TagSet, entity_starts

# The order of a user's own list need not be O, B-, I-.
TAG_SETS = (
    TagSet(("O", "B-x", "I-x", "B-y", "I-y")),
    TagSet(("I-y", "B-x", "O", "I-x", "B-y")),
    TagSet(("O",)),
    TagSet(("O", "noun", "I-verb"), Scheme.PLAIN),
)
tag_sets = st.sampled_from(TAG_SETS)
seeds = st.integers(0, 2**32 - 1)


def to_bio(tags: Sequence[str]) -> list[str]:
    """Turn a sentence's tags of any scheme into BIO, as the package reads them."""
    return [
        f"{'B' if begins else 'I'}-{kind}" if kind else OUTSIDE
        for begins, kind in entity_starts(tags)
    ]
