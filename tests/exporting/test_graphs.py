"""Exported graphs are fused and compute what the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graph_outputs import TEXTS, assert_equal_outputs, export_graph, model_of
from manyheads.config import TaskConfig
from manyheads.errors import ModelError
from manyheads.exporting import graph as graph_module
from manyheads.exporting.graph import count_fusions, expected_fusions
from tiny import FAMILIES, tiny_encoder_folder


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_exports_to_a_fused_graph_that_computes_the_same(
    model_type: str, tmp_path: Path
) -> None:
    folder = tiny_encoder_folder(tmp_path, model_type=model_type)
    model = model_of(
        folder, intent=TaskConfig(kind="classification"), ner=TaskConfig(kind="tagging")
    )
    graph, fusions = export_graph(model)
    layers = model.encoder.shape.num_layers
    assert fusions == count_fusions(graph)
    assert fusions.gelu == layers
    assert fusions.layer_norm == 2 * layers + 1
    assert fusions.attention == (0 if model_type in ("mpnet", "modernbert") else layers)
    # Other numbers of sentences, tokens and words than the graph was traced with.
    for texts in (TEXTS, TEXTS[:1], TEXTS[3:], TEXTS[1:2] * 5):
        assert_equal_outputs(graph, model, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"neck": "bilstm", "neck_size": 8},
        {"neck": "transformer", "neck_size": 32},
        {"reads": "mix"},
        {"decoder": "crf"},
        {"word_features": "on"},
    ],
)
def test_heads_of_every_form_are_in_the_graph(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path)
    model = model_of(
        folder,
        ner=TaskConfig(kind="tagging", **changes),
        topic=TaskConfig(kind="classification", hidden=8, pooling=["attention", "middle"]),
        flags=TaskConfig(kind="multilabel"),
    )
    graph, fusions = export_graph(model)
    assert fusions.gelu >= expected_fusions(model).gelu > model.encoder.shape.num_layers
    assert_equal_outputs(graph, model, TEXTS)


def test_a_model_without_heads_for_words_takes_no_words(tmp_path: Path) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))
    graph, _ = export_graph(model)
    assert [value.name for value in graph.graph.input] == ["input_ids", "attention_mask"]
    assert_equal_outputs(graph, model, TEXTS)


def test_exporting_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))
    model.train()
    before = model.encoder.backbone.config._attn_implementation
    export_graph(model)
    assert model.training
    assert model.encoder.training
    assert model.encoder.backbone.config._attn_implementation == before != "eager"


def test_an_attention_that_is_not_fused_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_FUSED_ATTENTION", ("mpnet",))
    model = model_of(
        tiny_encoder_folder(tmp_path, model_type="mpnet"), intent=TaskConfig(kind="classification")
    )
    with pytest.raises(ModelError, match="fused 0 of 2 attention patterns of this mpnet encoder"):
        export_graph(model)


def test_an_encoder_that_a_graph_cannot_express_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = tiny_encoder_folder(tmp_path, model_type="longformer", max_position=128, layers=1)
    model = model_of(folder, intent=TaskConfig(kind="classification"))
    with pytest.raises(ModelError, match=r'longformer encoder cannot be exported.*backend="torch"'):
        export_graph(model)


def test_errors_of_the_system_are_not_blamed_on_the_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(tiny_encoder_folder(tmp_path), intent=TaskConfig(kind="classification"))

    def fail(*_: Any, **__: Any) -> None:
        print("Torch IR graph at exception")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.onnx.export", fail)
    with pytest.raises(OSError, match="No space left on device"):
        export_graph(model)
    assert capsys.readouterr().out == ""
