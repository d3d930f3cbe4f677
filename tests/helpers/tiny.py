"""Tiny tokenizers and encoders for tests: the real file formats, made in well under a second.

A folder made here loads with `AutoModel.from_pretrained` and with `SentenceTransformer`, without
a network. The tokenizers need `tokenizers` alone, so that tests of the torch-free modules can
use them where there is no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

ASCII = [chr(code) for code in range(33, 127)]
VOCABULARY = """
    a an and are at book by calls eats ern er for from friend has he her his how i in is it ing
    likes lives london made me meeting movie music my new of on paris play rain rate restaurant
    she song sunny table the to visits was weather what where who will with works yesterday you
    john mary peter anna smith york berlin rome emma paul monday tomorrow good bad very not s t
"""
WORDS = tuple(VOCABULARY.split())


@dataclass(frozen=True, slots=True)
class Specials:
    """The special tokens of a family of encoders, in the order of their ids."""

    order: tuple[str, ...]
    begin: str
    end: str
    pad: str
    unknown: str
    mask: str


BERT_SPECIALS = Specials(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"
)
ROBERTA_SPECIALS = Specials(
    ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<s>", "</s>", "<pad>", "<unk>", "<mask>"
)


def _finish(tokenizer: Tokenizer, specials: Specials) -> Tokenizer:
    """Add the special tokens and the template that puts them around a sentence."""
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in specials.order])
    ids = [(t, tokenizer.token_to_id(t)) for t in (specials.begin, specials.end)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{specials.begin} $A {specials.end}",
        pair=f"{specials.begin} $A {specials.end} $B:1 {specials.end}:1",
        special_tokens=ids,
    )
    return tokenizer


def tiny_tokenizer(
    words: Sequence[str] = WORDS, *, lowercase: bool = True, specials: Specials = BERT_SPECIALS
) -> Tokenizer:
    """Return a BERT-style WordPiece tokenizer of a few words and every ASCII character.

    Each word and each character is a token, at the start of a word and, as `##piece`, inside one.
    Characters without a token (`é` if accents are kept, emoji, CJK) are unknown.
    """
    chars = [c for c in ASCII if not (lowercase and c.isupper())]
    pieces = [*chars, *(w.lower() if lowercase else w for w in words)]
    vocabulary = [*specials.order, *pieces, *(f"##{piece}" for piece in pieces)]
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=specials.unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _finish(tokenizer, specials)


def tiny_byte_bpe(
    words: Sequence[str] = WORDS, *, specials: Specials = ROBERTA_SPECIALS
) -> Tokenizer:
    """Return a byte-level BPE tokenizer (RoBERTa, ModernBERT), its merges learned from the words.

    Every byte is a token, so no text is unknown and an emoji is up to four tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(specials.order),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Twice each, because a pair is merged only if it occurs twice.
    tokenizer.train_from_iterator([f"{w} {w} {w}" for w in words], trainer)
    return _finish(tokenizer, specials)


def tiny_unigram(
    words: Sequence[str] = WORDS, *, specials: Specials = ROBERTA_SPECIALS
) -> Tokenizer:
    """Return a SentencePiece-style Unigram tokenizer (XLM-RoBERTa): `▁` marks a leading space."""
    scores = dict.fromkeys(specials.order, 0.0)
    scores["▁"] = -4.0
    for word in words:
        scores.update({f"▁{word}": -6.0, word: -7.0})
    for char in ASCII:
        scores.setdefault(f"▁{char}", -9.0)
        scores.setdefault(char, -8.0)
    unknown = list(scores).index(specials.unknown)
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=unknown, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    return _finish(tokenizer, specials)


@dataclass(frozen=True, slots=True)
class Family:
    """The settings of the tiny encoder of one model type."""

    tokenizer: Callable[..., Tokenizer]
    specials: Specials
    extra_positions: int = 0
    """Positions the family leaves unused (RoBERTa counts from its padding id plus one)."""


FAMILIES = {
    "bert": Family(tiny_tokenizer, BERT_SPECIALS),
    "distilbert": Family(tiny_tokenizer, BERT_SPECIALS),
    "mpnet": Family(tiny_tokenizer, ROBERTA_SPECIALS, 2),
    "roberta": Family(tiny_byte_bpe, ROBERTA_SPECIALS, 2),
    "xlm-roberta": Family(tiny_unigram, ROBERTA_SPECIALS, 2),
    "modernbert": Family(tiny_byte_bpe, BERT_SPECIALS),
}
"""The model types that tests of encoders cover."""

RARE_FAMILIES = {
    "data2vec-text": Family(tiny_byte_bpe, ROBERTA_SPECIALS, 2),
    "roberta-prelayernorm": Family(tiny_byte_bpe, ROBERTA_SPECIALS, 2),
    "longformer": Family(tiny_byte_bpe, ROBERTA_SPECIALS, 2),
}


def _family(model_type: str) -> Family:
    return (FAMILIES | RARE_FAMILIES)[model_type]


def _settings(
    model_type: str, hidden: int, layers: int, heads: int, max_position: int
) -> dict[str, Any]:
    """Return the arguments of the model type's configuration class."""
    if model_type == "distilbert":
        return {
            "dim": hidden,
            "n_layers": layers,
            "n_heads": heads,
            "hidden_dim": 2 * hidden,
            "max_position_embeddings": max_position,
        }
    settings: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": max_position + _family(model_type).extra_positions,
    }
    if model_type == "longformer":
        settings |= {"attention_window": [8] * layers, "sep_token_id": 2}
    if model_type == "modernbert":
        settings |= {"local_attention": 16, "global_attn_every_n_layers": 2}
    return settings


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def tiny_encoder_folder(
    path: str | Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    seed: int = 0,
    model_type: str = "bert",
    max_position: int = 64,
    words: Sequence[str] = WORDS,
    pooling: str = "mean",
    normalize: bool = True,
) -> Path:
    """Write a sentence-transformers folder with a random encoder of a few thousand weights.

    Args:
        path: the folder, created if missing.
        model_type: one of `FAMILIES` or `RARE_FAMILIES`.
        max_position: tokens a sentence may have, special ones included.
        pooling: `mean` or `cls`.
        normalize: whether the folder ends with a `2_Normalize` module.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from manyheads.modeling import quiet_loading

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    family = _family(model_type)
    specials = family.specials
    tokenizer = family.tokenizer(words, specials=specials)
    id_of = tokenizer.token_to_id

    config = AutoConfig.for_model(
        model_type,
        vocab_size=tokenizer.get_vocab_size(),
        pad_token_id=id_of(specials.pad),
        bos_token_id=id_of(specials.begin),
        eos_token_id=id_of(specials.end),
        **({"cls_token_id": id_of(specials.begin)} if model_type == "modernbert" else {}),
        **({"sep_token_id": id_of(specials.end)} if model_type == "modernbert" else {}),
        **_settings(model_type, hidden, layers, heads, max_position),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
    with quiet_loading():
        model.save_pretrained(folder)

    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_position,
            "bos_token": specials.begin,
            "eos_token": specials.end,
            "cls_token": specials.begin,
            "sep_token": specials.end,
            "pad_token": specials.pad,
            "unk_token": specials.unknown,
            "mask_token": specials.mask,
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if normalize:
        modules.append(("2_Normalize", "Normalize"))
        (folder / "2_Normalize").mkdir(exist_ok=True)
    prefix = "sentence_transformers.models"
    _write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": place, "type": f"{prefix}.{kind}"}
            for i, (place, kind) in enumerate(modules)
        ],
    )
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_position})
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": pooling == "mean",
        },
    )
    return folder
