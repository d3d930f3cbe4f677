"""Exported folders from elsewhere: a graph that does more than compute never runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from manyheads.cli import main
from manyheads.errors import ManyheadsError, ModelError, RequestError
from manyheads.inference import GRAPHS, Predictor, Runtime, graph_files, load_model, report_name
from manyheads.inference.graph_check import check_onnx, check_openvino
from manyheads.storage import LAYOUT, add_files, json_bytes, read_manifest, seal, sha256

TEXTS = ["John lives in Paris", "will Mary eat in Rome?", "the weather in London " * 30]


@pytest.fixture(scope="module")
def exported(exported_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a float32 graph, never to be changed."""
    folder = shutil.copytree(exported_model, tmp_path_factory.mktemp("float32") / "best")
    add_files(
        read_manifest(folder), {}, remove=[*graph_files("onnx-int8"), report_name("onnx-int8")]
    )
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A copy of the exported model."""
    return shutil.copytree(exported, tmp_path / "best")


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Replace a file of a model and its checksums, as the folder's author could."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
    manifest["files"][name] = {"size": len(data), "sha256": sha256(data)}
    reseal(folder, manifest)


def reseal(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["sha256"] = seal(manifest)
    (folder / LAYOUT.manifest).write_bytes(json_bytes(manifest))


def edited(data: bytes, edit: Callable[[onnx.ModelProto], object]) -> bytes:
    graph = onnx.load_from_string(data)
    edit(graph)
    return bytes(graph.SerializeToString())


def add_node(*arguments: Any, **options: Any) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.node.append(helper.make_node(*arguments, **options))


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"


def huge_shape(model: onnx.ModelProto) -> None:
    shape = helper.make_tensor("huge", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["huge"], ["x"]))


def branch(model: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "g", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["x"], then_branch=graph))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("d", "f", [], ["x"], [], [helper.make_opsetid("", 17)])
    )


def huge_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="x", dims=[1 << 40], data_type=1))


BAD_GRAPHS = {
    "another domain": (add_node("Run", ["a"], ["x"], domain="evil"), r"operator 'evil\.Run'"),
    "a file operator": (add_node("Loop", ["a"], ["x"]), "has the operator 'Loop'"),
    "branches": (branch, "has graphs or sparse tensors within operators"),
    "functions": (function, "has functions or training steps"),
    "external data": (external, "has data outside of the file"),
    "a huge shape": (huge_shape, r"makes a tensor of shape \[1048576, 1048576\]"),
    "a huge tensor": (huge_tensor, "more elements than the file has bytes"),
}


@pytest.mark.parametrize("case", BAD_GRAPHS)
def test_a_graph_that_does_more_than_compute_is_refused(folder: Path, case: str) -> None:
    edit, message = BAD_GRAPHS[case]
    name = GRAPHS["onnx"]
    rewrite(folder, name, edited((folder / name).read_bytes(), edit))
    with pytest.raises(ModelError, match=message):
        load_model(folder, Runtime("onnx", threads=1))


@pytest.mark.parametrize(
    "data", [b"", b"nothing of the kind", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x09", b"\xff"]
)
def test_bytes_that_are_not_a_graph_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match=r"has no graph|is not an ONNX graph"):
        check_onnx(data, "graph")


IR = '<net><layers><layer id="0" type="{}" version="{}">{}</layer></layers></net>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (IR.format("TensorIterator", "opset1", ""), r"operator 'opset1\.TensorIterator'"),
        (IR.format("Add", "extension", ""), r"operator 'extension\.Add'"),
        (IR.format("Const", "opset1", '<data offset="8" size="99"/>'), "beyond the end"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><net/>', "declares entities"),
        ("<a>" * 100, "nested more than"),
        ("<net>", "is not an OpenVINO graph"),
        (IR.format("Const", "opset1", '<data offset="x" size="1"/>'), "is not an OpenVINO graph"),
    ],
)
def test_an_openvino_graph_is_checked_in_the_same_way(xml: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_openvino(xml.encode(), b"1234", "graph")


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["other" if name == "intent" else name for name in node.output]
    next(o for o in model.graph.output if o.name == "intent").name = "other"


def test_the_outputs_must_fit_the_tasks(folder: Path) -> None:
    name = GRAPHS["onnx"]
    sound = (folder / name).read_bytes()
    rewrite(folder, name, edited(sound, rename_output))
    with pytest.raises(ModelError, match=r"has no output 'intent'.*it has other, ner, embedding"):
        load_model(folder, Runtime("onnx", threads=1))
    rewrite(folder, name, sound)
    manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
    manifest["tasks"][0]["labels"].append("third")
    reseal(folder, manifest)
    with pytest.raises(ModelError, match=r"has 2 values in output 'intent'; expected 3"):
        load_model(folder, Runtime("onnx", threads=1))


class Wrong:
    """A backend with a value too many for each class, which it did not declare."""

    name = "wrong"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def run(self, batch: Any) -> dict[str, Any]:
        outputs = dict(self.inner.run(batch))
        return outputs | {"intent": np.zeros((len(batch.input_ids), 3), np.float32)}


def test_outputs_are_checked_in_every_batch(exported: Path) -> None:
    predictor = load_model(exported, Runtime(threads=1)).predictor
    predictor.backend = Wrong(predictor.backend)
    with pytest.raises(ModelError, match=r"float32 \(1, 3\) as output 'intent'; .*\(1, 2\)"):
        predictor.predict(TEXTS[:1])


def bad_json(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, name, data)


def bad_manifest(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
        for path, value in changes.items():
            *parents, key = path.split("__")
            place = manifest
            for parent in parents:
                place = place[int(parent) if isinstance(place, list) else parent]
            place[int(key) if isinstance(place, list) else key] = value
        reseal(folder, manifest)

    return change


def bad_heads(folder: Path) -> None:
    from safetensors.numpy import save

    tensors = {f"ner.crf.{name}": np.zeros(3, np.float32) for name in ("start", "end", "pairwise")}
    rewrite(folder, LAYOUT.heads, save(tensors))


REPORT = report_name("onnx")
BAD_FOLDERS: dict[str, Callable[[Path], None]] = {
    "config a list": bad_json(LAYOUT.config, b"[]"),
    "config a number": bad_json(LAYOUT.config, b"1"),
    "pad a text": bad_json(LAYOUT.config, b'{"pad_token_id": "x"}'),
    "pad a list": bad_json(LAYOUT.config, b'{"pad_token_id": [0]}'),
    "pad infinite": bad_json(LAYOUT.config, b'{"pad_token_id": Infinity}'),
    "pad negative": bad_json(LAYOUT.config, b'{"pad_token_id": -1}'),
    "pad huge": bad_json(LAYOUT.config, b'{"pad_token_id": 99999999999999999999}'),
    "config no JSON": bad_json(LAYOUT.config, b"{"),
    "report a list": bad_json(REPORT, b"[[]]"),
    "report of huge numbers": bad_json(
        REPORT, b'{"sentences_per_second": 1' + b"0" * 400 + b', "milliseconds_alone": NaN}'
    ),
    "report no JSON": bad_json(REPORT, b"\xff"),
    "tokenizer empty": bad_json(LAYOUT.tokenizer, b"{}"),
    "tokenizer not UTF-8": bad_json(LAYOUT.tokenizer, b"\xff\xfe"),
    "heads of other shapes": bad_heads,
    "heads cut": bad_json(LAYOUT.heads, b"\x08"),
    "length 0": bad_manifest(encoder__max_length=0),
    "length 2": bad_manifest(encoder__max_length=2),
    "length huge": bad_manifest(encoder__max_length=10**30),
    "embedding of another size": bad_manifest(encoder__hidden_size=31),
    "no tasks": bad_manifest(tasks=[]),
    "a task twice": lambda folder: bad_manifest(
        tasks=[*read_manifest(folder).tasks, read_manifest(folder).tasks[0]]
    )(folder),
    "another kind": bad_manifest(tasks__0__kind="tagging"),
    "an unknown kind": bad_manifest(tasks__0__kind="what"),
    "more labels": bad_manifest(tasks__0__labels=["a", "b", "c"]),
    "labels of labels": bad_manifest(tasks__0__labels=[["a"], ["b"]]),
    "configuration of nothing": bad_manifest(config={"tasks": 1}),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_bad_folder_is_refused_with_one_message_or_accepted(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    BAD_FOLDERS[case](folder)
    for command in ("predict", "info"):
        arguments = [command, str(folder)]
        arguments += [*TEXTS, "--threads", "1", "--backend", "onnx"] if command == "predict" else []
        status = main(arguments)
        assert status in (0, 2), capsys.readouterr().err


# ------------------------------------------------------------------------------- the same model


def outputs(predictor: Predictor) -> list[dict[str, Any]]:
    return [prediction.to_json() for prediction in predictor.predict(TEXTS, embed=True)]


def test_a_predictor_stays_the_model_that_it_was(folder: Path) -> None:
    expected = outputs(load_model(folder, Runtime(threads=2)).predictor)
    predictor = load_model(folder, Runtime(threads=2)).predictor
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"another model")
    # The long text is a batch alone, for which a session is opened only now.
    assert predictor.predict([TEXTS[-1]])[0].to_json().keys() <= expected[-1].keys()
    assert outputs(predictor) == expected


def test_a_predictor_is_pickled_by_folder_and_checksums(folder: Path) -> None:
    predictor = load_model(folder, Runtime(threads=1)).predictor
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 2000
    assert outputs(pickle.loads(pickled)) == outputs(predictor)
    manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
    manifest["tasks"][0]["labels"].reverse()
    reseal(folder, manifest)
    with pytest.raises(ModelError, match="changed since the predictor was pickled"):
        pickle.loads(pickled)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_predicts_the_same(folder: Path) -> None:
    import subprocess

    script = """
import multiprocessing, os, sys, warnings
warnings.simplefilter("ignore")
import manyheads
model = manyheads.load(sys.argv[1], threads=2)
text = "the weather in London " * 30
before = model.predict([text])[0].to_json()
def work(queue):
    queue.put(model.predict([text])[0].to_json())
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,))
process.start()
assert queue.get(timeout=60) == before
process.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------- bad requests


class Frame:
    """A stand-in for a pandas DataFrame, over whose columns iteration would go."""

    columns = ("text",)

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (Frame(), r"a Frame.*data\[.text.\]"),
        ({"text": "John"}, "the texts are a dict; expected a list of texts"),
        ({"John"}, "a set; .*has no order"),
        (None, "a NoneType; .*Give a list"),
        (7, "a int; "),
        ("John", "one text, 'John'"),
    ],
)
def test_anything_but_a_list_of_texts_is_refused(exported: Path, texts: Any, message: str) -> None:
    predictor = load_model(exported, Runtime(threads=1)).predictor
    with pytest.raises(RequestError, match=message):
        predictor.predict(texts)


def test_impossible_options_of_loading_are_refused(exported: Path) -> None:
    predictor = load_model(exported, Runtime(threads=1)).predictor
    with pytest.raises(RequestError, match="when_empty is 'skip'; expected one of: flag, refuse"):
        predictor.predict(["John"], when_empty="skip")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="tasks are 'intent'; expected a list"):
        predictor.predict(["John"], tasks="intent")
    for threads in (0, -1, True, 1.5):
        with pytest.raises(ManyheadsError, match=f"threads is {threads}; expected a whole number"):
            load_model(exported, Runtime(threads=threads))  # type: ignore[arg-type]
