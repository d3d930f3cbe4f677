"""The supported types of encoders: text models that `transformers` implements itself.

The library has several hundred types of models. Those of images or sound, and those that are made
of parts of other types, are refused by name before any part is constructed.
"""

from __future__ import annotations

from manyheads.errors import ModelError, nearest, shorten

_ENCODERS = """
    albert bert bert-generation big_bird camembert data2vec-text deberta deberta-v2 distilbert
    electra ernie esm eurobert flaubert ibert jina_embeddings_v3 layoutlm longformer luke
    megatron-bert mobilebert modernbert mpnet mra nomic_bert rembert roberta roberta-prelayernorm
    roc_bert roformer splinter squeezebert xlm xlm-roberta xlm-roberta-xl xlnet xmod
"""

# These read from left to right.
_DECODERS = """
    falcon gemma gemma2 gemma3_text gpt2 gpt_neo gpt_neox llama ministral mistral modernbert-decoder
    olmo olmo2 phi phi3 qwen2 qwen3 smollm3 stablelm starcoder2
"""
TEXT_MODELS = frozenset((*_ENCODERS.split(), *_DECODERS.split()))
"""Encoders and decoders of text, by `model_type`."""

# These read padding, so the output for a text depends on the texts beside it in a batch.
_READ_PADDING = frozenset({"convbert", "fnet", "nystromformer", "yoso"})
READ_PADDING_SLIGHTLY = _READ_PADDING - {"fnet"}
"""Those of which trained models still predict, by `model_type`."""

# `transformers` builds these with a decoder; they are refused for that once they are built.
_ENCODER_DECODERS = frozenset({"bart", "mbart", "mt5", "t5", "umt5"})

_EXPECTED = "an encoder of text such as BERT, DistilBERT, RoBERTa, MPNet or ModernBERT"


def refuse_other_types(model_type: object, where: str, *, is_trained: bool = False) -> None:
    """Refuse a model that is not a text model.

    Args:
        model_type: as its configuration names it.
        where: the model, for an error.
        is_trained: whether it is a trained model's encoder, which may read padding slightly.

    Raises:
        ModelError: its `model_type` is not listed here, or it reads padding.
    """
    if is_trained and model_type in READ_PADDING_SLIGHTLY:
        return
    if model_type in _READ_PADDING:
        raise ModelError(
            f"the model type is {shorten(model_type)}, whose output for a text depends on the "
            "padding, and so on the other texts of a batch",
            where=where, expected=_EXPECTED, fix="Choose another model.",
        )  # fmt: skip
    if not isinstance(model_type, str) or model_type not in TEXT_MODELS | _ENCODER_DECODERS:
        raise ModelError(
            f"the model type is {shorten(model_type)}{nearest(str(model_type), TEXT_MODELS)}",
            where=where,
            expected=_EXPECTED,
            fix="Choose another model.",
        )
