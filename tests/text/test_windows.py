"""Long texts are split without loss, and their results are merged."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import ModelError
from manyheads.text import (
    Encoding,
    TextTokenizer,
    Window,
    mean_over_windows,
    pad_batch,
    plan_batches,
    stitch_words,
    truncate,
    windows,
)
from tiny import tiny_tokenizer

TOKENIZER = TextTokenizer(tiny_tokenizer())


def make_encoding(size: int, starts: list[int], prefix: int = 1, suffix: int = 1) -> Encoding:
    """Make an encoding of `size` tokens 0, 1, 2 ..., in which words start at some of them."""
    ids = np.array([-1] * prefix + list(range(size)) + [-2] * suffix, np.int32)
    words = np.array(starts, np.int32)
    return Encoding(ids, words + np.int32(prefix), np.stack([words, words + 1], 1), prefix, suffix)


@st.composite
def encodings(draw: st.DrawFn) -> Encoding:
    size = draw(st.integers(0, 60))
    starts = draw(st.sets(st.integers(0, max(0, size - 1)), max_size=size))
    return make_encoding(size, sorted(starts), draw(st.integers(0, 2)), draw(st.integers(0, 2)))


def body(encoding: Encoding, ids: np.ndarray) -> list[int]:
    """The tokens between the special ones."""
    return ids[encoding.prefix : len(ids) - encoding.suffix].tolist()


def context(encoding: Encoding, window: Window, word: int) -> float:
    """Count the tokens from a word to the nearer end of the window inside the text."""
    tokens = body(encoding, window.ids)
    all_tokens = body(encoding, encoding.ids)
    starts = [*(encoding.word_starts - encoding.prefix).tolist(), len(all_tokens)]
    before = starts[word] - tokens[0] if tokens[0] > 0 else float("inf")
    after = tokens[-1] + 1 - starts[word + 1] if tokens[-1] < all_tokens[-1] else float("inf")
    return min(before, after)


@given(encodings(), st.integers(1, 12), st.data())
@settings(max_examples=100)
def test_windows_lose_nothing_and_decide_each_word_once_where_it_has_most_context(
    encoding: Encoding, capacity: int, data: st.DataObject
) -> None:
    max_length = capacity + encoding.prefix + encoding.suffix
    stride = data.draw(st.integers(0, capacity - 1))
    parts = windows(encoding, max_length, stride)
    everything = body(encoding, encoding.ids)
    starts = (encoding.word_starts - encoding.prefix).tolist()
    if len(encoding.ids) <= max_length:
        assert len(parts) == 1
        assert parts[0].ids.tolist() == encoding.ids.tolist()
    seen: set[int] = set()
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        tokens = body(encoding, part.ids)
        assert len(part.ids) <= max_length
        assert part.weight == len(tokens)
        assert part.ids[: encoding.prefix].tolist() == [-1] * encoding.prefix
        assert part.ids[len(part.ids) - encoding.suffix :].tolist() == [-2] * encoding.suffix
        assert tokens == everything[tokens[0] : tokens[-1] + 1] if tokens else not everything
        held = range(part.first_word, part.first_word + len(part.word_starts))
        assert part.ids[part.word_starts].tolist() == [starts[word] for word in held]
        assert set(range(*part.decides)) <= set(held)
        seen.update(tokens)
        if following is not None:
            shared = set(tokens) & set(body(encoding, following.ids))
            assert len(shared) <= stride
            border = tokens[-1] + 1
            assert border < body(encoding, following.ids)[-1] + 1
            # Cut within a word only if the word is longer than a window.
            assert border in starts or not any(tokens[0] < s <= border for s in starts)
    assert seen == set(everything)
    assert [word for part in parts for word in range(*part.decides)] == list(range(len(starts)))
    for i, part in enumerate(parts):
        for word in range(*part.decides):
            holding = [p for p in parts if p.first_word <= word < p.first_word + len(p.word_starts)]
            best = max(context(encoding, p, word) for p in holding)
            assert context(encoding, parts[i], word) == best


@given(encodings(), st.integers(1, 12))
@settings(max_examples=50)
def test_truncation_keeps_the_first_window_and_counts_what_it_loses(
    encoding: Encoding, capacity: int
) -> None:
    max_length = capacity + encoding.prefix + encoding.suffix
    kept, lost = truncate(encoding, max_length)
    first = windows(encoding, max_length, 0)[0]
    assert kept.ids.tolist() == first.ids.tolist()
    assert kept.word_starts.tolist() == first.word_starts.tolist()
    assert kept.word_spans.tolist() == encoding.word_spans[: len(kept.word_starts)].tolist()
    assert lost == len(encoding.word_starts) - len(kept.word_starts)


def test_a_text_that_fits_is_left_as_it_is() -> None:
    encoding = TOKENIZER.encode("John lives in Paris")
    assert truncate(encoding, 6) == (encoding, 0)
    (window,) = windows(encoding, 6, 2)
    assert window.ids is encoding.ids
    assert window.decides == (0, 4)


def test_truncation_does_not_cut_a_word() -> None:
    encoding = TOKENIZER.encode("Anna likes Pariserern")
    assert encoding.word_starts.tolist() == [1, 2, 3]
    kept, lost = truncate(encoding, 5)
    assert (len(kept.ids), lost) == (4, 1)


def test_neighbouring_windows_share_the_stride_and_each_decides_half_of_it() -> None:
    encoding = make_encoding(26, list(range(26)))
    parts = windows(encoding, 12, 4)
    assert [body(encoding, part.ids) for part in parts] == [
        list(range(10)), list(range(6, 16)), list(range(12, 22)), list(range(18, 26)),
    ]  # fmt: skip
    assert [part.decides for part in parts] == [(0, 8), (8, 14), (14, 20), (20, 26)]


def test_a_word_longer_than_a_window_is_decided_by_its_beginning() -> None:
    encoding = make_encoding(30, [0, 2, 27])
    parts = windows(encoding, 12, 4)
    assert [body(encoding, part.ids) for part in parts] == [
        list(range(2)), list(range(2, 12)), list(range(12, 22)), list(range(22, 30)),
    ]  # fmt: skip
    assert [part.decides for part in parts] == [(0, 1), (1, 2), (2, 2), (2, 3)]


def test_words_of_a_long_text_are_stitched_in_order() -> None:
    encoding = TOKENIZER.encode("John lives in Paris and Mary works in Berlin. " * 20)
    # As if the logits of a word were its number in the text.
    parts = windows(encoding, 30, 10)
    assert len(parts) > 5
    logits = []
    for part in parts:
        numbers = np.arange(part.first_word, part.first_word + len(part.word_starts) + 3)
        logits.append(np.stack([numbers, -numbers], axis=1).astype(np.float32))
    stitched = stitch_words(parts, logits)
    assert stitched[:, 0].tolist() == list(range(len(encoding.word_starts)))
    assert stitched.shape == (200, 2)


def test_one_window_is_stitched_and_averaged_to_itself() -> None:
    parts = windows(TOKENIZER.encode("John lives in Paris"), 64, 10)
    logits = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    assert stitch_words(parts, [logits]).tolist() == logits[:4].tolist()
    assert mean_over_windows(parts, [logits[0]]) is not None
    assert mean_over_windows(parts, [logits[0]]).tolist() == logits[0].tolist()


def test_the_mean_over_windows_counts_tokens() -> None:
    parts = windows(make_encoding(30, list(range(30))), 22, 0)
    assert [part.weight for part in parts] == [20, 10]
    mean = mean_over_windows(parts, [np.array([3.0], "f"), np.array([0.0], "f")])
    assert mean.dtype == np.float32
    assert mean.tolist() == [2.0]


@pytest.mark.parametrize("cut", [truncate, lambda encoding, length: windows(encoding, length, 0)])
def test_a_max_length_without_room_is_refused(cut: object) -> None:
    encoding = TOKENIZER.encode("John lives in Paris")
    with pytest.raises(
        ModelError, match="max_length 2 leaves no room for text; expected at least 3"
    ):
        cut(encoding, 2)  # type: ignore[operator]


def test_a_stride_that_makes_no_progress_is_refused() -> None:
    encoding = TOKENIZER.encode("John lives in Paris")
    with pytest.raises(ModelError, match="windows of 3 tokens that share 3; expected a stride"):
        windows(encoding, 5, 3)


def test_a_million_tokens_are_cut_in_linear_time() -> None:
    def seconds(tokens: int) -> float:
        encoding = make_encoding(tokens, list(range(0, tokens, 3)))
        took = []
        for _ in range(3):
            started = time.thread_time()
            parts = windows(encoding, 256, 64)
            took.append(time.thread_time() - started)
            assert parts[-1].decides[1] == len(encoding.word_starts)
        return min(took)

    # 20 times the tokens.
    assert seconds(1_000_000) < 60 * seconds(50_000)


def test_a_batch_is_padded_at_the_right() -> None:
    texts = ["John lives in Paris", "", "it rain"]
    items = [TOKENIZER.encode(text) for text in texts]
    batch = pad_batch(items, pad_id=7)
    cls, sep = 2, 3
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    assert batch.word_starts.dtype == np.int64
    assert batch.word_mask.dtype == np.bool_
    assert batch.input_ids.shape == (3, 6)
    assert batch.input_ids[1].tolist() == [cls, sep, 7, 7, 7, 7]
    assert batch.attention_mask.tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert batch.word_starts.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0], [1, 2, 0, 0]]
    assert batch.word_mask.tolist() == [[True] * 4, [False] * 4, [True, True, False, False]]


def test_each_row_can_be_padded_with_its_own_last_token() -> None:
    batch = pad_batch(
        [TOKENIZER.encode(text) for text in ("John lives", "", "it rain s")], pad_id=7
    )
    filled = batch.with_tokens_as_padding()
    cls, sep = 2, 3
    assert filled.input_ids[1].tolist() == [cls, *[sep] * (batch.input_ids.shape[1] - 1)]
    assert (filled.input_ids == batch.input_ids)[batch.attention_mask == 1].all()
    assert 7 not in filled.input_ids
    assert filled.attention_mask is batch.attention_mask


def test_a_batch_without_words_still_has_a_column_for_them() -> None:
    batch = pad_batch([TOKENIZER.encode("")], pad_id=0)
    assert batch.word_starts.shape == batch.word_mask.shape == (1, 1)
    assert not batch.word_mask.any()


@given(
    st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200), st.integers(1, 20),
    st.sampled_from([0, 10]),
)  # fmt: skip
@settings(max_examples=50)
def test_batches_hold_every_sentence_once_within_the_budget(
    lengths: list[int], budget: int, most: int, overhead: int
) -> None:
    batches = [batch.tolist() for batch in plan_batches(lengths, budget, most, overhead)]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    sizes = [lengths[i] for batch in batches for i in batch]
    assert sizes == sorted(sizes, reverse=True)
    for batch in batches:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget
    for batch in batches[:-1] if not overhead else ():
        # No batch is smaller than it has to be.
        assert len(batch) == most or (len(batch) + 1) * max(1, lengths[batch[0]]) > budget


def test_a_batch_ends_early_where_that_saves_more_padding_than_a_batch_costs() -> None:
    lengths = [5, 30, 5, 28, 5, 5]
    planned = [plan_batches(lengths, 512, 256, overhead) for overhead in (24, 200)]
    assert [[batch.tolist() for batch in plan] for plan in planned] == [
        [[1, 3], [0, 2, 4, 5]], [[1, 3, 0, 2, 4, 5]],
    ]  # fmt: skip
