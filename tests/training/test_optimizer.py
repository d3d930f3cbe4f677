"""Learning rates, weight decay and clipping."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from manyheads.training.optimizer import AdamW, clip, parameter_groups, rate_factor, set_rates
from tiny_models import make_model
from training_setup import config, log_lines, run


def test_encoder_and_heads_have_their_own_rates_and_vectors_no_decay(tmp_path: Path) -> None:
    model = make_model()
    frozen = model.get_parameter("encoder.backbone.embeddings.position_embeddings.weight")
    frozen.requires_grad_(False)
    settings = config(tmp_path, learning_rate=1e-5, head_learning_rate=2e-3, weight_decay=0.02)
    groups = parameter_groups(model, settings)
    assert {(g["peak_lr"], g["weight_decay"]) for g in groups} == {
        (1e-5, 0.02), (1e-5, 0.0), (2e-3, 0.02), (2e-3, 0.0),
    }  # fmt: skip
    named = dict(model.named_parameters())
    seen = [name for group in groups for name in group["names"]]
    assert sorted(seen) == sorted(name for name, p in named.items() if p.requires_grad)
    for group in groups:
        assert group["lr"] == group["peak_lr"]
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert parameter is named[name]
            assert group["peak_lr"] == (1e-5 if name.startswith("encoder.") else 2e-3)
            decays = not name.endswith("bias") and "LayerNorm" not in name and parameter.ndim > 1
            assert (group["weight_decay"] > 0) == decays, name


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("constant", [0.5, 1.0, *[1.0] * 8]),
        (
            "cosine",
            [0.5, 1.0, *(0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8))],
        ),
    ],
)
def test_rates_rise_over_the_warm_up_and_then_follow_the_schedule(
    schedule: str, expected: list[float]
) -> None:
    assert [rate_factor(i, 10, 0.2, schedule) for i in range(10)] == pytest.approx(expected)


@given(
    st.integers(1, 500),
    st.floats(0, 1),
    st.sampled_from(["linear", "cosine", "constant"]),
)
def test_rates_rise_once_and_then_never_again(total: int, warmup: float, schedule: str) -> None:
    factors = [rate_factor(step, total, warmup, schedule) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    if warmup == 0:
        assert factors[0] == 1


def test_every_group_follows_the_factor(tmp_path: Path) -> None:
    settings = config(tmp_path, learning_rate=1e-5, head_learning_rate=2e-3)
    optimizer = torch.optim.AdamW(parameter_groups(make_model(), settings))
    set_rates(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25e-5, 0.5e-3}
    set_rates(optimizer, 1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-5, 2e-3}


def test_a_run_follows_the_schedule_over_all_its_steps(tmp_path: Path) -> None:
    result, _ = run(tmp_path, num_epochs=2, warmup_ratio=0.25, schedule="joint")
    steps = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    assert len(steps) == 8
    for line in steps:
        factor = rate_factor(line["step"] - 1, 8, 0.25, "linear")
        assert set(line["learning_rate"]) == {1e-3 * factor, 1e-2 * factor}


@pytest.mark.parametrize(
    ("limit", "weight", "after"),
    [
        (1.0, 1.0, 1.0), (10.0, 1.0, 5.0), (0.0, 1.0, 5.0),
        (1.0, 3.0, 3.0), (1.0, torch.tensor(0.5), 0.5), (1.0, 10.0, 5.0), (0.0, 0.5, 5.0),
    ],
)  # fmt: skip
def test_gradients_are_scaled_down_to_a_norm_and_never_up(
    limit: float, weight: float | torch.Tensor, after: float
) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([3.0, 0.0])
    parameters[1].grad = torch.tensor([0.0, 4.0])
    assert float(clip(parameters, limit, weight)) == pytest.approx(5.0)
    norm = sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None) ** 0.5
    assert norm == pytest.approx(after, rel=1e-5)
    assert parameters[2].grad is None


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("max_norm", [0.0, 0.5])
def test_sparse_gradients_update_a_table_like_dense_ones(max_norm: float, decay: float) -> None:
    torch.manual_seed(0)
    start = torch.randn(50, 4)
    tables = [torch.nn.Embedding.from_pretrained(start.clone(), freeze=False) for _ in range(2)]
    tables[1].sparse = True
    group = {"lr": 1e-2, "weight_decay": decay}
    dense = torch.optim.AdamW([{"params": [tables[0].weight], **group}], fused=True)
    sparse = AdamW([{"params": [tables[1].weight], **group}])
    for _ in range(30):
        # Distinct rows, since sums of the same row may be rounded in another order.
        ids = torch.randperm(50)[:7]
        factors = torch.randn(7, 4)
        norms = []
        for table, optimizer in zip(tables, (dense, sparse), strict=True):
            (table(ids) * factors).sum().backward()
            norms.append(clip([table.weight], max_norm))
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(*norms)
    states = [
        (t.weight, o.state[t.weight]["exp_avg"], o.state[t.weight]["exp_avg_sq"])
        for t, o in zip(tables, (dense, sparse), strict=True)
    ]
    for one, other in zip(*states, strict=True):
        # Bit for bit, unless clipping divides by a norm that was summed in another order.
        tolerance = 0.0 if max_norm == 0.0 else 1e-5
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_a_row_that_occurs_twice_counts_with_the_sum_of_its_gradients() -> None:
    table = torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    norm = clip([table.weight], 1.0)
    assert norm.item() == pytest.approx((2 * 2.0**2 + 2 * 1.0**2) ** 0.5)
    gradient = table.weight.grad
    assert gradient is not None
    assert gradient.to_dense().norm().item() == pytest.approx(1.0, rel=1e-5)
