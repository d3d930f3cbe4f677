"""Fitted heads know the classes before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError
from manyheads.modeling import EncoderShape, make_head
from manyheads.modeling.heads import SentenceHead
from manyheads.tasks import LabelSet
from manyheads.training import fit_head, name_texts, train
from training_setup import Spy, config


def first_loss(folder: Path, **task: Any) -> float:
    tasks = {"intent": {"kind": "classification", "field": "label", "dropout": 0.0, **task}}
    spy = Spy()
    train(config(folder, tasks=tasks, batch_size=14, learning_rate=0.0), reporter=spy)
    return spy.losses[0][1]


def test_a_fitted_head_knows_the_classes_before_the_first_step(tmp_path: Path) -> None:
    random = first_loss(tmp_path / "random")
    assert first_loss(tmp_path / "fitted", start="fitted") < 0.8 * random


def test_names_of_classes_are_read_if_they_are_words() -> None:
    assert name_texts(["card_arrival", "AddToPlaylist", "lost or stolen?"]) == {
        "card_arrival": "card arrival",
        "AddToPlaylist": "add to playlist",
        "lost or stolen?": "lost or stolen",
    }


def test_a_name_among_many_that_is_a_code_is_left_out() -> None:
    months = ["January", "February", "March", "April", "May", "June", "July", "August", "October"]
    assert list(name_texts([*months, "w2"])) == months


def test_no_names_are_read_if_more_than_a_tenth_are_codes() -> None:
    assert name_texts(["card_arrival", "label_2"]) == {}
    assert name_texts(["a", "b"]) == {}


def test_a_head_with_a_hidden_layer_is_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`start: fitted` is for heads without a hidden layer"):
        first_loss(tmp_path, start="fitted", hidden=4)


@pytest.mark.parametrize("telling", ["embedding", "middle"])
def test_a_head_begins_with_the_middle_layer_only_where_it_tells_classes_apart(
    telling: str,
) -> None:
    poolings = ("embedding", "middle")
    task = TaskConfig(kind="classification", start="fitted", pooling=poolings)
    head = make_head(task, LabelSet(("a", "b")), EncoderShape(hidden_size=4, num_layers=2)).eval()
    assert isinstance(head, SentenceHead)
    generator = torch.Generator().manual_seed(2)
    targets = torch.arange(100) % 2
    sides = {name: torch.randn(100, 4, generator=generator) for name in poolings}
    sides[telling] += targets[:, None]
    fit_head(head, torch.cat([*sides.values()], dim=1), targets)
    weight = head.state_dict()["scorer.layers.1.weight"]
    assert weight[:, head.scorer.columns(telling)].abs().min() > 0.01
    assert bool(weight[:, head.scorer.columns("middle")].any()) == (telling == "middle")
