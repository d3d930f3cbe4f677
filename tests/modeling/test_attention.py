"""Attention with dropout equals torch's for any mask and drops the requested share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from manyheads.modeling import Encoder, find_encoder
from manyheads.modeling.cpu.attention import NAME, attention
from tiny import tiny_encoder_folder

# So small that no weight is dropped, but not 0, so that torch's own attention does not run.
ALMOST_NONE = 1e-9


def layer(*, causal: bool = False, groups: int = 1) -> nn.Module:
    """The attributes of an encoder's attention layer that matter here."""
    module = nn.Module()
    module.is_causal, module.num_key_value_groups = causal, groups
    return module


def vectors(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(3)]


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 6), st.integers(1, 4)),
    kind=st.sampled_from(["none", "keys", "pairs", "float"]),
    seed=st.integers(0, 2**31),
)
def test_attention_and_its_gradients_equal_torchs(
    shape: tuple[int, int, int, int], kind: str, seed: int
) -> None:
    query, key, value = vectors(shape, seed)
    batch, heads, tokens, _ = shape
    mask: Tensor | None = None
    if kind == "keys":
        mask = torch.rand(batch, 1, 1, tokens) < 0.7
        mask[..., 0] = True
        mask = mask.expand(batch, 1, tokens, tokens)
    elif kind == "pairs":
        mask = (torch.rand(batch, heads, tokens, tokens) < 0.7) | torch.eye(tokens).bool()
    elif kind == "float":
        mask = torch.randn(1, heads, tokens, tokens, dtype=torch.float64)
    ours, _ = attention(layer(), query, key, value, mask, dropout=ALMOST_NONE, scaling=0.7)
    theirs = functional.scaled_dot_product_attention(query, key, value, mask, scale=0.7)
    theirs = theirs.transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    weight = torch.randn_like(theirs)
    mine = torch.autograd.grad((ours * weight).sum(), (query, key, value))
    wanted = torch.autograd.grad((theirs * weight).sum(), (query, key, value))
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_requested_share_of_weights_is_dropped() -> None:
    # All scores are equal, so each answer is the mean of the values that were not dropped.
    torch.manual_seed(1)
    tokens, p = 64, 0.25
    zeros, ones = torch.zeros(8, 4, tokens, 2), torch.ones(8, 4, tokens, 2)
    output, _ = attention(layer(), zeros, zeros, ones, None, dropout=p)
    assert output.mean().item() == pytest.approx(1.0, rel=1e-2)
    kept_each = output[..., 0] * (1 - p) * tokens
    assert kept_each.std().item() == pytest.approx((tokens * p * (1 - p)) ** 0.5, rel=0.1)


def test_a_causal_layer_without_a_mask_sees_no_later_token() -> None:
    query, key, value = vectors((2, 2, 5, 3), 1)
    ours, _ = attention(layer(causal=True), query, key, value, None, dropout=ALMOST_NONE)
    theirs = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_heads_may_share_their_keys_and_values() -> None:
    query = vectors((2, 4, 5, 3), 1)[0]
    _, key, value = vectors((2, 2, 5, 3), 2)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    ours, _ = attention(layer(groups=2), query, key, value, mask, dropout=ALMOST_NONE)
    key, value = (shared.repeat_interleave(2, dim=1) for shared in (key, value))
    theirs = functional.scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "mpnet", "modernbert"])
def test_an_encoder_trains_with_it_and_its_configuration_does_not_mention_it(
    model_type: str, tmp_path: Path
) -> None:
    folder = tiny_encoder_folder(tmp_path, model_type=model_type)
    encoder = Encoder.from_source(find_encoder(str(folder), "auto"))
    assert NAME not in str(encoder.config)
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    encoder.train()
    torch.manual_seed(0)
    encoder(ids, mask).sentence.sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
