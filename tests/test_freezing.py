"""What is frozen stays as it is to the bit, and everything else is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from manyheads.checkpoint import epoch_path, load_checkpoint
from manyheads.config import Config
from manyheads.encoder import Encoder
from manyheads.encoder_source import find_encoder
from manyheads.errors import ConfigError, ModelError
from manyheads.freezing import Freezing, encoder_groups, frozen_depth
from manyheads.model import MultiTaskModel
from manyheads.training import train
from manyheads.training_run import prepare_run
from test_model import make_inputs, make_model
from tiny import FAMILIES
from training_setup import Spy, config, encoder_folder

LAYERS = 2
REGIMES = {"none": 0, "embeddings": 1, "layers:1": 2, "encoder": 3}


def encoder(model_type: str = "bert") -> Encoder:
    return Encoder.from_source(find_encoder(str(encoder_folder(model_type))))


def group_by_name(name: str) -> int | None:
    """The group of a parameter of a model of two layers; None for heads and poolers."""
    if not name.startswith("encoder.backbone.") or ".pooler." in name:
        return None
    if ".0." in name:
        return 1
    return 2 if ".1." in name or "final_norm" in name else 0


def before_and_after(settings: Config) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Every parameter before and after training, and the optimiser's state after it."""
    run = prepare_run(settings, resume=False, overwrite=True, say=lambda text: None)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    train(settings)
    contents = load_checkpoint(epoch_path(settings.save_dir, settings.num_epochs))
    return before, dict(contents.model), contents.training["optimizer"]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def with_state(optimizer: Any) -> set[str]:
    """The names of the parameters that the optimiser remembers something of."""
    names = [name for group in optimizer["param_groups"] for name in group["names"]]
    return {names[number] for number, state in optimizer["state"].items() if state}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_parameter_of_an_encoder_is_in_the_group_of_its_layer(model_type: str) -> None:
    made = encoder(model_type)
    expected = {
        name: group
        for name, _ in made.named_parameters()
        if (group := group_by_name(f"encoder.{name}")) is not None
    }
    assert encoder_groups(made) == expected
    assert set(expected.values()) == {0, 1, 2}


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
@pytest.mark.parametrize(("freeze", "depth"), REGIMES.items())
def test_what_is_frozen_stays_to_the_bit_and_the_rest_is_trained(
    tmp_path: Path, model_type: str, freeze: str, depth: int
) -> None:
    settings = config(
        tmp_path, freeze=freeze, weight_decay=0.1, model_name=str(encoder_folder(model_type))
    )
    before, after, optimizer = before_and_after(settings)
    groups = {name: group_by_name(name) for name in before if ".pooler." not in name}
    trained = {name for name, group in groups.items() if group is None or group >= depth}
    assert changed(before, after) == trained
    assert with_state(optimizer) == trained
    assert {name for group in optimizer["param_groups"] for name in group["names"]} == trained


@pytest.mark.parametrize("freeze", ["embeddings", "layers:1"])
def test_frozen_parts_go_with_reduced_precision_and_held_embeddings(
    tmp_path: Path, freeze: str
) -> None:
    settings = config(
        tmp_path, freeze=freeze, precision="bf16", keep_embeddings=2, gradient_accumulation=2
    )
    before, after, _ = before_and_after(settings)
    frozen = {name for name in before if (group_by_name(name) or 0) < REGIMES[freeze]}
    frozen = {name for name in frozen if name.startswith("encoder.")}
    assert changed(before, after) == before.keys() - frozen


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(("freeze", "depth"), REGIMES.items())
def test_dropout_is_off_and_no_gradient_is_kept_in_the_frozen_part_alone(
    model_type: str, freeze: str, depth: int
) -> None:
    model = MultiTaskModel(encoder(model_type), {})
    Freezing(model, Config(freeze=freeze)).train_mode()
    ids = torch.arange(20, 36).reshape(2, 8)
    first, second = (
        model.encoder(ids, torch.ones_like(ids), all_layers=True).layers for _ in range(2)
    )
    assert first is not None
    assert second is not None
    # ModernBERT, as published, has no dropout.
    drops = model_type != "modernbert"
    for group, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.requires_grad == (group >= depth), group
        assert torch.equal(one, other) == (group < depth or not drops), group


def test_heads_learn_under_a_frozen_encoder_as_ever() -> None:
    model = make_model()
    Freezing(model, Config(freeze="encoder")).train_mode()
    assert all(head.training for head in model.heads.values())
    assert not any(module.training for module in model.encoder.modules())
    assert all(p.requires_grad for p in model.heads.parameters())
    Freezing(model, Config()).train_mode()
    assert all(module.training for module in model.encoder.modules())
    outputs = model(make_inputs(), ["intent"])
    assert outputs["embedding"].requires_grad


def test_the_user_is_told_how_much_is_trained(tmp_path: Path) -> None:
    spy = Spy()
    train(config(tmp_path, freeze="encoder", tasks={"a": {"kind": "classification",
          "field": "label"}}), reporter=spy)  # fmt: skip
    total = 2 * 32 + 2 + sum(p.numel() for p in encoder().parameters())
    assert spy.said(f"Training 66 of {total:,} parameters (0.")


def test_more_layers_than_there_are_cannot_be_frozen(tmp_path: Path) -> None:
    assert [frozen_depth(Config(freeze=f"layers:{k}"), 6) for k in (1, 5)] == [2, 6]
    with pytest.raises(ConfigError, match=r"`freeze` is layers:2, and the encoder has 2 layers; "
                       r"expected at most layers:1\. For all layers write"):  # fmt: skip
        train(config(tmp_path, freeze="layers:2"))


def test_layers_that_share_their_parameters_are_frozen_together_or_not_at_all() -> None:
    from transformers import AlbertConfig, AlbertModel

    shape = AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_size=16, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    bert = encoder()
    model = MultiTaskModel(Encoder(AlbertModel(shape), bert.pooling, bert.files), {})
    Freezing(model, Config(freeze="encoder"))
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ModelError, match=r"AlbertModel does not have 3 layers with .*Use `freeze"):
        Freezing(model, Config(freeze="embeddings"))
