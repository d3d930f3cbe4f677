"""A source, our model and its saved folder give one vector, that of sentence-transformers."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from manyheads.config import make_config
from manyheads.inference import Backend, Predictor, embed_texts, predictor_of_folder
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.backends.pytorch import predictor_of_model
from manyheads.modeling import (
    CheckpointContents,
    Encoder,
    MultiTaskModel,
    choose_compute,
    encoder_files,
    find_encoder,
    load_checkpoint,
    load_model_folder,
    make_head,
    model_contents,
    model_of_folder,
    save_checkpoint,
    save_model_folder,
)
from manyheads.storage import POOLING_MODES, read_manifest
from manyheads.tasks import LabelSet
from manyheads.text import TextTokenizer
from tiny import tiny_encoder_folder

TEXTS = [
    "John lives in Paris", "a", "HELLO World, JOHN!", "Will it  rain in Rome?",
    "the weather " * 9, "The weather in London was very bad yesterday. " * 12,
]  # fmt: skip
HEADS_READ = 12
"""Tokens of a window: fewer than any embedding reads here, so that it has a pass of its own."""


@functools.cache
def base(model_type: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="manyheads-test-")) / model_type
    return tiny_encoder_folder(folder, model_type=model_type, normalize=False)


def write(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def variant(
    folder: Path,
    model_type: str = "bert",
    *,
    pooling: Any = None,
    dense: list[dict[str, Any]] | None = None,
    normalize: bool = False,
    transformer: dict[str, Any] | None = None,
    whole: dict[str, Any] | None = None,
    inside: bool = False,
) -> Path:
    """Write a sentence-transformers folder.

    Args:
        folder: where.
        pooling: the settings of `1_Pooling`.
        dense: those of each Dense layer; what is left out follows from the layer before.
        normalize: whether the embedding is normalised.
        transformer: `sentence_bert_config.json`.
        whole: `config_sentence_transformers.json`.
        inside: whether the transformer has a folder of its own, as before version 2.
    """
    place = "0_Transformer" if inside else ""
    shutil.copytree(base(model_type), folder / place)
    (folder / place / "modules.json").unlink()
    shutil.rmtree(folder / place / "1_Pooling")
    if transformer is None:
        (folder / place / "sentence_bert_config.json").unlink()
    else:
        write(folder / place / "sentence_bert_config.json", transformer)
    if whole is not None:
        write(folder / "config_sentence_transformers.json", whole)
    own = {"pooling_mode_mean_tokens": True} if pooling is None else pooling
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, **own})
    modules = [(place, "Transformer"), ("1_Pooling", "Pooling")]
    listed = own.get("pooling_mode", "")
    flags = sum(value is True for key, value in own.items() if key.startswith("pooling_mode"))
    size = 32 * (len(listed) if isinstance(listed, list) else max(1, flags))
    for layer in dense or ():
        name = f"{len(modules)}_Dense"
        values = {"in_features": size, "out_features": 16, "bias": True, **layer}
        modules.append((name, "Dense"))
        write(folder / name / "config.json", values)
        generator = torch.Generator().manual_seed(len(modules))
        shape = (values["out_features"], size)
        weights = {"linear.weight": torch.randn(shape, generator=generator) / size**0.5}
        if values["bias"]:
            weights["linear.bias"] = torch.randn(shape[:1], generator=generator)
        if values.get("use_residual") and shape[0] != size:
            weights["residual.weight"] = torch.randn(shape, generator=generator) / size**0.5
        save_file(weights, folder / name / "model.safetensors", {"format": "pt"})
        size = values["out_features"]
    if normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir()
    types = "sentence_transformers.models"
    write(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"{types}.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
    )
    return folder


def sentence_transformer(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def model_of(folder: Path) -> MultiTaskModel:
    """The source with a head, as at the start of training."""
    torch.manual_seed(0)
    encoder = Encoder.from_source(find_encoder(str(folder)))
    task = make_config({"tasks": {"t": {"kind": "classification"}}}).tasks["t"]
    return MultiTaskModel(
        encoder, {"t": make_head(task, LabelSet(("x", "y")), encoder.shape)}
    ).eval()


def in_torch(model: MultiTaskModel) -> Predictor:
    tokenizer = TextTokenizer.from_json(model.encoder.tokenizer_json)
    return predictor_of_model(model, choose_compute("cpu", "float32", 1), tokenizer, HEADS_READ)


def save(model: MultiTaskModel, folder: Path) -> Path:
    config = make_config({"tasks": {"t": {"kind": "classification"}}})
    save_model_folder(folder, model_contents(model, config, HEADS_READ, {}))
    return folder


def assert_same_vectors(source: Path, folder: Path) -> None:
    """The source, the model made of it and the model's folder give the same vectors."""
    expected = sentence_transformer(source).encode(TEXTS)
    model = model_of(source)
    np.testing.assert_allclose(embed_texts(in_torch(model), TEXTS), expected, atol=1e-5)
    # With the heads' answers as without.
    found = in_torch(model).predict(TEXTS, embed=True)
    np.testing.assert_allclose(np.stack([p.embedding for p in found]), expected, atol=1e-5)
    save(model, folder)
    np.testing.assert_allclose(sentence_transformer(folder).encode(TEXTS), expected, atol=1e-5)
    again = model_of_folder(load_model_folder(folder), folder).eval()
    np.testing.assert_allclose(embed_texts(in_torch(again), TEXTS), expected, atol=1e-5)


POOLINGS = st.one_of(
    st.sampled_from(
        [
            {}, {"pooling_mode": ["mean"]}, {"pooling_mode": "cls", "include_prompt": False},
            {"pooling_mode_lasttoken": True}, {"pooling_mode_weightedmean_tokens": True},
            {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},
            {"pooling_mode_mean_sqrt_len_tokens": True},
        ]
    ),
    st.lists(st.sampled_from(POOLING_MODES), min_size=1, max_size=3, unique=True).map(
        lambda modes: {"pooling_mode": modes}
    ),
)  # fmt: skip
DENSE = st.lists(
    st.fixed_dictionaries(
        {"out_features": st.sampled_from([8, 32])},
        optional={
            "bias": st.booleans(),
            "use_residual": st.booleans(),
            "activation_function": st.sampled_from(
                ["torch.nn.modules.linear.Identity", "torch.nn.modules.activation.GELU"]
            ),
        },
    ),
    max_size=2,
)
TRANSFORMERS = st.none() | st.fixed_dictionaries(
    {}, optional={"max_seq_length": st.sampled_from([14, 40]), "do_lower_case": st.booleans()}
)
WHOLE = st.none() | st.sampled_from(
    [
        {"prompts": {"query": "query: ", "passage": "Passage: "}, "similarity_fn_name": "dot"},
        {"prompts": {"a": "who will "}, "default_prompt_name": "a", "similarity_fn_name": None},
    ]
)


@given(
    model_type=st.sampled_from(["bert", "roberta", "mpnet", "data2vec-text"]),
    pooling=POOLINGS, dense=DENSE, normalize=st.booleans(), transformer=TRANSFORMERS,
    whole=WHOLE, inside=st.booleans(),
)  # fmt: skip
@settings(max_examples=8, derandomize=True)
def test_every_folder_gives_the_vectors_of_its_source(**changes: Any) -> None:
    if (changes["whole"] or {}).get("default_prompt_name") and "include_prompt" in changes[
        "pooling"
    ]:
        changes["pooling"] = {}
    with tempfile.TemporaryDirectory(prefix="manyheads-test-") as name:
        assert_same_vectors(variant(Path(name) / "source", **changes), Path(name) / "best")


EXPORTED = {
    "prompt": {
        "whole": {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        "transformer": {"max_seq_length": 40},
    },
    "last": {"pooling": {"pooling_mode_lasttoken": True}, "normalize": True},
    "several": {
        "pooling": {"pooling_mode": ["weightedmean", "max", "mean_sqrt_len_tokens"]},
        "dense": [{"use_residual": True}, {"bias": False}],
    },
    "lower": {"model_type": "roberta", "transformer": {"do_lower_case": True}},
}


@pytest.mark.parametrize("name", EXPORTED)
def test_graphs_give_the_vectors_of_the_source(tmp_path: Path, name: str) -> None:
    from manyheads.exporting.graph import fuse_graph, trace_graph

    source = variant(tmp_path / "source", **EXPORTED[name])
    expected = sentence_transformer(source).encode(TEXTS)
    model = model_of(source)
    traced = trace_graph(model)
    graph, _ = fuse_graph(traced, model)
    backends: list[Backend] = [OnnxBackend(graph.SerializeToString(), threads=1, name="onnx")]
    if name in ("prompt", "several"):
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
        from manyheads.exporting.openvino import convert, files_of
        from manyheads.inference import OPENVINO, open_backend

        (tmp_path / "graph").mkdir()
        files = files_of(convert(traced, tmp_path / "graph"), OPENVINO, tmp_path / "graph")
        backends.append(open_backend(OPENVINO, files, threads=1))
    manifest = read_manifest(save(model, tmp_path / "best"))
    for backend in backends:
        found = embed_texts(predictor_of_folder(manifest, backend), TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=backend.name)


def test_the_prompts_similarity_and_case_of_the_source_are_carried_over(tmp_path: Path) -> None:
    whole = {
        "prompts": {"query": "query: ", "passage": "passage: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
    }
    transformer = {"max_seq_length": 40, "do_lower_case": True}
    source = variant(tmp_path / "source", "roberta", whole=whole, transformer=transformer)
    best = save(model_of(source), tmp_path / "best")
    saved = json.loads((best / "config_sentence_transformers.json").read_text())
    assert {key: saved[key] for key in whole} == whole
    assert json.loads((best / "sentence_bert_config.json").read_text()) == transformer
    theirs = sentence_transformer(best)
    assert (theirs.max_seq_length, theirs.similarity_fn_name) == (40, "dot")
    np.testing.assert_allclose(
        theirs.encode(TEXTS, prompt_name="passage"),
        sentence_transformer(source).encode(TEXTS, prompt_name="passage"),
        atol=1e-5,
    )
    card = (best / "README.md").read_text()
    assert "reads the first\n40 tokens of the text behind the prompt `query:`" in card
    assert "to be compared by dot product" in card


def test_a_checkpoint_keeps_how_its_source_embeds(tmp_path: Path) -> None:
    source = variant(tmp_path / "source", dense=[{}], whole={"prompts": {"a": "b "}})
    model = model_of(source)
    files = encoder_files(model.encoder, HEADS_READ)
    contents = CheckpointContents({}, [{}], files, model.state_dict(), {}, epoch=1, step=1)
    save_checkpoint(tmp_path / "a.pt", contents)
    assert load_checkpoint(tmp_path / "a.pt").encoder == files
    assert files.dense
    assert not any(name.startswith("encoder.pooler") for name in model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": {"pooling_mode": ["mean", "median"]}}, r"pools by 'mean\+median'"),
        ({"pooling": {"pooling_mode": []}}, "pools by nothing"),
        (
            {"whole": {"truncate_dim": 8}},
            r"`truncate_dim` is 8; expected embeddings of full length\. Remove `truncate_dim` from "
            r"config_sentence_transformers\.json to train on the full length",
        ),
        ({"whole": {"default_prompt_name": "x"}}, "the prompts, similarity or case"),
        ({"whole": {"similarity_fn_name": "maxsim"}}, "the prompts, similarity or case"),
        ({"transformer": {"transformer_task": "fill-mask"}}, "in a way that is not supported"),
        ({"dense": [{"activation_function": "os.system"}]}, "has 'os.system' as activation_funct"),
        (
            {
                "pooling": {"include_prompt": False},
                "whole": {"prompts": {"a": "b "}, "default_prompt_name": "a"},
            },
            "leaves its default prompt out of the pooling",
        ),
    ],
)
def test_unsupported_settings_that_would_change_vectors_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    from manyheads.errors import ModelError

    with pytest.raises(ModelError, match=message):
        find_encoder(str(variant(tmp_path / "source", **changes)))
