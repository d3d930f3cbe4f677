"""Students: smaller encoders made of some layers of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equal_runs import assert_resumes
from manyheads.config import load_config
from manyheads.errors import ConfigError
from manyheads.modeling import Encoder, find_encoder, student_of
from manyheads.modeling.student import chosen_layers
from manyheads.training import train
from training_setup import Spy, config, encoder_folder, run

IDS = torch.tensor([[5, 11, 12, 6]])


def encoder(model_type: str = "bert", layers: int = 4) -> Encoder:
    folder = encoder_folder(model_type, layers=layers)
    return Encoder.from_source(find_encoder(str(folder))).eval()


@pytest.mark.parametrize(
    ("layers", "count", "chosen"),
    [(3, 6, (2, 4, 6)), (1, 6, (6,)), (2, 6, (3, 6)), (4, 6, (2, 3, 4, 6)), ([1, 3], 6, (1, 3))],
)
def test_a_number_of_layers_is_spread_evenly_up_to_the_last(
    layers: Any, count: int, chosen: tuple[int, ...]
) -> None:
    assert chosen_layers(layers, count) == chosen


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "mpnet", "modernbert"])
def test_a_student_of_the_lower_layers_computes_the_same(model_type: str) -> None:
    source = encoder(model_type)
    student = student_of(source, [1, 2]).eval()
    mask = torch.ones_like(IDS)
    with torch.inference_mode():
        layers = source(IDS, mask, all_layers=True).layers
        own = student(IDS, mask, all_layers=True).layers
    assert layers is not None
    assert own is not None
    assert (len(layers), len(own)) == (5, 3)
    assert torch.equal(own[1], layers[1])
    # In ModernBERT the final norm follows the last layer.
    assert model_type == "modernbert" or torch.equal(own[2], layers[2])
    assert student.config["architectures"] == source.config["architectures"]


def test_the_chosen_layers_are_copied(tmp_path: Path) -> None:
    source = encoder()
    names = [name for name in source.backbone.state_dict() if ".layer.3." in name]
    student = student_of(source, 2).backbone.state_dict()
    for name in names:
        whole = source.backbone.state_dict()[name]
        assert torch.equal(student[name.replace(".layer.3.", ".layer.1.")], whole)
    student["embeddings.word_embeddings.weight"].zero_()
    assert source.backbone.state_dict()["embeddings.word_embeddings.weight"].any()


def test_a_trained_student_is_a_folder_that_sentence_transformers_reads(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from manyheads.api import load

    result, _ = run(tmp_path, student_layers=1)
    model = SentenceTransformer(str(result.best), device="cpu")
    assert model.transformers_model.config.num_hidden_layers == 1
    texts = ["john lives in paris", "is it bad ?"]
    np.testing.assert_allclose(load(result.best).encode(texts), model.encode(texts), atol=1e-5)


def test_a_student_approaches_the_whole_encoder_and_resumes_bit_identically(tmp_path: Path) -> None:
    def settings(name: str) -> Any:
        return config(
            tmp_path / name, student_layers=[1], num_epochs=2, checkpoint_every=2,
            keep_embeddings=10,
        )  # fmt: skip

    whole = settings("whole")
    spy = Spy()
    train(whole, reporter=spy)
    # It starts at a distance, which decreases.
    distances = [loss for name, loss in spy.losses if name == "embedding"]
    assert distances[0] > 0.01
    assert distances[-1] < distances[0]
    assert_resumes(whole, settings("stopped"), 5)


def test_missing_layers_are_refused(tmp_path: Path) -> None:
    for layers in (2, 3, [1, 2], [3]):
        with pytest.raises(ConfigError, match=r"`student_layers` is .* 2 layers.*from 1 to 1"):
            run(tmp_path, student_layers=layers)
    for value in ("0", "[2, 1]", "[1, 1]", "many", "[]", "true"):
        with pytest.raises(ConfigError, match=r"`student_layers` is .*a number of layers, or"):
            load_config(None, {"student_layers": value})
    assert load_config(None, {"student_layers": "[1, 3]"}).student_layers == (1, 3)
    with pytest.raises(ConfigError, match="`student_layers` and `init_from` are both set"):
        load_config(None, {"student_layers": 2, "init_from": "saved"})
