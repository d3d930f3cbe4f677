"""Every listed type of encoder runs, and padding does not change what it returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from manyheads.config import TaskConfig, make_config
from manyheads.errors import ModelError
from manyheads.exporting import export_model
from manyheads.inference import Runtime, load_model
from manyheads.modeling import (
    Encoder,
    MultiTaskModel,
    find_encoder,
    make_head,
    model_contents,
    quiet_loading,
    save_model_folder,
)
from manyheads.modeling.pretrained import TEXT_MODELS
from manyheads.tasks import LabelSet
from tiny import tiny_byte_bpe

HIDDEN = 32
POSITIONS = 66

# What the configuration classes call the sizes; each class gets those that it knows.
SIZES: dict[str, Any] = {
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2,
    "hidden_size": HIDDEN, "dim": HIDDEN, "emb_dim": HIDDEN, "n_embd": HIDDEN, "d_model": HIDDEN,
    "num_hidden_layers": 2, "n_layers": 2, "n_layer": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_heads": 4, "n_head": 4, "num_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 64, "hidden_dim": 64, "d_inner": 64, "max_position_embeddings": POSITIONS,
    "n_positions": POSITIONS, "embedding_size": HIDDEN, "input_embedding_size": HIDDEN,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "ministral": {"head_dim": 8},
    "mobilebert": {"true_hidden_size": HIDDEN, "intra_bottleneck_size": HIDDEN},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip


def write_folder(folder: Path, model_type: str) -> Path:
    """Write an encoder of any type, with random weights, as transformers saves it."""
    from transformers import AutoConfig, AutoModel

    tokenizer = tiny_byte_bpe()
    own = OWN.get(model_type, {})
    known = AutoConfig.for_model(model_type)
    sizes = {name: size for name, size in SIZES.items() if name in known.to_dict()}
    # The tokenizers of some types add a token of their own.
    rows = tokenizer.get_vocab_size() + 1
    shape = AutoConfig.for_model(model_type, vocab_size=rows, **{**sizes, **own})
    with torch.random.fork_rng(devices=[]), quiet_loading():
        torch.manual_seed(0)
        AutoModel.from_config(shape).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens})
    )
    return folder


@pytest.mark.parametrize("model_type", sorted(TEXT_MODELS))
def test_padding_changes_no_output_of_a_listed_encoder(tmp_path: Path, model_type: str) -> None:
    folder = write_folder(tmp_path, model_type)
    own = Encoder.from_source(find_encoder(str(folder))).eval()
    ids = torch.arange(20, 29)[None]
    padded = torch.nn.functional.pad(ids, (0, 20), value=own.pad_id)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 20))
    with torch.inference_mode():
        alone = own(ids, torch.ones_like(ids), all_layers=True)
        beside = own(padded, mask)
    assert alone.tokens.shape == (1, 9, own.shape.hidden_size) == (1, 9, HIDDEN)
    assert alone.layers is not None
    assert [layer.shape for layer in alone.layers] == [(1, 9, HIDDEN)] * 3
    torch.testing.assert_close(beside.tokens[:, :9], alone.tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.sentence, alone.sentence, atol=1e-5, rtol=0)
    # RoBERTa's kind begins its positions at 2; XLNet has no limit.
    assert own.max_positions in (POSITIONS, POSITIONS - 2) or model_type == "xlnet"


@pytest.mark.parametrize("model_type", ["fnet", "yoso", "convbert", "nystromformer"])
def test_an_encoder_that_reads_padding_is_refused(tmp_path: Path, model_type: str) -> None:
    folder = write_folder(tmp_path, model_type)
    with pytest.raises(ModelError, match=rf"'{model_type}', whose output .* depends on the pad"):
        Encoder.from_source(find_encoder(str(folder)))


@pytest.mark.parametrize("model_type", ["fnet", "convbert", "nystromformer"])
def test_a_trained_model_whose_encoder_reads_padding_slightly_is_not_refused(
    tmp_path: Path, model_type: str
) -> None:
    source = find_encoder(str(write_folder(tmp_path, model_type)))
    given = (source.config, source.pooling, source.files, load_file(source.weights), "here")
    if model_type == "fnet":
        with pytest.raises(ModelError, match="depends on the pad"):
            Encoder.from_config(*given)
    else:
        assert Encoder.from_config(*given).reads_padding


def test_a_model_whose_encoder_reads_padding_is_warned_of_and_not_exported(tmp_path: Path) -> None:
    source = find_encoder(str(write_folder(tmp_path, "convbert")))
    state = load_file(source.weights)
    encoder = Encoder.from_config(source.config, source.pooling, source.files, state, "here")
    encoder.backbone.load_state_dict(state)
    task, labels = TaskConfig(kind="classification"), LabelSet(("a", "b"))
    model = MultiTaskModel(encoder, {"intent": make_head(task, labels, encoder.shape)})
    config = make_config({"tasks": {"intent": {"kind": "classification"}}})
    save_model_folder(tmp_path / "best", model_contents(model, config, 32, {}))
    said: list[str] = []
    load_model(tmp_path / "best", Runtime("torch", threads=1), warn=said.append)
    assert len(said) == 1
    assert "a convbert encoder, whose output for a text depends slightly on the padding" in said[0]
    with pytest.raises(ModelError, match=r"cannot be exported: its output .* depends on the pad"):
        export_model(tmp_path / "best", threads=1)


@pytest.mark.parametrize("model_type", ["opt", "canine", "nezha"])
def test_another_type_is_refused_by_its_name(tmp_path: Path, model_type: str) -> None:
    folder = write_folder(tmp_path, "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": model_type}))
    with pytest.raises(ModelError, match=rf"the model type is '{model_type}'.*expected an encoder"):
        Encoder.from_source(find_encoder(str(folder)))
