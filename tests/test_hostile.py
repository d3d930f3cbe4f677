"""Malicious files are refused by every command: no code runs, and memory is bounded.

All tests run the commands that users type.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from documents import replace_file, rewrite_manifest
from manyheads.cli import main
from training_setup import encoder_folder, run, sentences, settings, write_records

ROOM = 400 << 20
"""Bytes that a command may take beyond what the tests' process has already."""

Ask = Callable[..., str]
"""Run a command that must be refused, and return what it says."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and the finished run that it describes."""
    folder = tmp_path_factory.mktemp("hostile")
    tasks = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging", "neck": "bilstm"}}
    run(folder, tasks=tasks, num_epochs=2)
    write_config(folder, tasks=tasks, num_epochs=2)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    for path in pristine.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(folder: Path, **changes: Any) -> None:
    values = settings(folder, **changes)
    values |= {"train_file": "train.jsonl", "valid_file": "valid.jsonl", "save_dir": "saved"}
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


@pytest.fixture
def bounded() -> Iterator[None]:
    """Let whatever needs much memory fail."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def refused(bounded: None, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*arguments: str | Path) -> str:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert status == 2, said
        assert "not enough memory" not in said
        assert len(said) < 5000
        return said

    return ask


# ---------------------------------------------------------------------------------- pickle bombs


class Bomb:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def bombs(mark: Path) -> Iterator[bytes]:
    """The same bomb as a bare pickle, as torch writes files now, and as it did long ago."""
    yield pickle.dumps(Bomb(mark))
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"model": Bomb(mark)}, stream, _use_new_zipfile_serialization=zipped)
        yield stream.getvalue()


def test_the_bombs_would_go_off(tmp_path: Path) -> None:
    for number, bomb in enumerate(bombs(tmp_path / "mark")):
        if number:
            torch.load(io.BytesIO(bomb), weights_only=False)
        else:
            pickle.loads(bomb)
        (tmp_path / "mark").unlink()


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["pickle", "zip", "legacy"])
def test_a_bomb_in_place_of_a_checkpoint_does_not_go_off(
    folder: Path, refused: Ask, kind: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb, mark = list(bombs(folder / "mark"))[kind], folder / "mark"
    for name in ("mtl_epoch2.pt", "mtl_step99.pt"):
        (folder / "saved" / name).write_bytes(bomb)
        for command in ("info", "evaluate"):
            assert name in refused(command, f"saved/{name}")
        assert name in refused("predict", f"saved/{name}", "john")
    assert main(["train", "config.yaml", "--resume"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("skipped a checkpoint") == 2
    assert "saved/mtl_epoch1.pt" in said
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "heads.safetensors", "config.json", "tokenizer.json", "manyheads.json"],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_a_bomb_in_place_of_a_models_file_does_not_go_off(
    folder: Path, refused: Ask, name: str, sealed: bool
) -> None:
    for bomb in bombs(folder / "mark"):
        if sealed and name != "manyheads.json":
            replace_file(folder / "saved" / "best", name, bomb)
        else:
            (folder / "saved" / "best" / name).write_bytes(bomb)
        if not sealed:
            assert name in refused("info", "saved/best")
        refused("predict", "saved/best", "john")
        refused("evaluate", "saved/best")
    assert not (folder / "mark").exists()


def test_bombs_under_every_other_name_are_not_looked_at(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        "pytorch_model.bin", "model.pt", "model.pkl", "model.bin", "optimizer.pt", "optimizer.bin",
        "scheduler.pt", "scaler.pt", "rng_state.pth", "random_states_0.pkl", "training_args.bin",
        "state.pkl", "adapter_model.bin", "1_Pooling/pytorch_model.bin", "modeling.py",
        "tokenizer.model", "sentencepiece.bpe.model", "heads.pt", "heads.bin", "config.pkl",
    )  # fmt: skip
    copy_encoder(folder)
    all_kinds = cycle(bombs(folder / "mark"))
    for place in ("saved/best", "saved", "encoder"):
        for name in names:
            path = folder / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(next(all_kinds))
    for arguments in (
        ["info", "saved"],
        ["predict", "saved/best", "john lives in london"],
        ["evaluate", "saved/best", "--file", "valid.jsonl"],
        ["train", "config.yaml", "--resume"],
        [*TRAIN],
    ):
        assert main(arguments) == 0, capsys.readouterr().err
    assert not (folder / "mark").exists()


def test_an_encoder_of_pickled_weights_alone_is_refused(folder: Path, refused: Ask) -> None:
    copy_encoder(folder)
    (folder / "encoder" / "model.safetensors").unlink()
    for bomb in bombs(folder / "mark"):
        (folder / "encoder" / "pytorch_model.bin").write_bytes(bomb)
        said = refused(*TRAIN)
        assert "the encoder has no model.safetensors" in said
        assert "Pickled weights are never read" in said
    assert not (folder / "mark").exists()


# ------------------------------------------------------------------- safetensors and JSON that lie

TRAIN = ("train", "config.yaml", "--model_name", "encoder", "--save_dir", "new")


def copy_encoder(folder: Path) -> Path:
    return Path(shutil.copytree(encoder_folder(), folder / "encoder"))


def lying(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


F32 = {"dtype": "F32"}
LIES = {
    "a header of an exabyte": lying({}, length=1 << 60),
    "a tensor of a terabyte": lying(
        {"pooler.dense.bias": F32 | {"shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    ),
    "a shape that its bytes do not have": lying(
        {"w": F32 | {"shape": [1 << 20, 1 << 20], "data_offsets": [0, 4]}}, b"1234"
    ),
    "two tensors in one place": lying(
        {n: F32 | {"shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"1234"
    ),
    "a place before the file": lying({"w": F32 | {"shape": [1], "data_offsets": [-4, 0]}}, b"1234"),
    "a header nested without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_whose_header_lies_are_refused(folder: Path, refused: Ask, lie: str) -> None:
    for name in ("model.safetensors", "heads.safetensors"):
        best = shutil.copytree(folder / "saved" / "best", folder / name)
        replace_file(best, name, LIES[lie])
        assert name in refused("predict", best, "john")
    (copy_encoder(folder) / "model.safetensors").write_bytes(LIES[lie])
    assert "the weights cannot be loaded" in refused(*TRAIN)


def test_json_nested_ten_thousand_deep_is_refused_wherever_it_is(
    folder: Path, refused: Ask
) -> None:
    for deep in ("[" * 10_000, '{"text":' * 10_000 + "1" + "}" * 10_000):
        for name in ("x.json", "x.jsonl"):
            Path(name).write_text(deep, encoding="utf-8")
            assert main(["data", "check", name]) in (1, 2)
            assert name in refused("train", "config.yaml", "--train_file", name, "--overwrite")
            assert name in refused("evaluate", "saved/best", "--file", name)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "manyheads.json"):
            best = shutil.copytree(folder / "saved" / "best", folder / "best")
            if name == "manyheads.json":
                (best / name).write_text(deep, encoding="utf-8")
            else:
                replace_file(best, name, deep.encode())
            assert name in refused("predict", best, "john")
            shutil.rmtree(best)
        for name in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"):
            encoder = copy_encoder(folder)
            (encoder / name).write_text(deep, encoding="utf-8")
            assert name in refused(*TRAIN)
            shutil.rmtree(encoder)


def test_a_yaml_bomb_is_refused(folder: Path, refused: Ask) -> None:
    names = "abcdefghi"
    lines = ["a: &a [" + ", ".join(["x"] * 9) + "]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]" for m, n in pairwise(names)]
    Path("bomb.yaml").write_text("\n".join(lines), encoding="utf-8")
    assert "bomb.yaml" in refused("train", "bomb.yaml")
    assert "bomb.yaml" in refused("data", "check", "train.jsonl", "--config", "bomb.yaml")
    Path("bomb.yaml").write_text("tasks: " + "{a: " * 10_000, encoding="utf-8")
    assert "bomb.yaml" in refused("train", "bomb.yaml")
    Path("bomb.yaml").write_text("!!python/object/apply:os.mkdir [mark]", encoding="utf-8")
    assert "bomb.yaml" in refused("train", "bomb.yaml")
    assert not Path("mark").exists()


# ------------------------------------------------------------------------- wishes for code and more


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
        ("config.json", {"trust_remote_code": True}),
        ("config.json", {"attn_implementation": "evil/kernels"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
        ("tokenizer.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
    ],
)
def test_files_that_ask_for_code_are_refused(
    folder: Path, refused: Ask, name: str, wish: dict[str, Any]
) -> None:
    encoder, best = copy_encoder(folder), folder / "saved" / "best"
    for place in (encoder, best):
        path = place / name
        changed = json.dumps(json.loads(path.read_text(encoding="utf-8")) | wish).encode()
        if place == best:
            replace_file(best, name, changed)
        else:
            path.write_bytes(changed)
        (place / "evil.py").write_text("open('mark', 'w')\nclass Evil: pass\n", encoding="utf-8")
    key = next(iter(wish))
    assert f'"{key}" asks for code' in refused(*TRAIN)
    assert f'"{key}" asks for code' in refused("predict", "saved/best", "john")
    assert not (folder / "mark").exists()


GIANT = [
    {"hidden_size": 1 << 20},
    {"intermediate_size": 1 << 40},
    {"vocab_size": 1 << 40},
    {"max_position_embeddings": 1 << 40},
    {"num_hidden_layers": 10**9},
    {"num_hidden_layers": 900},
    {"num_labels": 10**9},
    {"num_hidden_layers": "x"},
    {"num_attention_heads": 0},
    {"hidden_size": -1},
    {"type_vocab_size": 1 << 40},
    {"pad_token_id": 10**9},
    {"hidden_act": "evil"},
    {"model_type": "modernbert", "hidden_size": 1 << 20},
    {"model_type": "t5"},
    {"model_type": "wav2vec2"},
    {"chunk_size_feed_forward": {}},
    {"chunk_size_feed_forward": "x"},
]


@pytest.mark.parametrize("change", GIANT, ids=str)
def test_an_encoder_that_its_weights_do_not_bear_out_takes_no_memory(
    folder: Path, refused: Ask, change: dict[str, Any]
) -> None:
    best, encoder = folder / "saved" / "best", copy_encoder(folder)
    for place in (best, encoder):
        path = place / "config.json"
        changed = json.dumps(json.loads(path.read_text(encoding="utf-8")) | change).encode()
        if place == best:
            replace_file(best, "config.json", changed)
        else:
            path.write_bytes(changed)
    refused(*TRAIN)
    refused("predict", "saved/best", "john")


def test_heads_that_their_parameters_do_not_bear_out_take_no_memory(
    folder: Path, refused: Ask
) -> None:
    best = folder / "saved" / "best"
    for change in ({"neck_size": 1 << 30}, {"neck_layers": 8}, {"neck": "transformer"}):
        rewrite_manifest(best, lambda v: v["config"]["tasks"]["ner"].update(change))  # noqa: B023
        said = refused("predict", best, "john")
        assert "heads.safetensors: " in said
        assert "does not have the parameters" in said or "heads cannot be built" in said


def test_a_length_that_the_encoder_cannot_read_is_refused(folder: Path, refused: Ask) -> None:
    best = folder / "saved" / "best"
    for length in (0, 65, 10**12):
        rewrite_manifest(best, lambda v: v["encoder"].update(max_length=length))  # noqa: B023
        assert f"reads {length} sub-tokens at once" in refused("predict", best, "john")
    rewrite_manifest(best, lambda v: v["encoder"].update(max_length=32))
    for length in (65, 10**12):
        rewrite_manifest(
            best,
            lambda v: v["encoder"]["reading"].update(max_length=length),  # noqa: B023
        )
        assert f"{length}" in refused("predict", best, "john", "--embed")


@pytest.mark.parametrize(
    "change",
    [
        # What the library panics at when the tokenizer is used for the first time.
        lambda v: v["post_processor"]["special_tokens"].clear(),
        lambda v: v["post_processor"].update(special_tokens={"[CLS]": {}}),
        lambda v: v["model"].update(vocab={}),
        lambda v: v["model"].update(vocab={t: 2**31 + i for t, i in v["model"]["vocab"].items()}),
    ],
)
def test_a_tokenizer_at_which_its_library_panics_is_refused(
    folder: Path, refused: Ask, change: Callable[[dict[str, Any]], object]
) -> None:
    best, encoder = folder / "saved" / "best", copy_encoder(folder)
    values = json.loads((best / "tokenizer.json").read_text(encoding="utf-8"))
    change(values)
    replace_file(best, "tokenizer.json", json.dumps(values).encode())
    (encoder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    assert "tokenizer" in refused("predict", best, "qqq \u65e5")
    assert "tokenizer" in refused(*TRAIN)


# ------------------------------------------------------------------------------------ labels, paths


def test_a_label_of_a_megabyte_is_learned_or_refused_in_a_short_message(
    folder: Path, bounded: None, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = sentences(14, 1)
    huge[0]["label"] = "x" * (1 << 20)
    write_records(folder / "huge.jsonl", huge)
    main(["data", "check", "huge.jsonl"])
    said = capsys.readouterr()
    assert len(said.out) + len(said.err) < 20_000
    status = main(["train", "config.yaml", "--train_file", "huge.jsonl", "--save_dir", "huge"])
    said = capsys.readouterr()
    assert status in (0, 2)
    assert len(said.out) + len(said.err) < 20_000
    huge[0] |= {"label": "question", "ner": ["B-" + "x" * (1 << 20)] * len(huge[0]["tokens"])}
    write_records(folder / "huge.jsonl", huge)
    assert main(["train", "config.yaml", "--train_file", "huge.jsonl", "--save_dir", "tags"]) in (
        0,
        2,
    )
    said = capsys.readouterr()
    assert len(said.out) + len(said.err) < 20_000


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd", "a/../../../secret"])
def test_names_that_lead_out_of_the_folder_are_refused(
    folder: Path, refused: Ask, name: str
) -> None:
    encoder, best = copy_encoder(folder), folder / "saved" / "best"
    rewrite_manifest(best, lambda v: v["files"].update({name: v["files"]["config.json"]}))
    assert "leads out of the folder" in refused("info", best)
    assert "leads out of the folder" in refused("predict", best, "john")
    (encoder / "model.safetensors").rename(folder / "secret.safetensors")
    index = {"weight_map": {"embeddings.word_embeddings.weight": name}}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "leads out of the folder" in refused(*TRAIN)
    modules = [{"type": "sentence_transformers.models.Pooling", "path": name}]
    (encoder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    assert "leads out of the folder" in refused(*TRAIN)
