"""Encoders of every architecture run behind one wrapper."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from manyheads.errors import ModelError
from manyheads.inference import Runtime, load_model
from manyheads.modeling import Encoder, find_encoder, load_checkpoint, pool
from manyheads.modeling.pooling import PoolingSpec
from manyheads.text import TextTokenizer
from manyheads.training import train
from tiny import FAMILIES, RARE_FAMILIES
from training_setup import config, encoder_folder, sentences, write_records

LIMIT = 64
"""Tokens that the tiny encoders read."""


@functools.cache
def encoder(model_type: str = "bert") -> Encoder:
    return Encoder.from_source(find_encoder(str(encoder_folder(model_type)))).eval()


def batch(own: Encoder, texts: list[str], extra: int = 0) -> tuple[Tensor, Tensor]:
    tokenizer = TextTokenizer.from_json(own.tokenizer_json)
    rows = [tokenizer.encode(text).ids for text in texts]
    width = max(map(len, rows)) + extra
    ids = torch.full((len(rows), width), own.pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.from_numpy(row.astype(np.int64))
        mask[i, : len(row)] = 1
    return ids, mask


TEXTS = ["John lives in Paris", "Will it rain in Rome?", "a"]


@pytest.mark.parametrize("model_type", [*FAMILIES, *RARE_FAMILIES])
def test_the_longest_input_is_known_and_can_be_read(model_type: str) -> None:
    own = encoder(model_type)
    assert own.max_positions == LIMIT
    ids = torch.full((1, LIMIT), 20)
    encoded = own(ids, torch.ones_like(ids))
    assert encoded.tokens.shape == (1, LIMIT, 32)
    assert encoded.tokens.isfinite().all()
    if model_type != "modernbert":  # its positions are rotations, which are not limited
        longer = torch.full((1, LIMIT + 1), 20)
        with pytest.raises((IndexError, RuntimeError)):
            own(longer, torch.ones_like(longer))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_padding_does_not_change_an_encoders_output(model_type: str) -> None:
    own = encoder(model_type)
    ids, mask = batch(own, TEXTS)
    wider_ids, wider_mask = batch(own, TEXTS, extra=9)
    with torch.inference_mode():
        encoded, wider = own(ids, mask), own(wider_ids, wider_mask)
        torch.testing.assert_close(encoded.sentence, wider.sentence, atol=1e-5, rtol=0)
        for i, text in enumerate(TEXTS):
            alone = own(*batch(own, [text]))
            length = int(mask[i].sum())
            for tokens in (encoded.tokens[i, :length], wider.tokens[i, :length]):
                torch.testing.assert_close(tokens, alone.tokens[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_layers_are_returned_on_request(model_type: str) -> None:
    own = encoder(model_type)
    ids, mask = batch(own, TEXTS)
    with torch.inference_mode():
        encoded = own(ids, mask, all_layers=True)
        assert own(ids, mask).layers is None
    assert encoded.layers is not None
    assert len(encoded.layers) == own.shape.num_layers + 1 == 3
    assert {layer.shape for layer in encoded.layers} == {(*ids.shape, own.shape.hidden_size)}
    assert not torch.equal(encoded.layers[0], encoded.layers[1])


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_type_of_encoder_trains_and_survives_saving(tmp_path: Path, model_type: str) -> None:
    write_records(tmp_path / "train.jsonl", sentences(8, 1))
    write_records(tmp_path / "valid.jsonl", sentences(4, 2))
    result = train(
        config(
            tmp_path, model_name=str(encoder_folder(model_type)), batch_size=8, max_length=LIMIT,
            tasks={
                "intent": {"kind": "classification"}, "ner": {"kind": "tagging", "reads": "mix"}
            },
        )
    )  # fmt: skip
    before = load_file(encoder_folder(model_type) / "model.safetensors")
    after = load_file(result.best / "model.safetensors")
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > len(before) // 2
    checkpoint = result.save_dir / "mtl_epoch1.pt"
    texts = [*TEXTS, " ".join(["john"] * 200)]
    for source in (result.best, checkpoint):
        predictor = load_model(source, Runtime(threads=1)).predictor
        assert predictor.max_length == LIMIT
        found = predictor.predict(texts, embed=True)
        assert found[3].windows > 1
        if source == result.best:
            expected = found
        else:
            for one, other in zip(expected, found, strict=True):
                assert one.results == other.results
                np.testing.assert_array_equal(one.embedding, other.embedding)
    stored = load_checkpoint(checkpoint).model
    for name, tensor in after.items():
        assert torch.equal(stored[f"encoder.backbone.{name}"], tensor)


def test_pooling_reduces_tokens_and_leaves_padding_out() -> None:
    tokens = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [100.0, 100.0]], [[2.0, 2.0]] * 3])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(tokens, mask, "cls").tolist() == [[1.0, -5.0], [2.0, 2.0]]
    assert pool(tokens, mask, "mean").tolist() == [[2.0, -6.0], [2.0, 2.0]]
    assert pool(tokens, mask, "max").tolist() == [[3.0, -5.0], [2.0, 2.0]]
    assert pool(tokens.bfloat16(), mask, "mean").dtype == torch.float32


@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_have_length_one_if_the_encoder_normalises(normalize: bool) -> None:
    own = Encoder(encoder().backbone, PoolingSpec("mean", normalize), encoder().files)
    vectors = torch.tensor([[3.0, 4.0]])
    assert own.embed(vectors).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] * normalize + [
        [3.0, 4.0]
    ] * (not normalize)


def test_an_encoder_is_rebuilt_from_its_configuration() -> None:
    own = encoder()
    again = Encoder.from_config(
        own.config, own.pooling, own.files, own.backbone.state_dict(), "best"
    )
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in own.state_dict().items()
    }
    assert json.loads(json.dumps(own.config)) == own.config
    assert again.config == own.config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder_folder(), tmp_path / "encoder"))


def load(folder: Path) -> Encoder:
    return Encoder.from_source(find_encoder(str(folder)))


def test_weights_that_lack_a_parameter_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    message = r"weights lack encoder\.layer\.1\.output\.dense\.weight; expected all parameters"
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_missing_pooler_and_a_foreign_head_are_accepted(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    kept["cls.predictions.bias"] = torch.zeros(3)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert load(folder).shape.hidden_size == 32


@pytest.mark.parametrize("way", ["shape", "cut", "text", "other"])
def test_weights_that_do_not_fit_or_are_damaged_are_refused(folder: Path, way: str) -> None:
    file = folder / "model.safetensors"
    if way == "shape":
        state = load_file(file)
        state["embeddings.word_embeddings.weight"] = torch.zeros(3, 3)
        save_file(state, file, {"format": "pt"})
    elif way == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif way == "text":
        file.write_text("no weights at all")
    else:
        save_file({"x": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot be loaded|weights lack|asks for 29,"):
        load(folder)


@pytest.mark.parametrize("model_type", ["no-such-kind", None])
def test_a_configuration_that_transformers_does_not_know_is_refused(
    folder: Path, model_type: str | None
) -> None:
    values = {**encoder().config, "model_type": model_type}
    with pytest.raises(ModelError, match="expected an encoder of text"):
        Encoder.from_config(values, PoolingSpec(), {}, {}, "best")
    if model_type:
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match="expected an encoder of text"):
            load(folder)


def test_a_model_that_is_not_an_encoder_is_refused() -> None:
    values = {
        "model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2,
        "vocab_size": 9, "decoder_start_token_id": 0,
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"the model is a T5Model.*an encoder such as BERT"):
        Encoder.from_config(values, PoolingSpec(), {}, {}, "best")
