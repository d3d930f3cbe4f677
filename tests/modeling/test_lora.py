"""Adapters train in place of the encoder's weights and are merged on saving."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import manyheads.modeling.lora
import training_setup
from equal_runs import assert_equal, assert_resumes, hard_config
from manyheads.api import evaluate, load
from manyheads.config import Lora, load_config
from manyheads.errors import ConfigError, RequestError
from manyheads.modeling import (
    ADAPTERS,
    Encoder,
    adapter_state,
    add_adapters,
    check_adapters,
    epoch_path,
    find_encoder,
    load_checkpoint,
    load_state,
    plain_state,
    with_adapters,
)
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.training import Run, TrainResult, train
from training_setup import Spy, config, encoder_folder, run

TEXTS = ["john eats in london ?", "the weather was bad", "where is mary ?"]
FAMILIES = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta", "modernbert")

# By model type, what of a first layer `targets: attention` and `targets: all` adapt.
LAYERS = {
    "bert": ("attention.self.query attention.self.value", 6),
    "roberta": ("attention.self.query attention.self.value", 6),
    "xlm-roberta": ("attention.self.query attention.self.value", 6),
    "distilbert": ("attention.q_lin attention.v_lin", 6),
    "mpnet": ("attention.attn.q attention.attn.v", 6),
    "modernbert": ("attn.Wqkv", 4),
}


def encoder(model_type: str = "bert", **settings: Any) -> Encoder:
    """A tiny encoder, with adapters if there are settings."""
    made = Encoder.from_source(find_encoder(str(encoder_folder(model_type)), "auto")).eval()
    if settings:
        add_adapters(made, load_config(None, {"lora": settings}))
        made.eval()
    return made


def shake(module: nn.Module) -> None:
    """Give adapters random values, as after training: at first they change no output."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.3)


def embedded(one: Encoder) -> torch.Tensor:
    ids = torch.tensor([[2, 7, 8, 9, 10, 3]])
    with torch.inference_mode():
        return one(ids, torch.ones_like(ids)).tokens


def prepared(folder: Path, **changes: Any) -> Run:
    return training_setup.prepared(config(folder, **changes))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_adapters_are_in_the_requested_layers_and_change_nothing_at_first(
    model_type: str,
) -> None:
    attention, linear = LAYERS[model_type]
    plain = encoder(model_type)
    for targets, per_layer in (("attention", len(attention.split())), ("all", linear)):
        adapted = encoder(model_type, rank=2, targets=targets)
        trained = {n for n, p in adapted.backbone.named_parameters() if p.requires_grad}
        layers = {name.partition(".lora_")[0] for name in trained}
        assert len(trained) == 2 * len(layers)
        assert len(layers) == per_layer * adapted.backbone.config.num_hidden_layers
        if targets == "attention":
            first = {n.partition(".0.")[2] for n in layers if ".0." in n}
            assert first == set(attention.split())
        torch.testing.assert_close(embedded(adapted), embedded(plain))


@pytest.mark.parametrize("targets", ["attention", "all"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_merged_weights_compute_the_same_as_weights_and_adapters(
    model_type: str, targets: str
) -> None:
    adapted, plain = encoder(model_type, rank=2, alpha=3, targets=targets), encoder(model_type)
    before = embedded(plain)
    shake(adapted)
    merged = plain_state(adapted.backbone)
    load_state(plain.backbone, merged, "merged")  # strict: the names of a plain encoder alone
    assert all(tensor.dtype == torch.float32 for tensor in merged.values())
    assert (embedded(plain) - before).abs().max() > 0.01
    torch.testing.assert_close(embedded(plain), embedded(adapted), atol=1e-5, rtol=1e-5)


def test_merged_weights_and_adapters_together_restore_the_state_exactly() -> None:
    one, other = encoder(rank=2, targets="all"), encoder(rank=2, targets="all")
    shake(one)
    both = with_adapters(plain_state(one.backbone), adapter_state(one.backbone))
    load_state(other.backbone, both, "both")
    assert_equal(dict(one.backbone.state_dict()), dict(other.backbone.state_dict()))


def test_without_adapters_the_state_is_the_modules_own() -> None:
    plain = encoder()
    assert_equal(plain_state(plain), dict(plain.state_dict()))
    assert adapter_state(plain) == {}


def test_names_like_an_adapters_do_not_make_an_adapter() -> None:
    encoder(rank=2)  # so that the library is loaded
    heads = nn.ModuleDict({"lora_A": nn.Linear(2, 2), "base_layer": nn.Linear(2, 2)})
    model = nn.ModuleDict({"heads": heads})
    assert plain_state(model).keys() == model.state_dict().keys()
    assert adapter_state(model) == {}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_training_changes_adapters_and_heads_and_no_weight_of_the_encoder(
    tmp_path: Path, model_type: str
) -> None:
    made = {"model_name": str(encoder_folder(model_type)), "lora": {"rank": 2, "targets": "all"}}
    before = dict(encoder(model_type).backbone.state_dict())
    result, spy = run(tmp_path, **made)
    contents = load_checkpoint(epoch_path(result.save_dir, 1))
    adapters = contents.training[ADAPTERS]
    bases = {n.replace(".base_layer.", "."): t for n, t in adapters.items() if ".lora_" not in n}
    weights = [name for name in bases if name.endswith("weight")]
    assert len(weights) == LAYERS[model_type][1] * 2
    for name, tensor in before.items():
        full = f"encoder.backbone.{name}"
        assert torch.equal(bases.get(full, contents.model[full]), tensor), name
    for name in weights:
        assert not torch.equal(contents.model[name], bases[name]), name
    for name, tensor in adapters.items():
        assert ".lora_B." not in name or tensor.abs().max() > 0, name
    fresh = prepared(tmp_path / "fresh", **made).model.state_dict()
    for name, tensor in contents.model.items():
        assert not name.startswith("heads.") or not torch.equal(tensor, fresh[name]), name
    whole = sum(tensor.numel() for tensor in fresh.values())
    assert spy.said(f" of {whole:,} parameters (")


def test_the_optimiser_holds_adapters_and_heads_alone(tmp_path: Path) -> None:
    made = prepared(tmp_path, lora=2, weight_decay=0.1)
    names = {name for group in made.optimizer.param_groups for name in group["names"]}
    assert {n for n in names if ".lora_" not in n} == {
        f"heads.{name}" for name, _ in made.model.heads.named_parameters()
    }
    assert sum(".lora_" in name for name in names) == 2 * 2 * 2
    rates = {g["peak_lr"] for g in made.optimizer.param_groups if "lora_" in "".join(g["names"])}
    assert rates == {made.config.learning_rate}


def test_only_layers_that_are_not_frozen_have_adapters(tmp_path: Path) -> None:
    made = prepared(tmp_path, lora=2, freeze="layers:1")
    names = [name for group in made.optimizer.param_groups for name in group["names"]]
    adapters = [name for name in names if not name.startswith("heads.")]
    assert len(adapters) == 4
    assert all(".layer.1." in name and ".lora_" in name for name in adapters)
    assert adapters == [name for name in made.model.state_dict() if ".lora_" in name]


def test_adapters_follow_from_the_seed_and_do_not_change_the_initial_heads(tmp_path: Path) -> None:
    one, other = prepared(tmp_path / "a", lora=2), prepared(tmp_path / "b", lora=2)
    assert_equal(dict(one.model.state_dict()), dict(other.model.state_dict()))
    another = prepared(tmp_path / "c", lora=2, seed=7)
    name = next(n for n in one.model.state_dict() if ".lora_A." in n)
    assert not torch.equal(one.model.state_dict()[name], another.model.state_dict()[name])
    without = prepared(tmp_path / "d")
    assert_equal(dict(one.model.heads.state_dict()), dict(without.model.heads.state_dict()))


def test_adapters_use_our_dropout() -> None:
    adapted = encoder(rank=2, dropout=0.5)
    kinds = [
        type(part) for n, part in adapted.named_modules() if n.endswith("lora_dropout.default")
    ]
    assert kinds == [Dropout] * 4
    shake(adapted)
    calm = embedded(adapted)
    for name, part in adapted.named_modules():
        part.training = name.endswith("lora_dropout.default")
    assert not torch.equal(embedded(adapted), calm)


def test_a_killed_and_resumed_run_makes_a_bit_identical_model(tmp_path: Path) -> None:
    changes = {
        "lora": {"rank": 2, "dropout": 0.3, "targets": "all"},
        "keep_embeddings": 2.0,
        "checkpoint_every": 2,
    }
    whole, killed = (hard_config(tmp_path / name, **changes) for name in ("whole", "killed"))
    assert_resumes(whole, killed, 4)


TRAINED: dict[str, Any] = {
    "lora": {"rank": 2, "targets": "all"},
    "keep_best_per_task": True,
    "keep_embeddings": 1,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult, Spy]:
    folder = tmp_path_factory.mktemp("lora")
    return folder, *run(folder, **TRAINED)


def test_the_best_model_is_restored_from_a_checkpoint(
    trained: tuple[Path, TrainResult, Spy],
) -> None:
    folder, result, _ = trained
    weights = result.best / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(b"damaged")
    train(config(folder, **TRAINED), resume=True)
    assert weights.read_bytes() == before


def test_the_model_folder_has_no_trace_of_adapters(trained: tuple[Path, TrainResult, Spy]) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    _, result, _ = trained
    folders = [result.best, *result.best_of.values()]
    assert len(folders) == 3
    for folder in folders:
        tensors = load_file(folder / "model.safetensors")
        assert tensors.keys() == encoder().backbone.state_dict().keys()
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        assert not [file for file in folder.rglob("*") if "adapter" in file.name]
    ours = np.stack([p.embedding for p in load(result.best).predict(TEXTS, embed=True)])
    theirs = SentenceTransformer(str(result.best), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    _, info = AutoModel.from_pretrained(result.best, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


def test_folder_checkpoint_and_run_have_the_same_scores(
    trained: tuple[Path, TrainResult, Spy],
) -> None:
    _, result, spy = trained
    metrics = spy.history[0]["metrics"]
    assert metrics["drift"]["cosine"] < 1
    answers = []
    for path in (result.best, epoch_path(result.save_dir, 1)):
        evaluation = evaluate(path).evaluation
        assert_near(evaluation["tasks"], metrics["tasks"])
        assert_near(evaluation["drift"], metrics["drift"])
        answers.append([p.to_json() for p in load(path).predict(TEXTS, embed=True)])
    assert answers[0] == answers[1]


def assert_near(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_near(one[key], other[key])
    elif isinstance(one, list):
        for first, second in zip(one, other, strict=True):
            assert_near(first, second)
    else:
        assert one == pytest.approx(other, abs=1e-5)


def test_a_checkpoint_is_read_without_peft(
    trained: tuple[Path, TrainResult, Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result, _ = trained
    with_it = load(result.best).predict(TEXTS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError):
        import peft  # noqa: F401
    without = load(epoch_path(result.save_dir, 1)).predict(TEXTS)
    assert [p.to_json() for p in without] == [p.to_json() for p in with_it]


def test_without_peft_the_error_names_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manyheads.modeling.lora, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"package peft.*pip install -e \"\.\[lora\]\""):
        run(tmp_path, lora=4)


def test_a_number_is_the_rank_and_keys_can_be_set_one_by_one() -> None:
    assert load_config(None, {}).lora is None
    for value in (4, "4"):
        assert load_config(None, {"lora": value}).lora == Lora(rank=4)
    both = load_config(None, {"lora": "4", "lora.targets": "all", "lora.alpha": "16"}).lora
    assert both == Lora(rank=4, alpha=16, targets="all")
    assert load_config(None, {"lora.dropout": "0.1"}).lora == Lora(rank=8, dropout=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora": 0}, r"`lora\.rank` is 0.*at least 1"),
        ({"lora": "big"}, r"`lora` is 'big'.*a number; or a mapping with: rank, alpha"),
        ({"lora": {"rnak": 4}}, r"unknown key `lora\.rnak`.*rank"),
        ({"lora.dropout": "1"}, r"`lora\.dropout` is .1.*below 1"),
        ({"lora": 8, "freeze": "encoder"}, r"`lora` is set, but with `freeze: encoder`"),
        (
            {"lora": 8, "freeze": "encoder", "unfreeze_every": 2},
            r"`lora` and `unfreeze_every` are both set",
        ),
        ({"lora.targets": "query"}, r"`lora\.targets` is 'query'.*attention, all"),
    ],
)
def test_impossible_settings_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, values)


def test_impossible_adapters_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"`lora\.rank` is 33.*at most 32"):
        run(tmp_path, lora=33)
    monkeypatch.setattr(manyheads.modeling.lora, "_QUERY_AND_VALUE", frozenset())
    with pytest.raises(
        ConfigError, match=r"`lora\.targets` is 'attention'.*BertModel.*targets: all"
    ):
        check_adapters(encoder(), load_config(None, {"lora": 8}))
    check_adapters(encoder(), load_config(None, {"lora.targets": "all"}))


def test_a_run_does_not_resume_with_other_adapters(trained: tuple[Path, TrainResult, Spy]) -> None:
    other = {**TRAINED, "lora": {"rank": 4, "targets": "all"}}
    with pytest.raises(RequestError, match=r"lora\.rank is 4 and was 2"):
        train(config(trained[0], **other), resume=True)
