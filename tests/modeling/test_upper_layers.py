"""Upper layers that run alone are bit-identical to those in the whole encoder."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from manyheads.errors import ModelError
from manyheads.modeling import Encoder, UpperLayers, find_encoder
from manyheads.modeling.cpu.attention import NAME
from manyheads.modeling.cpu.dropout import Dropout
from tiny import FAMILIES
from training_setup import encoder_folder

LAYERS = 4


def load(model_type: str) -> Encoder:
    folder = encoder_folder(model_type, layers=LAYERS)
    return Encoder.from_source(find_encoder(str(folder))).eval()


@pytest.fixture(params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return load(request.param)


@pytest.fixture
def bert() -> Encoder:
    return load("bert")


def batch(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Three sentences, the longest longer than ModernBERT's window of local attention."""
    mask = (torch.arange(40) < torch.tensor([[40], [7], [23]])).long()
    ids = torch.randint(10, 80, mask.shape, generator=torch.Generator().manual_seed(1))
    return torch.where(mask.bool(), ids, encoder.pad_id), mask


@torch.inference_mode()
def test_from_every_layer_on_the_output_equals_the_whole_encoders(encoder: Encoder) -> None:
    ids, mask = batch(encoder)
    whole = encoder(ids, mask, all_layers=True)
    assert whole.layers is not None
    for first in range(LAYERS):
        upper = UpperLayers(encoder.backbone, first)
        alone, none = upper(whole.layers[first], mask)
        last, states = upper(whole.layers[first], mask, all_layers=True)
        assert none is None
        assert torch.equal(alone, whole.tokens), first
        assert torch.equal(last, whole.tokens), first
        assert len(states) == LAYERS - first + 1
        for mine, theirs in zip(states, whole.layers[first:], strict=True):
            assert torch.equal(mine, theirs), first
    # And the encoder itself is unchanged.
    again = encoder(ids, mask, all_layers=True)
    assert again.layers is not None
    assert len(again.layers) == LAYERS + 1
    assert torch.equal(again.tokens, whole.tokens)


def test_a_copy_is_trained_separately_and_is_equal_until_then(encoder: Encoder) -> None:
    ids, mask = batch(encoder)
    upper = copy.deepcopy(UpperLayers(encoder.backbone, 2))
    with torch.no_grad():
        whole = encoder(ids, mask, all_layers=True)
    assert whole.layers is not None
    last, _ = upper(whole.layers[2], mask)
    assert torch.equal(last, whole.tokens)
    own = {id(parameter) for parameter in encoder.parameters()}
    assert not any(id(parameter) in own for parameter in upper.parameters())
    last.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in upper.parameters() if p.ndim > 1)
    assert not any(parameter.grad is not None for parameter in encoder.parameters())
    with torch.no_grad():
        for parameter in upper.parameters():
            parameter += 1.0
        assert torch.equal(encoder(ids, mask).tokens, whole.tokens)


def test_they_are_the_encoders_own_layers_with_its_own_dropout(encoder: Encoder) -> None:
    upper = UpperLayers(encoder.backbone, 3)
    own = {id(parameter) for parameter in encoder.parameters()}
    assert all(id(parameter) in own for parameter in upper.parameters())
    assert len(list(upper.parameters())) < len(own) / 2
    copied = copy.deepcopy(upper)
    attention = encoder.backbone.config._attn_implementation
    assert attention == NAME or encoder.backbone.config.model_type == "mpnet"
    for each in (upper, copied):
        assert not any(type(module) is nn.Dropout for module in each.modules())
        assert each.shell.config._attn_implementation == attention
    ids, mask = batch(encoder)
    with torch.no_grad():
        hidden = encoder(ids, mask, all_layers=True).layers[3]  # type: ignore[index]
    if any(isinstance(module, Dropout) and module.p for module in upper.modules()):
        torch.manual_seed(3)
        trained = upper.train()(hidden, mask)[0]
        assert not torch.equal(trained, upper.eval()(hidden, mask)[0])
        torch.manual_seed(3)
        assert torch.equal(trained, copied.train()(hidden, mask)[0])


def test_building_them_changes_no_modules_mode_and_draws_no_random_number(bert: Encoder) -> None:
    bert.train()
    bert.backbone.encoder.layer[1].eval()
    modes = [module.training for module in bert.modules()]
    torch.manual_seed(0)
    before = torch.get_rng_state()
    UpperLayers(bert.backbone, 1)
    assert [module.training for module in bert.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


def test_they_can_be_built_without_memory(bert: Encoder) -> None:
    from transformers import AutoModel

    with torch.device("meta"):
        backbone = AutoModel.from_config(bert.backbone.config)
        shapes = {n: p.shape for n, p in UpperLayers(backbone, 1).named_parameters()}
    real = UpperLayers(bert.backbone, 1)
    assert shapes == {name: parameter.shape for name, parameter in real.named_parameters()}


@pytest.mark.parametrize("first", [-1, LAYERS])
def test_a_layer_that_there_is_not_is_an_error(bert: Encoder, first: int) -> None:
    with pytest.raises(ModelError, match=rf"no layer {first} in an encoder of 4 layers"):
        UpperLayers(bert.backbone, first)


def test_an_encoder_whose_layers_are_not_alone_is_an_error() -> None:
    from transformers import AlbertConfig, AlbertModel

    shape = AlbertConfig(
        vocab_size=50, hidden_size=16, embedding_size=8, num_attention_heads=2,
        num_hidden_layers=3, intermediate_size=16,
    )  # fmt: skip
    with pytest.raises(ModelError, match="layers of a AlbertModel cannot be run alone"):
        UpperLayers(AlbertModel(shape), 1)
