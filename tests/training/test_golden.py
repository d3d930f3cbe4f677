"""No speed-up changes results silently: golden loss curves, and plain stand-ins for what is fast.

The curves guard float32 across machines, whose sums differ in the seventh digit. On one machine
the fast parts have to agree with plain ones, to the bit where both add up in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equal_runs import weights
from golden import RUNS, Curve, curve, recorded
from manyheads.modeling import Encoder
from manyheads.modeling.cpu import attention, dropout
from manyheads.training import setup, step

FLOAT32 = 1e-5
"""The relative tolerance of a loss; other instruction sets differ by 2e-7."""

BF16 = 2e-3
"""The same for bf16 against the float32 curve; 5e-5 was observed."""


def values(steps: Curve) -> list[float]:
    return [loss for _, loss in steps]


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Curve]:
    """Train each run once for all tests."""
    return cache(lambda name: curve(tmp_path_factory.mktemp(name), name))


@pytest.mark.parametrize("name", RUNS)
def test_float32_follows_the_recorded_curve(name: str, fast: Callable[[str], Curve]) -> None:
    found, expected = fast(name), recorded(name)
    assert [task for task, _ in found] == [task for task, _ in expected]
    assert values(found) == pytest.approx(values(expected), rel=FLOAT32), (
        "training computes something else; if it is meant to, record anew: see CONTRIBUTING.md"
    )


@pytest.mark.parametrize("name", RUNS)
def test_bf16_stays_close_to_the_recorded_curve_and_differs_from_float32(
    name: str, tmp_path: Path
) -> None:
    found, expected = curve(tmp_path, name, precision="bf16"), recorded(name)
    assert values(found) == pytest.approx(values(expected), rel=BF16)
    assert values(found) != pytest.approx(values(expected), rel=1e-6)


def plain_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """The same masks, one number at a time: a 16-bit part of a random word is compared."""
    import numpy as np

    words = np.random.SFC64(int(torch.randint(2**63 - 1, ())))
    dropped, kept = round(p * 2**16), []
    for _ in range(-(-shape.numel() // 4)):
        word = int(words.random_raw())
        for part in range(4):
            level = (word >> (16 * part)) & 0xFFFF
            # Read as a signed number: the upper half of the levels comes first.
            kept.append((level ^ 0x8000) >= dropped)
    mask = torch.tensor(kept[: shape.numel()]).view(shape)
    return mask.to(dtype) * torch.tensor(2**16 / (2**16 - dropped), dtype=dtype)


class PlainAttention:
    """Softmax, dropout, product; the backward pass is torch's."""

    @staticmethod
    def apply(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, p: float
    ) -> Tensor:
        scores = query @ key.transpose(2, 3) * scale
        if bias is not None:
            scores = scores + bias.permute(1, 2, 3, 0)
        weights = scores.softmax(3)
        keys_first = weights.permute(3, 0, 1, 2).shape
        mask = attention.keep_mask(keys_first, p, weights.dtype).permute(1, 2, 3, 0)
        return weights * mask @ value


class PlainAdamW(torch.optim.Optimizer):
    """Loshchilov and Hutter (2019), algorithm 2, for dense gradients."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"betas": (0.9, 0.999), "eps": 1e-8})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.to_dense()
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "first": torch.zeros_like(parameter)}
                    state["second"] = torch.zeros_like(parameter)
                state["step"] += 1
                self._change(parameter.data, gradient, state, group)

    @staticmethod
    def _change(
        weights: Tensor, gradient: Tensor, state: dict[str, Any], group: Mapping[str, Any]
    ) -> None:
        one, two = group["betas"]
        state["first"] = one * state["first"] + (1 - one) * gradient
        state["second"] = two * state["second"] + (1 - two) * gradient**2
        first = state["first"] / (1 - one ** state["step"])
        second = state["second"] / (1 - two ** state["step"])
        weights -= group["lr"] * group["weight_decay"] * weights
        weights -= group["lr"] * first / (second.sqrt() + group["eps"])


def plain_clip(parameters: Iterable[Tensor], max_norm: float, weight: float | Tensor) -> Tensor:
    """One gradient after the other."""
    found = [p for p in parameters if p.grad is not None]
    for parameter in found:
        assert parameter.grad is not None
        parameter.grad = parameter.grad.to_dense()
    return nn.utils.clip_grad_norm_(found, max_norm * float(weight), foreach=False)


def plain_dropout(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dropout, "keep_mask", plain_mask)
    patch.setattr(attention, "keep_mask", plain_mask)


def plain_attention(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(attention, "_Attention", PlainAttention)


def dense_gradients(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Encoder, "use_sparse_gradients", lambda encoder: None)


def plain_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "clip", plain_clip)


def plain_adamw(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(setup, "AdamW", PlainAdamW)


def all_plain(patch: pytest.MonkeyPatch) -> None:
    for one in (plain_dropout, plain_attention, dense_gradients, plain_clipping, plain_adamw):
        one(patch)


@pytest.mark.parametrize(
    ("stand_in", "tolerance"),
    [
        (plain_dropout, 0.0),
        # The others sum in another order.
        (dense_gradients, 1e-6),
        (plain_attention, 1e-6),
        (plain_clipping, 1e-6),
        (plain_adamw, 1e-6),
        (all_plain, 1e-6),
    ],
)
@pytest.mark.parametrize("name", RUNS)
def test_plain_implementations_give_the_same_losses_as_fast_ones(
    name: str,
    stand_in: Callable[[pytest.MonkeyPatch], None],
    tolerance: float,
    fast: Callable[[str], Curve],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = fast(name)
    stand_in(monkeypatch)
    plain = curve(tmp_path, name)
    assert values(found) == pytest.approx(values(plain), rel=tolerance, abs=0.0)


def test_fast_implementations_give_the_same_weights_as_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for folder in ("fast", "plain"):
        curve(tmp_path / folder, "joint")
        ends.append(weights(tmp_path / folder / "saved", 3))
        all_plain(monkeypatch)
    for weight in ends[0]:
        # A gradient that is only rounding (a key's bias has no effect) has a random sign.
        if not weight.endswith("key.bias"):
            torch.testing.assert_close(ends[0][weight], ends[1][weight], rtol=1e-4, atol=2e-6)
