"""Frozen parameters stay bit-identical; all others are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from equal_runs import assert_resumes, stop_at
from manyheads.config import Config
from manyheads.errors import ConfigError, ModelError
from manyheads.modeling import (
    Encoder,
    Freezing,
    MultiTaskModel,
    encoder_groups,
    epoch_path,
    find_encoder,
    load_checkpoint,
)
from manyheads.modeling.freezing import frozen_depth
from manyheads.training import Run, forward_backward, train, update
from manyheads.training.data import Schedule, plan_epoch
from manyheads.training.optimizer import parameter_groups
from tiny import FAMILIES
from tiny_models import make_inputs, make_model
from training_setup import Killed, Spy, config, encoder_folder, prepared

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


def copy(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def before_and_after(settings: Config) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Every parameter before and after training, and the optimiser's state after it."""
    before = copy(prepared(settings))
    train(settings)
    contents = load_checkpoint(epoch_path(settings.save_dir, settings.num_epochs))
    return before, dict(contents.model), contents.training["optimizer"]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def with_state(optimizer: Any) -> set[str]:
    """The names of the parameters with optimiser state."""
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
def test_frozen_parameters_stay_bit_identical_and_the_rest_is_trained(
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
def test_freezing_works_with_reduced_precision_and_distilled_embeddings(
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
def test_only_the_frozen_part_has_no_dropout_and_no_gradients(
    model_type: str, freeze: str, depth: int
) -> None:
    model = MultiTaskModel(encoder(model_type), {})
    Freezing(model, Config(freeze=freeze), 1).train_mode()
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


def test_heads_learn_on_a_frozen_encoder() -> None:
    model = make_model()
    Freezing(model, Config(freeze="encoder"), 1).train_mode()
    assert all(head.training for head in model.heads.values())
    assert not any(module.training for module in model.encoder.modules())
    assert all(p.requires_grad for p in model.heads.parameters())
    outputs = model(make_inputs(), ["intent"])
    assert outputs["intent"].requires_grad
    assert not outputs["embedding"].requires_grad


@pytest.mark.parametrize(
    ("freeze", "every", "depths"),
    [
        ("encoder", 2, [3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0]),
        ("layers:1", "1e", [2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]),
        ("encoder", "2e", [3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2]),
    ],
)
def test_layers_are_unfrozen_from_the_top_one_by_one(
    tmp_path: Path, freeze: str, every: int | str, depths: list[int]
) -> None:
    settings = config(
        tmp_path, freeze=freeze, unfreeze_every=every, num_epochs=3, weight_decay=0.1,
        schedule="joint", warmup_ratio=0,
    )  # fmt: skip
    run = prepared(settings)
    names = [name for name in run.model.state_dict() if ".pooler." not in name]
    trained: set[str] = set()
    assert run.total_steps == len(depths)
    for step, depth in enumerate(depths):
        before = copy(run)
        plan = plan_epoch(run.data.sources, Schedule.of(settings), seed=settings.seed, epoch=0)
        assert update(run, forward_backward(run, plan[step % len(plan)]))
        run.state.step += 1
        trained = {n for n in names if (g := group_by_name(n)) is None or g >= depth}
        assert changed(before, copy(run)) == trained, step
        assert with_state(run.optimizer.state_dict()) == trained, step
    in_optimizer = {n for group in run.optimizer.param_groups for n in group["names"]}
    assert in_optimizer == trained


@pytest.mark.parametrize(
    "settings", [{"balancing": "pcgrad"}, {"balancing": "gradnorm"}, {"log_gradients": 1}], ids=str
)
def test_gradients_are_compared_as_soon_as_a_part_of_the_encoder_is_trained(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    made = config(tmp_path, freeze="encoder", unfreeze_every=2, schedule="joint", **settings)
    run = prepared(made)
    plan = plan_epoch(run.data.sources, Schedule.of(made), seed=made.seed, epoch=0)
    compared = []
    for step in plan[:3]:
        result = forward_backward(run, step)
        assert update(run, result)
        compared.append(result.gradients is not None)
        run.state.step += 1
    assert compared == [False, False, True]


def test_a_run_stopped_around_an_unfreezing_resumes_bit_identically(tmp_path: Path) -> None:
    def settings(name: str) -> Config:
        return config(
            tmp_path / name, freeze="encoder", unfreeze_every=2, checkpoint_every=1,
            layer_decay=0.5, keep_embeddings={"weight": 2, "texts": str(tmp_path / "texts.txt")},
        )  # fmt: skip

    (tmp_path / "texts.txt").write_text("john eats\nparis\n", encoding="utf-8")
    for step in (3, 4, 5):
        assert_resumes(settings("whole"), settings(f"stopped at {step}"), step)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 3)])
def test_a_run_that_unfreezes_layers_continues_with_more_or_fewer_epochs(
    tmp_path: Path, before: int, after: int
) -> None:
    def settings(epochs: int) -> Config:
        return config(
            tmp_path, freeze="encoder", unfreeze_every="1e", num_epochs=epochs,
            checkpoint_every=1,
        )  # fmt: skip

    with pytest.raises(Killed):
        train(settings(before), reporter=Spy(stop_at(12)))
    train(settings(after), resume=True)
    optimizer = load_checkpoint(epoch_path(tmp_path / "saved", after)).training["optimizer"]
    names = [name for group in optimizer["param_groups"] for name in group["names"]]
    steps: dict[int, set[int]] = {}
    for number, state in optimizer["state"].items():
        if (group := group_by_name(names[number])) is not None:
            steps.setdefault(group, set()).add(int(state["step"]))
    # Of 8 steps an epoch; those before the interruption count too.
    assert steps == {2 - i: {8 * (after - 1 - i)} for i in range(after - 1)}


def test_a_task_of_pairs_waits_until_a_part_of_the_encoder_is_unfrozen(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("text,text2,score\na,b,0.1\njohn,mary,0.9\nin,at,0.5\n", encoding="utf-8")
    tasks = {"pairs": {"kind": "similarity"}}
    files = {"train_file": str(pairs), "valid_file": str(pairs)}
    settings = config(
        tmp_path, freeze="encoder", unfreeze_every=1, num_epochs=2, tasks=tasks, **files
    )
    before, after, _ = before_and_after(settings)
    assert {group_by_name(name) for name in changed(before, after)} == {2}


def test_every_layer_of_the_encoder_has_a_lower_rate_than_the_one_above() -> None:
    model = make_model()
    groups = parameter_groups(
        model, Config(layer_decay=0.5, learning_rate=0.04, head_learning_rate=0.3)
    )
    for group in groups:
        for name in group["names"]:
            number = group_by_name(name)
            expected = 0.3 if number is None else {2: 0.04, 1: 0.02, 0: 0.01}[number]
            if ".pooler." not in name:
                assert group["peak_lr"] == group["lr"] == expected, name


def test_a_run_with_decaying_rates_trains_everything(tmp_path: Path) -> None:
    before, after, _ = before_and_after(config(tmp_path, layer_decay=0.5, weight_decay=0.1))
    assert changed(before, after) == {name for name in before if ".pooler." not in name}


def test_an_unfreezing_that_never_comes_is_refused(tmp_path: Path) -> None:
    settings = {"freeze": "encoder", "num_epochs": 2}
    with pytest.raises(ConfigError, match=r"`unfreeze_every` is 16, but the run ends before that, "
                       r"after 16 steps \(2e\)"):  # fmt: skip
        train(config(tmp_path, unfreeze_every=16, **settings))
    with pytest.raises(ConfigError, match="`unfreeze_every` is 2e, but the run ends before"):
        train(config(tmp_path, unfreeze_every="2e", **settings))


@pytest.mark.parametrize(
    ("every", "told"),
    [(2, "every 2 steps one more of the encoder's layers, all from step 6 on: "),
     ("1e", "every 8 steps one more of the encoder's layers, the lowest 2 never: ")],
)  # fmt: skip
def test_the_schedule_of_unfreezing_is_reported(
    tmp_path: Path, every: int | str, told: str
) -> None:
    spy = Spy()
    changes = {"freeze": "encoder", "unfreeze_every": every, "num_epochs": 2}
    made = prepared(config(tmp_path, **changes), spy)
    frozen = [] if every == 2 else [".embeddings.", ".layer.0."]
    trained = sum(
        p.numel()
        for name, p in made.model.named_parameters()
        if p.requires_grad and not any(part in name for part in frozen)
    )
    assert spy.said(f"{told}{trained:,} parameters at the end.")


def test_the_share_of_trained_parameters_is_reported(tmp_path: Path) -> None:
    spy = Spy()
    train(config(tmp_path, freeze="encoder", tasks={"a": {"kind": "classification",
          "field": "label"}}), reporter=spy)  # fmt: skip
    total = 2 * 32 + 2 + sum(p.numel() for p in encoder().parameters())
    assert spy.said(f"Training 66 of {total:,} parameters (0.")


def test_freezing_more_layers_than_there_are_is_refused(tmp_path: Path) -> None:
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
    Freezing(model, Config(freeze="encoder"), 1)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(ModelError, match=r"AlbertModel does not have 3 layers with .*Use `freeze"):
        Freezing(model, Config(freeze="embeddings"), 1)
    with pytest.raises(ModelError, match="without `unfreeze_every` and `layer_decay`"):
        Freezing(model, Config(freeze="encoder", unfreeze_every=1), 1)
    with pytest.raises(ModelError, match="without `unfreeze_every` and `layer_decay`"):
        parameter_groups(model, Config(layer_decay=0.9))
