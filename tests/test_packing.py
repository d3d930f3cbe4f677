"""Batches without padding: sentences in one row give what they give in a padded batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import Function
from transformers import AutoConfig, AutoModel

from manyheads.checkpoint import epoch_path, load_checkpoint
from manyheads.devices import Compute
from manyheads.encoder import Encoder
from manyheads.encoder_source import PoolingSpec
from manyheads.packing import Packing
from manyheads.schedules import plan_epoch
from manyheads.training import train
from manyheads.training_run import Run, prepare_run
from manyheads.training_step import forward_backward
from training_setup import Killed, Spy, config, encoder_folder, run

KINDS = ["bert", "distilbert", "roberta"]
TASKS = {
    "intent": {"kind": "classification", "field": "label"},
    "slots": {
        "kind": "tagging",
        "field": "ner",
        "decoder": "crf",
        "neck": "bilstm",
        "reads": "mix",
    },
}
CPU = Compute(torch.device("cpu"), "float32", 1, "as asked for")
SAID = "Batches are packed"
# Of torch's own reference for devices without a kernel, such as the processor.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor be a device where packing is worth trying."""
    monkeypatch.setattr(Compute, "packs", True)


def mask_of(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()


def encoder_of(kind: str, pooling: str = "mean") -> Encoder:
    shape = AutoConfig.for_model(
        kind, vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, embedding_size=16, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone = AutoModel.from_config(shape, dtype=torch.float32)
    return Encoder(backbone, PoolingSpec(pooling, normalize=True), {}).eval()


def batch(encoder: Encoder, lengths: list[int]) -> tuple[Tensor, Tensor]:
    mask = mask_of(lengths)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, mask.shape, generator=draw)
    return ids.masked_fill(mask == 0, encoder.pad_id), mask


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_what_is_packed_is_unpacked_in_its_place(lengths: list[int]) -> None:
    mask = mask_of(lengths)
    packing = Packing.of(mask)
    values = torch.arange(1, mask.numel() + 1).view(mask.shape)
    packed = packing.pack(values)
    assert packed.tolist() == [values[mask == 1].tolist()]
    assert packing.positions.tolist() == [i for n in lengths for i in range(n)]
    assert packing.starts.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    assert (packing.shortest, packing.longest) == (min(lengths), max(lengths))
    unpacked = packing.unpack(packed.unsqueeze(2), mask.shape[1])
    assert torch.equal(unpacked.squeeze(2), values * mask)


@pytest.mark.parametrize("kind", [*KINDS, "albert", "camembert", "electra", "xlm-roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_an_encoder_gives_the_same_without_padding(kind: str, pooling: str) -> None:
    encoder = encoder_of(kind, pooling)
    assert encoder.try_packing(CPU)
    ids, mask = batch(encoder, [5, 1, 9, 3])
    found = []
    for packing in (None, Packing.of(mask)):
        encoded = encoder(ids, mask, all_layers=True, packing=packing)
        encoder.zero_grad()
        (encoded.sentence.sum() + encoded.layers[1][mask == 1].square().sum()).backward()
        gradients = [p.grad.to_dense() for p in encoder.parameters() if p.grad is not None]
        found.append((encoded, gradients))
    (padded, one), (packed, other) = found
    torch.testing.assert_close(packed.sentence, padded.sentence, atol=1e-6, rtol=1e-5)
    assert packed.tokens.shape == padded.tokens.shape
    assert len(packed.layers) == len(padded.layers)
    pairs = zip((*packed.layers, packed.tokens), (*padded.layers, padded.tokens), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine[mask == 1], theirs[mask == 1], atol=1e-6, rtol=1e-5)
        assert not mine[mask == 0].any()
    torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-4)


def test_attention_weights_are_dropped_in_the_asked_share() -> None:
    packing = Packing.of(mask_of([40, 7, 60]))
    query, key = torch.zeros(2, 1, 2, 107, 4)
    value = torch.ones(1, 2, 107, 4)

    def attend(seed: int, dropout: float) -> Tensor:
        torch.manual_seed(seed)
        return packing.attend(query, key, value, dropout, None)

    assert torch.allclose(attend(1, 0.0), torch.ones(1, 107, 2, 4))
    assert torch.equal(attend(1, 0.3), attend(1, 0.3))
    assert not torch.equal(attend(1, 0.3), attend(2, 0.3))
    # Of n weights of 1/n each, those that are kept count 1/0.7 times.
    kept = attend(1, 0.3)[0, :40] * 40 * 0.7
    torch.testing.assert_close(kept, kept.round())
    assert 0.6 < float(kept.mean()) / 40 < 0.8


def prepared(folder: Path, **changes: Any) -> Run:
    made = config(folder, **changes)
    Path(made.save_dir).mkdir(parents=True, exist_ok=True)
    return prepare_run(made, resume=False, overwrite=True, say=lambda text: None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_has_the_losses_and_gradients_of_the_padded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, precision: str
) -> None:
    found = []
    for packs in (False, True):
        monkeypatch.setattr(Compute, "packs", packs)
        one = prepared(
            tmp_path, tasks=TASKS, schedule="joint", model_name=str(encoder_folder(kind)),
            precision=precision, keep_embeddings=1,
        )  # fmt: skip
        assert one.model.encoder.packs is packs
        for module in one.model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0
        losses = forward_backward(one, plan_epoch(one.data.sources, seed=1, epoch=0)[0])
        gradients = torch.cat(
            [p.grad.to_dense().flatten() for p in one.model.parameters() if p.grad is not None]
        )
        found.append((losses, gradients))
    (losses, gradients), (packed_losses, packed_gradients) = found
    near = 1e-4 if precision == "float32" else 0.03
    for task, loss in losses.items():
        torch.testing.assert_close(packed_losses[task], loss, rtol=near, atol=1e-5)
    assert (packed_gradients - gradients).norm() < near * gradients.norm()


def test_a_run_says_that_it_packs_and_resumes_to_the_bit(tmp_path: Path, packs: None) -> None:
    changes: dict[str, Any] = {
        "tasks": TASKS, "schedule": "joint", "keep_embeddings": 1, "num_epochs": 2,
        "checkpoint_every": 3,
    }  # fmt: skip
    whole, spy = run(tmp_path / "whole", **changes)
    assert spy.said(SAID)
    intents = [loss for task, loss in spy.losses if task == "intent"]
    assert intents[-1] < intents[0]

    def kill(step: int) -> None:
        if step == 6:
            raise Killed

    parts = config(tmp_path / "parts", **changes)
    with pytest.raises(Killed):
        train(parts, reporter=Spy(kill))
    train(parts, resume=True, reporter=Spy())
    one, other = (
        load_checkpoint(epoch_path(Path(d), 2)).model for d in (whole.save_dir, parts.save_dir)
    )
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


@pytest.mark.parametrize("kind", ["mpnet", "modernbert"])
def test_an_encoder_of_another_kind_stays_padded(tmp_path: Path, packs: None, kind: str) -> None:
    assert not encoder_of(kind).try_packing(CPU)
    _, spy = run(tmp_path, tasks=TASKS, schedule="joint", model_name=str(encoder_folder(kind)))
    assert not spy.said(SAID)


def fails(*_: Any) -> Tensor:
    raise RuntimeError("No viable backend for scaled_dot_product_attention was found.")


class WithoutGradient(Function):
    """Attention on a device that lacks the kernel of the backward pass."""

    @staticmethod
    def forward(ctx: Any, attended: Tensor) -> Tensor:
        return attended.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return fails()


RIGHT: Callable[..., Tensor] = Packing.attend


@pytest.mark.parametrize(
    "attend",
    [
        fails,
        lambda *args: RIGHT(*args).roll(1, dims=1),
        lambda *args: RIGHT(*args) * (float("nan") if args[-2] else 1.0),
        lambda *args: WithoutGradient.apply(RIGHT(*args)),
    ],
    ids=["fails", "is wrong", "is no number with dropout", "has no gradient"],
)
def test_where_a_device_cannot_do_it_batches_stay_padded(
    tmp_path: Path, packs: None, monkeypatch: pytest.MonkeyPatch, attend: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(Packing, "attend", attend)
    _, spy = run(tmp_path, tasks=TASKS, schedule="joint")
    assert not spy.said(SAID)
