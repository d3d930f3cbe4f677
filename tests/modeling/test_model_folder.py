"""A model folder loads in three libraries, exactly, and is refused if incomplete."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from documents import replace_file, rewrite_manifest
from files import contents_of
from manyheads.errors import ManyheadsError, ModelError, RequestError
from manyheads.modeling import (
    ModelContents,
    load_model_folder,
    load_state,
    model_folder,
    save_model_folder,
)
from manyheads.modeling.model_folder import software_versions
from manyheads.storage import (
    LAYOUT,
    EncoderFiles,
    Reading,
    StorageError,
    is_model_folder,
    model_card,
    read_encoder,
    read_heads,
    read_manifest,
    sha256,
)
from small_disk import small_disk
from tiny import tiny_encoder_folder

TASKS = [
    {"name": "intent", "kind": "classification", "labels": ["greet", "ask | order", "*"]},
    {
        "name": "ner",
        "kind": "tagging",
        "labels": ["O", "B-PER", "I-PER"],
        "scheme": "bio",
        "decoder": "crf",
    },
]
METRICS = {
    "tasks": {"intent": {"accuracy": 0.5, "per_class": {}}, "ner": {"f1": 0.25, "support": 3}},
    "frame_accuracy": 0.125,
    "records": 8,
}
TEXTS = ["John lives in Paris.", "hi", "what is the weather in london on monday " * 9]


def encoder_contents(source: Path, seed: int = 0, **changes: Any) -> ModelContents:
    """The contents of a tiny encoder's folder, as training makes them."""
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(source)
    names = ("tokenizer.json", "tokenizer_config.json")
    generator = torch.Generator().manual_seed(seed)
    values = ModelContents(
        tasks=TASKS,
        encoder=EncoderFiles(
            config=json.loads((source / "config.json").read_bytes()),
            files={name: (source / name).read_bytes() for name in names},
            pooling="mean",
            normalize=True,
            max_length=24,
            hidden_size=32,
        ),
        encoder_state=backbone.state_dict(),
        head_state={
            "intent.linear.weight": torch.randn(3, 32, generator=generator),
            "ner.crf.pairwise": torch.randn(3, 3, generator=generator),
        },
        metrics=METRICS,
        config={"model_name": "sentence-transformers/all-MiniLM-L6-v2", "seed": 1},
    )
    return replace(values, **changes)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_folder(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def contents(source: Path) -> ModelContents:
    return encoder_contents(source)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, contents: ModelContents) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "best"
    save_model_folder(folder, contents)
    return folder


@pytest.fixture
def best(tmp_path: Path, pristine: Path) -> Path:
    """A model folder to damage."""
    return Path(shutil.copytree(pristine, tmp_path / "best"))


def same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


# Three libraries


def mean_embeddings(source: Path, texts: list[str], max_length: int) -> Tensor:
    """Embeddings computed step by step."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt"
    )
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(source)(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)


def test_sentence_transformers_computes_the_same_embeddings(source: Path, pristine: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(os.fspath(pristine), device="cpu")
    assert model.max_seq_length == 24
    embeddings = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(embeddings, mean_embeddings(source, TEXTS, 24))


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [
        ("cls", lambda tokens: tokens[:, 0]),
        ("max", lambda tokens: tokens.amax(1)),
        ("mean", lambda tokens: tokens.mean(1)),
    ],
)
def test_sentence_transformers_pools_as_the_encoder_does(
    tmp_path: Path,
    contents: ModelContents,
    pooling: str,
    reduce: Callable[[Tensor], Tensor],
) -> None:
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    encoder = replace(contents.encoder, pooling=pooling, normalize=False)
    save_model_folder(tmp_path / "best", replace(contents, encoder=encoder))
    assert not (tmp_path / "best" / LAYOUT.normalize).exists()
    batch = AutoTokenizer.from_pretrained(tmp_path / "best")(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(tmp_path / "best")(**batch).last_hidden_state
    model = SentenceTransformer(os.fspath(tmp_path / "best"), device="cpu")
    embeddings = model.encode(TEXTS[:1], convert_to_tensor=True)
    torch.testing.assert_close(embeddings, reduce(tokens))


def test_transformers_loads_the_encoder_whole(pristine: Path, contents: ModelContents) -> None:
    from transformers import AutoModel

    model, info = AutoModel.from_pretrained(pristine, output_loading_info=True)
    assert not any(info.values()), info
    assert same(model.state_dict(), contents.encoder_state)


def test_the_runtime_reads_its_part_without_torch(pristine: Path, contents: ModelContents) -> None:
    manifest = read_manifest(pristine)
    assert [task["name"] for task in manifest.tasks] == ["intent", "ner"]
    assert (manifest.pooling, manifest.normalize, manifest.max_length) == ("mean", True, 24)
    assert manifest.read("tokenizer.json") == contents.encoder.files["tokenizer.json"]
    assert read_encoder(manifest) == contents.encoder
    heads = read_heads(manifest)
    for name, tensor in contents.head_state.items():
        np.testing.assert_array_equal(heads[name], tensor.numpy())


# Round trips


def test_everything_is_restored_exactly(pristine: Path, contents: ModelContents) -> None:
    loaded = load_model_folder(pristine)
    assert list(loaded.tasks) == TASKS
    assert loaded.encoder == contents.encoder
    assert (loaded.metrics, loaded.config) == (METRICS, contents.config)
    assert loaded.versions == software_versions()
    # PyTorch's wheels name their build (+cpu, +cu130) in one of the two places or in both.
    assert loaded.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert same(
        dict(sorted(loaded.encoder_state.items())), dict(sorted(contents.encoder_state.items()))
    )
    assert same(loaded.head_state, contents.head_state)


def test_the_same_contents_make_the_same_bytes(tmp_path: Path, best: Path, source: Path) -> None:
    again = encoder_contents(source)
    tied = {**again.encoder_state, "x": again.head_state["ner.crf.pairwise"]}
    tied |= {f"x{i}": tied["x"] for i in range(5)}
    again = replace(again, encoder_state=tied)
    for name in ("a", "b"):
        save_model_folder(tmp_path / name, again)
    assert contents_of(tmp_path / "a") == contents_of(tmp_path / "b")
    # Writing what was read changes nothing.
    save_model_folder(tmp_path / "c", load_model_folder(best))
    assert contents_of(tmp_path / "c") == contents_of(best)


def test_shared_tensors_are_written_once_and_views_without_their_base(
    tmp_path: Path, contents: ModelContents
) -> None:
    table = torch.randn(300, 32)
    state = {"shared": table, "tied": table, "row": table[7], "turned": table[:2].T}
    save_model_folder(tmp_path / "best", replace(contents, encoder_state=state))
    assert (tmp_path / "best" / LAYOUT.weights).stat().st_size < table.nbytes + 2000
    loaded = load_model_folder(tmp_path / "best").encoder_state
    assert same({name: loaded[name] for name in state}, state)


def test_the_files_are_readable_for_everyone_who_can_read_the_folder(
    tmp_path: Path, contents: ModelContents
) -> None:
    old = os.umask(0o027)
    try:
        save_model_folder(tmp_path / "best", contents)
    finally:
        os.umask(old)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "best").rglob("*.*")}
    assert modes <= {0o640, 0o750}


def test_another_model_is_replaced_as_a_whole(
    tmp_path: Path, best: Path, contents: ModelContents
) -> None:
    (best / "onnx").mkdir()
    encoder = replace(contents.encoder, normalize=False)
    save_model_folder(best, replace(contents, encoder=encoder))
    assert not (best / "onnx").exists()
    assert not (best / "2_Normalize").exists()
    assert not load_model_folder(best).encoder.normalize


def test_a_folder_that_holds_something_else_is_not_replaced(
    tmp_path: Path, contents: ModelContents
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RequestError, match="holds something other than a model; expected a model"):
        save_model_folder(tmp_path, contents)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    save_model_folder(tmp_path / "empty", contents)
    assert is_model_folder(tmp_path / "empty")


def test_a_tokenizer_file_cannot_take_the_place_of_another(
    tmp_path: Path, contents: ModelContents
) -> None:
    for name in ("config.json", "manyheads.json", "../evil", ".hidden"):
        encoder = replace(contents.encoder, files={**contents.encoder.files, name: b"{}"})
        with pytest.raises(ValueError, match="are not its own"):
            save_model_folder(tmp_path / "best", replace(contents, encoder=encoder))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_the_old_model(tmp_path: Path, contents: ModelContents) -> None:
    with small_disk(tmp_path / "disk") as disk:
        save_model_folder(disk / "best", contents)
        before = contents_of(disk)
        large = {f"w{i}": torch.zeros(64, 1024) for i in range(8)}
        changes: list[dict[str, Any]] = [
            {"encoder_state": large},
            {"metrics": {"tasks": {"a" * (2 << 20): {}}}},
        ]
        for change in changes:
            with pytest.raises(StorageError, match=r"best: cannot be written: the disk is full \("):
                save_model_folder(disk / "best", replace(contents, **change))
        assert contents_of(disk) == before
        load_model_folder(disk / "best")


# Damage

LISTED = [
    "config.json",
    "model.safetensors",
    "heads.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
]


def test_every_file_but_manifest_and_card_is_listed(best: Path) -> None:
    assert set(contents_of(best)) == {*LISTED, "manyheads.json", "README.md"}
    assert set(read_manifest(best).files) == set(LISTED)
    (best / "README.md").write_text("My own words.")
    (best / "notes.txt").touch()
    load_model_folder(best)


@pytest.mark.parametrize("name", LISTED)
def test_a_damaged_truncated_or_missing_file_is_refused_by_name(best: Path, name: str) -> None:
    path = best / name
    original = path.read_bytes()
    flipped = bytearray(original)
    flipped[len(flipped) // 2] ^= 1
    for data, message in (
        (flipped, f"{path}: has the SHA-256 {sha256(flipped)}; expected {sha256(original)}"),
        (original[:-1], f"{path}: has {len(original) - 1:,} bytes; expected the {len(original)}"),
        (b"", f"{path}: has 0 bytes; expected the {len(original)}"),
        (None, f"{path}: is missing; expected the {len(original)} bytes"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(ModelError, match=re.escape(message)):
            load_model_folder(best)


@pytest.mark.parametrize("name", ["heads.safetensors", "model.safetensors", "manyheads.json"])
def test_a_file_of_another_model_is_refused(
    tmp_path: Path, best: Path, source: Path, name: str
) -> None:
    other = encoder_contents(tiny_encoder_folder(tmp_path / "other encoder", seed=1), seed=1)
    save_model_folder(tmp_path / "other", other)
    shutil.copy(tmp_path / "other" / name, best / name)
    blamed = "heads.safetensors|model.safetensors" if name == "manyheads.json" else name
    with pytest.raises(ModelError, match=f"({blamed}): has the SHA-256 .* from another model"):
        load_model_folder(best)


def test_a_change_of_the_manifest_is_refused(best: Path) -> None:
    path = best / LAYOUT.manifest
    text = path.read_text()
    path.write_text(text.replace("B-PER", "B-LOC"))
    with pytest.raises(ModelError, match=r"manyheads\.json: has changed since the model was saved"):
        read_manifest(best)
    path.write_text(json.dumps(json.loads(text)))  # formatted differently, with the same contents
    load_model_folder(best)


def test_every_flipped_bit_of_the_manifest_is_refused_or_without_effect(best: Path) -> None:
    path = best / LAYOUT.manifest
    original = path.read_bytes()
    expected = read_manifest(best)
    for at in range(0, len(original), 7):
        data = bytearray(original)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        try:
            assert read_manifest(best) == expected, f"byte {at} changed the manifest"
        except ManyheadsError as error:
            assert str(error).startswith(f"{best}")  # noqa: PT017


def test_a_newer_format_is_refused_by_name(best: Path) -> None:
    rewrite_manifest(best, lambda v: v.update(format_version=2, versions={"manyheads": "9.1"}))
    message = "is of format 2, written by Manyheads '9.1'; expected format 1 or older. Upgrade"
    with pytest.raises(ModelError, match=message):
        load_model_folder(best)


def test_other_folders_are_refused(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ModelError, match="missing: is not a folder that exists; expected a model"):
        load_model_folder(tmp_path / "missing")
    with pytest.raises(ModelError, match=r"has no manyheads\.json; expected a model folder"):
        load_model_folder(source)
    (tmp_path / "manyheads.json").write_text('{"format": "other"}')
    with pytest.raises(ModelError, match="is not the manifest of a Manyheads model"):
        load_model_folder(tmp_path)


# Hostile folders


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format_version=True), "has True as its format version"),
        (lambda v: v.pop("versions"), "has None as versions"),
        (lambda v: v.update(tasks={}), "has {} as tasks"),
        (lambda v: v.update(tasks=[1]), r"has \[1\] as tasks"),
        (lambda v: v.update(files=[]), r"has \[\] as files"),
        (lambda v: v["files"].update(x=1), "has 1 as files.x"),
        (lambda v: v["files"].update(x={"size": -1, "sha256": "0" * 64}), "has -1 as files.x.size"),
        (lambda v: v["files"].update(x={"size": 1, "sha256": "no"}), "has 'no' as files.x.sha256"),
        (lambda v: v["encoder"].update(pooling="evil"), "has 'evil' as encoder.pooling"),
        (lambda v: v["encoder"].update(max_length="9"), "has '9' as encoder.max_length"),
        (lambda v: v["encoder"].update(tokenizer_files=["x"]), "as encoder.tokenizer_files"),
        (lambda v: v["encoder"].update(tokenizer_files=[{}]), "as encoder.tokenizer_files"),
        (
            lambda v: v["encoder"].update(tokenizer_files=["tokenizer.json", {}]),
            "as encoder.tokenizer_files",
        ),
        (
            lambda v: v["encoder"]["reading"].update(default_prompt_name=[]),
            "as encoder.reading.default_prompt_name",
        ),
        (lambda v: v.update(metrics=None), "has None as metrics"),
        (lambda v: v.update(epoch="1"), "has '1' as epoch"),
        (lambda v: v.update(shared_tensors={"a": {"b": 1}}), "has 1 as shared_tensors.a.b"),
        (
            lambda v: v["files"].update({"../../etc/passwd": v["files"]["config.json"]}),
            "the file name '../../etc/passwd' leads out of the folder",
        ),
        (
            lambda v: v["files"].update({"/etc/passwd": v["files"]["config.json"]}),
            "the file name '/etc/passwd' leads out of the folder",
        ),
        (lambda v: v["files"].pop("heads.safetensors"), "has no 'heads.safetensors' in its list"),
        (lambda v: v["files"].pop("config.json"), "has no 'config.json' in its list"),
    ],
)
def test_a_hostile_manifest_with_a_right_seal_is_refused(
    best: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite_manifest(best, change)
    with pytest.raises(ModelError, match=message):
        load_model_folder(best)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, best: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((best / "heads.safetensors").read_bytes())
    (best / "heads.safetensors").unlink()
    (best / "heads.safetensors").symlink_to(secret)
    with pytest.raises(ModelError, match="leads out of the folder"):
        load_model_folder(best)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("config.json", b'{"auto_map": {"AutoModel": "evil.Evil"}}', '"auto_map" asks for code'),
        ("config.json", b'{"a": {"trust_remote_code": true}}', '"trust_remote_code" asks for code'),
        ("config.json", b"[]", "is not a JSON object"),
        ("config.json", b"[" * 10_000, "is nested more than 100 levels deep"),
        ("tokenizer_config.json", b'{"auto_map": {"AutoTokenizer": [1]}}', '"auto_map" asks for'),
        ("tokenizer.json", b'{"auto_map": {}}', '"auto_map" asks for code'),
        ("tokenizer.json", b"{" * 10_000, "is not JSON"),
    ],
)
def test_a_folder_that_asks_for_its_own_code_is_refused(
    best: Path, name: str, data: bytes, message: str
) -> None:
    replace_file(best, name, data)
    with pytest.raises(ModelError, match=message) as caught:
        load_model_folder(best)
    assert str(caught.value).startswith(os.fspath(best / name))
    with pytest.raises(ModelError, match=message):
        read_encoder(read_manifest(best))


def test_a_word_of_the_vocabulary_is_not_taken_for_a_setting(best: Path) -> None:
    replace_file(best, "tokenizer.json", b'{"model": {"vocab": {"auto_map": 7}}}')
    read_encoder(read_manifest(best))


def safetensors(header: object, body: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(shape: list[int], begin: int = 0, end: int = 16, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Bomb:
    """Creates a folder when it is unpickled."""

    path = ""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        struct.pack("<Q", 1 << 60) + b"{}",
        safetensors(b"not json"),
        safetensors(b"[" * 100_000),
        safetensors({"a": entry([400])}),
        safetensors({"a": entry([4])}, bytes(8)),
        safetensors({"a": entry([4], 0, 1 << 40)}),
        safetensors({"a": entry([1 << 62, 1 << 62])}),
        safetensors({"a": entry([4]), "b": entry([4])}),
        safetensors({"a": entry([4], 16, 0)}),
        safetensors({"a": entry([4], dtype="EVIL")}),
        pickle.dumps({"a": 1}),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
def test_tensors_with_an_invalid_header_are_refused(best: Path, name: str, data: bytes) -> None:
    replace_file(best, name, data)
    message = re.escape(f"{best / name}: is not a usable safetensors file (")
    with pytest.raises(ModelError, match=message):
        load_model_folder(best)
    if name == "heads.safetensors":
        with pytest.raises(ModelError, match=message):
            read_heads(read_manifest(best))


def test_no_file_is_ever_unpickled(
    tmp_path: Path, best: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bomb, "path", os.fspath(tmp_path / "executed"))
    bomb = pickle.dumps(Bomb())
    for name in ("pytorch_model.bin", "model.bin", "training_args.bin", "model.pt", "heads.pkl"):
        (best / name).write_bytes(bomb)
    (best / "modeling_evil.py").write_text(f"import os; os.mkdir({Bomb.path!r})")
    load_model_folder(best)
    for name in ("model.safetensors", "heads.safetensors"):
        replace_file(best, name, bomb)
        with pytest.raises(ModelError, match="Nothing in it was executed"):
            load_model_folder(best)
    (best / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors: is missing"):
        load_model_folder(best)
    assert not (tmp_path / "executed").exists()


def test_a_manifest_of_a_terabyte_is_not_read(best: Path) -> None:
    with (best / LAYOUT.manifest).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(StorageError, match="cannot be read: it has 1099511627776 bytes"):
        read_manifest(best)


# Strict loading of parameters


def test_parameters_that_do_not_fit_are_named_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    del state["0.bias"]
    state |= {
        "0.weight": torch.zeros(2, 4),
        "1.num_batches_tracked": torch.zeros(()),
        "head.weight": torch.zeros(1),
    }
    with pytest.raises(ModelError, match="does not have the parameters") as caught:
        load_state(module, state, "a.pt")
    message = str(caught.value)
    assert message.startswith("a.pt: ")
    assert (
        "it lacks 0.bias; it has the unexpected head.weight; it has 0.weight float32[2, 4]"
        in message
    )
    assert "0.weight float32[2, 4] for float32[2, 3]" in message
    assert "1.num_batches_tracked float32[] for int64[]" in message
    assert same(module.state_dict(), before)


def test_parameters_that_fit_are_loaded_in_the_modules_own_precision() -> None:
    module = nn.Linear(3, 2)
    state = {name: (tensor + 1).bfloat16() for name, tensor in module.state_dict().items()}
    load_state(module, state, "a.pt")
    assert module.weight.dtype == torch.float32
    assert same(module.state_dict(), {name: tensor.float() for name, tensor in state.items()})


# The model card


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    value: dict[str, Any] = yaml.safe_load(matter)
    return value


def test_the_card_has_tasks_scores_and_how_to_load_the_model(pristine: Path) -> None:
    card = (pristine / LAYOUT.card).read_text()
    assert front_matter(card) == {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "tags": [
            "manyheads",
            "sentence-transformers",
            "transformers",
            "text-classification",
            "token-classification",
        ],
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
    }
    assert r"| intent | classification | greet, ask \| order, \* |" in card
    assert "| intent | accuracy | 0.5000 |\n| ner | f1 | 0.2500 |\n| all | frame accuracy" in card
    assert "On the validation data (8 records)" in card
    assert 'SentenceTransformer("path/to/this/folder")' in card
    assert "the mean of its tokens' vectors, scaled to length one" in card


def card_of(**changes: Any) -> str:
    values: dict[str, Any] = {
        "tasks": TASKS,
        "tags": (),
        "metrics": {},
        "base_model": None,
        "version": "1",
        "pooling": "cls",
        "normalize": False,
        "max_length": 8,
        "embedding_size": 4,
        "reading": Reading(),
    }
    return model_card(**(values | changes))


def test_a_card_may_lack_scores_and_base_model() -> None:
    card = card_of(tasks=TASKS[:1])
    assert "# A sentence encoder with one head\n" in card
    assert "None were recorded." in card
    assert "base_model" not in front_matter(card)


def test_a_local_path_is_not_published_as_base_model() -> None:
    for path in ("/home/me/encoder", "./encoder", "../a/b", "C:\\encoder", "~/encoder", "a/b/c"):
        assert "base_model" not in front_matter(card_of(base_model=path))
    assert front_matter(card_of(base_model="distilbert-base-uncased"))["base_model"]


def test_strange_labels_stay_in_their_cell() -> None:
    labels = ["a\nb", "| c |", "\ud800", "<script>", "x" * 1_000_000, "---"]
    card = card_of(tasks=[{"name": "--- \n evil: 1", "kind": "multilabel", "labels": labels}])
    (row,) = [line for line in card.split("\n") if "multilabel" in line]
    assert len(row) < 300
    assert re.sub(r"\\.", "", row).count("|") == 4
    assert r"a b, \| c \|, ?, \<script\>, xxx" in row
    many = card_of(tasks=[{"name": "t", "kind": "k", "labels": [f"l{i}" for i in range(150)]}])
    assert "l39, ... (150 in all)" in many


def test_versions_of_what_is_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "_LIBRARIES", ("torch", "no-such-library"))
    assert set(software_versions()) == {"manyheads", "python", "torch"}
