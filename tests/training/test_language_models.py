"""A plain language model trains, and its folder embeds as sentence-transformers does with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from manyheads.api import evaluate
from manyheads.exporting import export_model
from manyheads.inference import Runtime, load_model
from manyheads.modeling import find_encoder, quiet_loading
from tiny import tiny_byte_bpe
from training_setup import run

TEXTS = ["John lives in Paris", "Will it rain in Rome?", "a"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Llama as it is published: with its language model's head and without padding token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = tiny_byte_bpe()
    shape = AutoConfig.for_model(
        "llama", vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, intermediate_size=64, bos_token_id=0,
        eos_token_id=2, max_position_embeddings=64,
    )  # fmt: skip
    path = tmp_path / "llama"
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(shape).save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    )
    return path


def test_a_language_model_embeds_by_its_last_token(folder: Path) -> None:
    assert find_encoder(str(folder)).pooling.mode == "lasttoken"
    assert find_encoder(str(folder), "mean").pooling.mode == "mean"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "is_causal": False}))
    assert find_encoder(str(folder)).pooling.mode == "mean"


def test_a_language_model_without_padding_token_trains_predicts_and_is_exported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers import SentenceTransformer

    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    try:
        result, _ = run(tmp_path, model_name=str(folder), freeze="encoder")
        drift = evaluate(result.best).evaluation["drift"]
    finally:
        library.removeHandler(caplog.handler)
    assert drift["cosine"] == pytest.approx(1, abs=1e-5)
    assert "LOAD REPORT" not in caplog.text
    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs.tokenizer.pad_token = "</s>"
    again = SentenceTransformer(str(result.best), device="cpu")
    expected = theirs.encode(TEXTS)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-5)
    export_model(result.best, formats=["float32"], threads=1)
    for backend in ("torch", "onnx"):
        predictor = load_model(result.best, Runtime(backend, threads=1)).predictor
        found = [one.embedding for one in predictor.predict(TEXTS, embed=True)]
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-4)
