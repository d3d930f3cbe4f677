"""The settings of a sentence-transformers folder: modules, pooling and prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, at, shorten
from manyheads.modeling.pooling import PoolingSpec
from manyheads.modeling.pretrained.finding import WEIGHTS
from manyheads.storage import (
    POOLING_MODES,
    SIMILARITIES,
    DenseLayer,
    Fields,
    Reading,
    inside,
    known_pooling,
    parse_json,
    read_bytes,
    read_json,
)

# The files of a transformer's settings; sentence-transformers reads the first that exists.
_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)

# Larger values in a tokenizer's settings mean no limit.
_NO_LIMIT = 1 << 20
_MAX_DENSE_BYTES = 1 << 30


def json_object(value: object, path: Path) -> Mapping[str, Any]:
    """Check that a value is a JSON object.

    Raises:
        ModelError: it is of another type.
    """
    if not isinstance(value, dict):
        raise ModelError(
            f"{shorten(value)} is not a JSON object", where=at(path),
            expected="what `transformers` or sentence-transformers writes",
            fix="Get the encoder again.",
        )  # fmt: skip
    return value


def read_modules(root: Path) -> list[tuple[str, Path]] | None:
    """Return the modules of a sentence-transformers folder, each as its kind and its folder.

    None if the folder is a plain encoder.

    Raises:
        ModelError: `modules.json` is invalid, or has modules that are not supported.
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


def read_pooling(
    modules: Sequence[tuple[str, Path]] | None, config: Mapping[str, Any], mode: str
) -> tuple[PoolingSpec, bool]:
    """Read how the embedding is computed from token vectors.

    Args:
        modules: see `read_modules`.
        config: the transformer's `config.json`, which decides for a plain encoder.
        mode: replaces the folder's own mode, unless it is `auto`.

    Returns:
        the pooling, and whether it includes the tokens of a prompt.
    """
    own = "lasttoken" if modules is None and _is_language_model(config) else "mean"
    normalize, include_prompt, dense = False, True, []
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
            fields = Fields(json_object(read_json(file), file), at(file), "Choose another encoder.")
            for name in ("module_input_name", "module_output_name"):
                if fields.values.get(name) not in (None, "sentence_embedding"):
                    fields.refuse(name, fields.values[name])
            weights = read_bytes(folder / WEIGHTS, _MAX_DENSE_BYTES)
            dense.append(DenseLayer.from_settings(fields, weights))
    return PoolingSpec(own if mode == "auto" else mode, normalize, tuple(dense)), include_prompt


def _is_language_model(config: Mapping[str, Any]) -> bool:
    """Return whether sentence-transformers embeds a plain encoder by its last token.

    It does so with models that predict the next token, unless their tokens also read later ones.
    """
    names = config.get("architectures")
    causal = config.get("is_causal", True)
    return bool(
        isinstance(names, list) and names and str(names[0]).endswith("ForCausalLM") and causal
    )


def _pooling_mode(settings: Any, path: Path) -> str:
    """Return the mode in a pooling's settings; the mean if there is none."""
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


def read_reading(
    root: Path,
    folder: Path,
    config: Mapping[str, Any],
    files: Mapping[str, bytes],
    include_prompt: bool,
) -> Reading:
    """Read how the embedding reads a text, as sentence-transformers would.

    Args:
        root: the whole folder.
        folder: the transformer's, which may be the same.
        config: the transformer's `config.json`.
        files: the tokenizer's files.
        include_prompt: whether pooling includes a prompt's tokens.

    Raises:
        ModelError: a setting is invalid, or changes embeddings in a way that is not supported.
    """
    settings = _transformer_settings(folder)
    file = root / "config_sentence_transformers.json"
    whole = json_object(read_json(file), file) if file.is_file() else {}
    if whole.get("truncate_dim") is not None:
        raise ModelError(
            f"`truncate_dim` is {shorten(whole['truncate_dim'])}", where=at(file),
            expected="embeddings of full length",
            fix=f"Remove `truncate_dim` from {file.name} to train on the full length.",
        )  # fmt: skip
    found = json_object(whole.get("prompts") or {}, file)
    prompts = {str(name): text or "" for name, text in found.items()}
    default = whole.get("default_prompt_name")
    similarity = whole.get("similarity_fn_name") or "cosine"
    lower_case = settings.get("do_lower_case") or False
    _check_values(prompts, default, similarity, lower_case, file)
    if default is not None:
        prompts.setdefault(default, "")
    reading = Reading(
        max_length=_max_length(settings, config, files),
        lower_case=lower_case,
        prompts=prompts,
        default_prompt_name=default,
        include_prompt=bool(include_prompt),
        similarity=similarity,
    )
    if reading.prompt and not reading.include_prompt:
        raise ModelError(
            "the encoder leaves its default prompt out of the pooling", where=at(file),
            expected="a prompt that is pooled, or none", fix="Choose another encoder.",
        )  # fmt: skip
    return reading


def _transformer_settings(folder: Path) -> Mapping[str, Any]:
    """Read the settings of a folder's transformer, if there are any.

    Raises:
        ModelError: it processes texts in a way that is not supported.
    """
    file = next((folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()), None)
    if file is None:
        return {}
    settings = json_object(read_json(file), file)
    modalities = settings.get("modality_config", {})
    text = modalities.get("text", {}) if isinstance(modalities, Mapping) else None
    if (
        settings.get("transformer_task", "feature-extraction") != "feature-extraction"
        or settings.get("processing_kwargs")
        or (text and (text.get("method"), text.get("method_output_name"))
            not in (("forward", "last_hidden_state"), ("forward", ["last_hidden_state"])))
    ):  # fmt: skip
        raise ModelError(
            "the encoder processes its tokens in a way that is not supported", where=at(file),
            expected="the last hidden state of a text's tokens", fix="Choose another encoder.",
        )  # fmt: skip
    return settings


def _check_values(
    prompts: Mapping[str, Any], default: Any, similarity: Any, lower_case: Any, path: Path
) -> None:
    """Refuse settings of prompts, similarity or case that sentence-transformers does not write."""
    if (
        not all(isinstance(prompt, str) for prompt in prompts.values())
        or default not in (None, "query", "document", *prompts)
        or similarity not in SIMILARITIES
        or not isinstance(lower_case, bool)
    ):
        raise ModelError(
            "the prompts, similarity or case "
            f"{shorten([prompts, default, similarity, lower_case])} cannot be used",
            where=at(path),
            expected="what sentence-transformers writes", fix="Get the encoder again.",
        )  # fmt: skip


def _max_length(
    settings: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes]
) -> int | None:
    """Return the number of tokens that sentence-transformers reads of a text, if it is limited."""
    told = settings.get("max_seq_length")
    limits = [told]
    if told is None:
        tokenizer = parse_json(files.get("tokenizer_config.json", b"{}"), "tokenizer_config.json")
        limits = [tokenizer.get("model_max_length"), config.get("max_position_embeddings")]
    numbers = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT]
    return min(numbers, default=None)
