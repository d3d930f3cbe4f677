"""Dropout drops the requested share, rescales the rest, and depends on torch's seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from manyheads.modeling.cpu.dropout import Dropout, dropout, replace_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_requested_share_is_dropped_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    dropped = dropout(torch.ones(1_000, 1_000, dtype=dtype), p)
    assert dropped.dtype == dtype
    assert (dropped == 0).double().mean().item() == pytest.approx(p, abs=2e-3)
    assert dropped.double().mean().item() == pytest.approx(1.0, rel=1e-2)
    kept = dropped[dropped != 0].unique()
    assert len(kept) == 1
    assert kept.item() == pytest.approx(1 / (1 - p), rel=5e-3)


def test_a_seed_repeats_the_masks_and_the_next_call_draws_others() -> None:
    ones = torch.ones(7, 13)
    torch.manual_seed(3)
    first, second = dropout(ones, 0.5), dropout(ones, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(ones, 0.5), first)
    assert not torch.equal(first, second)


def test_neighbouring_elements_are_dropped_independently() -> None:
    torch.manual_seed(5)
    kept = (dropout(torch.ones(100_000, 8), 0.5) != 0).float()
    correlations = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlations.abs().max() < 0.02


def test_the_gradient_has_the_mask_of_the_values() -> None:
    torch.manual_seed(2)
    values = torch.randn(50, 3, requires_grad=True)
    dropped = dropout(values, 0.3)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values, dropped)


def test_nothing_is_dropped_outside_training_or_with_a_share_of_zero() -> None:
    values = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(dropout(values, 0.0), values)


def test_every_dropout_of_a_model_is_replaced_and_keeps_its_share() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2)), nn.Dropout(0.3))
    replace_dropout(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [type(module) for module in found] == [Dropout, Dropout]
    assert [module.p for module in found] == [0.2, 0.3]
