"""The model runs the encoder once and only the requested heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from manyheads.modeling import ModelInputs
from manyheads.tasks import EMBEDDING
from tiny_models import make_inputs, make_model


def calls(model: nn.Module) -> list[str]:
    """A list that collects the names of the parts that run."""
    ran: list[str] = []
    parts = {"encoder": model.encoder, **dict(model.heads.items())}  # type: ignore[union-attr]
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: ran.append(name))  # type: ignore[misc]
    return ran


def test_all_heads_and_the_embedding_come_from_one_pass() -> None:
    model = make_model()
    ran = calls(model)
    outputs = model(make_inputs())
    assert ran == ["encoder", "intent", "topics", "ner"]
    assert {name: tuple(values.shape) for name, values in outputs.items()} == {
        "intent": (3, 3), "topics": (3, 2), "ner": (3, 4, 5), EMBEDDING: (3, 32),
    }  # fmt: skip
    assert {values.dtype for values in outputs.values()} == {torch.float32}
    torch.testing.assert_close(outputs[EMBEDDING].norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("tasks", [["ner"], ["topics", "intent"], []])
def test_only_the_requested_heads_run(tasks: list[str]) -> None:
    model = make_model()
    ran = calls(model)
    outputs = model(make_inputs(), tasks)
    assert ran == ["encoder", *tasks]
    assert list(outputs) == [*tasks, EMBEDDING]
    everything = model(make_inputs())
    for name, values in outputs.items():
        torch.testing.assert_close(values, everything[name], msg=name)


def test_all_layers_are_kept_only_if_a_requested_head_mixes_them() -> None:
    model = make_model(mixing=["ner"])
    assert model.features(make_inputs(), ["intent"]).layers is None
    layers = model.features(make_inputs(), ["intent", "ner"]).layers
    assert layers is not None
    assert len(layers) == 3
    assert make_model().features(make_inputs()).layers is None


@pytest.mark.parametrize("mixing", [[], ["intent", "topics", "ner"]])
def test_a_sentence_does_not_depend_on_the_others_of_its_batch(mixing: list[str]) -> None:
    model, inputs = make_model(mixing), make_inputs()
    together = model(inputs)
    for i in range(3):
        tokens, words = int(inputs.attention_mask[i].sum()), int(inputs.word_mask[i].sum())

        def alone(tensor: Tensor, count: int, i: int = i) -> Tensor:
            return tensor[i : i + 1, :count]

        outputs = model(
            ModelInputs(
                alone(inputs.input_ids, tokens),
                alone(inputs.attention_mask, tokens),
                alone(inputs.word_starts, words),
                alone(inputs.word_mask, words),
            )
        )
        for name, values in outputs.items():
            expected = together[name][i : i + 1]
            if name == "ner":
                expected = expected[:, :words]
            torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_training_one_task_does_not_change_the_other_heads() -> None:
    model = make_model()
    outputs = model(make_inputs(), ["intent"])
    model.head("intent").loss(outputs["intent"], torch.tensor([0, -100, 2])).backward()
    with_gradient = {n.split(".")[1] for n, p in model.named_parameters()
                     if p.grad is not None and n.startswith("heads.")}  # fmt: skip
    assert with_gradient == {"intent"}
    assert any(p.grad is not None for p in model.encoder.parameters())
