"""The supported types of encoders: text models that `transformers` implements itself.

The library has several hundred types of models. Those of images or sound, and those that are made
of parts of other types, are refused by name before any part is constructed.
"""

from __future__ import annotations

from manyheads.errors import ModelError, nearest, shorten

_ENCODERS = """
    albert bert bert-generation big_bird camembert canine convbert data2vec-text deberta deberta-v2
    distilbert electra ernie esm eurobert flaubert fnet funnel ibert jina_embeddings_v3 layoutlm
    longformer luke megatron-bert mobilebert modernbert mpnet mra nezha nomic_bert nystromformer
    qdqbert rembert roberta roberta-prelayernorm roc_bert roformer splinter squeezebert xlm
    xlm-roberta xlm-roberta-xl xlnet xmod yoso
"""

# These embed by their last token.
_DECODERS = """
    falcon gemma gemma2 gemma3_text gpt2 gpt_neo gpt_neox llama ministral mistral modernbert-decoder
    olmo olmo2 opt phi phi3 qwen2 qwen3 smollm3 stablelm starcoder2
"""
TEXT_MODELS = frozenset((*_ENCODERS.split(), *_DECODERS.split()))
"""Encoders and decoders of text, by `model_type`."""

# `transformers` builds these with a decoder; they are refused for that once they are built.
_ENCODER_DECODERS = frozenset({"bart", "mbart", "mt5", "t5", "umt5"})


def refuse_other_types(model_type: object, where: str) -> None:
    """Refuse a model that is not a text model.

    Raises:
        ModelError: its `model_type` is not listed here.
    """
    if not isinstance(model_type, str) or model_type not in TEXT_MODELS | _ENCODER_DECODERS:
        raise ModelError(
            f"the model type is {shorten(model_type)}{nearest(str(model_type), TEXT_MODELS)}",
            where=where,
            expected="an encoder of text such as BERT, DistilBERT, RoBERTa, MPNet or ModernBERT",
            fix="Choose another model.",
        )
