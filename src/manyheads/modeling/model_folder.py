"""Model folders: a model written for three libraries at once, and read strictly.

The folder is a Manyheads model, a sentence-transformers model and a transformers checkpoint. Its
tensors are safetensors and everything else is text, so that no file in it can run code. The names
of the files, and everything that works without torch, are in `storage`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from manyheads.storage import (
    FORMAT,
    FORMAT_VERSION,
    LAYOUT,
    POOLING_MODES,
    EncoderFiles,
    Manifest,
    StrPath,
    atomic_folder,
    dense_folder,
    explained,
    json_bytes,
    model_card,
    not_tensors,
    read_encoder,
    read_manifest,
    refuse_other_folder,
    seal,
    sha256_file,
)
from manyheads.tasks import TaskSpec, kind_of
from manyheads.version import __version__

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors")
_SENTENCE_TRANSFORMERS = "sentence_transformers.models"
# The names of pooling flags that are not `pooling_mode_` and the mode's name.
_FLAGS = {
    **{mode: f"pooling_mode_{mode}_tokens" for mode in ("mean", "max", "weightedmean")},
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def software_versions() -> dict[str, str]:
    """Return the versions of the libraries that make a model, if they are installed."""
    own = {"manyheads": __version__, "python": platform.python_version()}
    installed = {library: _version(library) for library in _LIBRARIES}
    return own | {library: version for library, version in installed.items() if version}


@cache
def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class ModelContents:
    """The contents of a model folder."""

    tasks: Sequence[Mapping[str, Any]]
    """Each task as `TaskSpec.to_json` writes it."""
    encoder: EncoderFiles
    encoder_state: Mapping[str, Tensor] = field(repr=False)
    """The encoder's parameters, by the names that transformers gives them."""
    head_state: Mapping[str, Tensor] = field(repr=False)
    """The heads' parameters, as `<task>.<parameter>`."""
    metrics: Mapping[str, Any] = field(repr=False)
    """The scores on the validation data, in the form of `evaluate --json`; may be empty."""
    config: Mapping[str, Any] = field(repr=False)
    """The configuration of the run that made the model, as JSON values."""
    versions: Mapping[str, str] = field(default_factory=software_versions)
    epoch: int | None = None
    """The epoch of the run that made the model, counted from 1."""


def save_model_folder(path: StrPath, contents: ModelContents) -> None:
    """Write a model folder completely or not at all. The same contents make the same bytes.

    Raises:
        RequestError: a folder of this name holds something other than a model.
        StorageError: it could not be written; the old folder is unchanged.
    """
    refuse_other_folder(path)
    with atomic_folder(path) as folder:
        for name, data in _text_files(contents).items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
        shared = {
            name: _save_tensors(folder / name, state, path)
            for name, state in (
                (LAYOUT.weights, contents.encoder_state),
                (LAYOUT.heads, contents.head_state),
            )
        }
        manifest = _manifest(folder, contents, shared)
        (folder / LAYOUT.manifest).write_bytes(json_bytes(manifest))
        (folder / LAYOUT.card).write_text(_card(contents), encoding="utf-8")


def load_model_folder(model: StrPath | Manifest) -> ModelContents:
    """Read and verify a model folder. Its tensors are on the CPU.

    Args:
        model: the folder, or its manifest.

    Raises:
        ModelError: it is not a model folder, or a file in it is missing, truncated, damaged,
            hostile, of another model or of a newer format.
        StorageError: it cannot be read.
    """
    manifest = model if isinstance(model, Manifest) else read_manifest(model)
    # Tensors are read into memory once, so that the verified bytes are those that are used.
    tensors = (LAYOUT.weights, LAYOUT.heads)
    manifest.verify(*(name for name in manifest.files if name not in tensors))
    return ModelContents(
        tasks=manifest.tasks,
        encoder=read_encoder(manifest),
        encoder_state=_load_tensors(manifest, LAYOUT.weights),
        head_state=_load_tensors(manifest, LAYOUT.heads),
        metrics=manifest.metrics,
        config=manifest.config,
        versions=manifest.versions,
        epoch=manifest.epoch,
    )


def _text_files(contents: ModelContents) -> dict[str, bytes]:
    """Return every text file except the manifest and the card."""
    encoder = contents.encoder
    files = {
        LAYOUT.config: json_bytes(encoder.config),
        LAYOUT.max_length: json_bytes(
            {
                "max_seq_length": encoder.reading.max_length or encoder.max_length,
                "do_lower_case": encoder.reading.lower_case,
            }
        ),
        LAYOUT.sentence_transformers: json_bytes(_library_settings(contents)),
        **_module_files(encoder),
    }
    taken = {*files, LAYOUT.manifest, LAYOUT.card, LAYOUT.weights, LAYOUT.heads}
    if any(name in taken or "/" in name or name.startswith(".") for name in encoder.files):
        raise ValueError(f"the tokenizer's files {sorted(encoder.files)} are not its own")
    return files | dict(encoder.files)


def _library_settings(contents: ModelContents) -> dict[str, Any]:
    """Return the settings of the whole model for sentence-transformers."""
    reading, versions = contents.encoder.reading, contents.versions
    return {
        "__version__": {n: v for n, v in versions.items() if n in ("torch", "transformers")},
        "prompts": dict(reading.prompts),
        "default_prompt_name": reading.default_prompt_name,
        "similarity_fn_name": reading.similarity,
    }


def _module_files(encoder: EncoderFiles) -> dict[str, bytes]:
    """Return the files of the modules after the transformer, and the list of all modules."""
    modules = [("", "Transformer"), (LAYOUT.pooling, "Pooling")]
    files = {LAYOUT.pooling: json_bytes(_pooling(encoder))}
    for i, layer in enumerate(encoder.dense):
        modules.append((f"{dense_folder(i)}/config.json", "Dense"))
        files[f"{dense_folder(i)}/config.json"] = json_bytes(layer.settings())
        files[f"{dense_folder(i)}/{LAYOUT.weights}"] = layer.weights
    if encoder.normalize:
        name = f"{len(modules)}_{LAYOUT.normalize.partition('_')[2]}"
        modules.append((name, "Normalize"))
        files[name] = json_bytes({})
    listed = [
        {
            "idx": index,
            "name": str(index),
            "path": file.partition("/")[0],
            "type": f"{_SENTENCE_TRANSFORMERS}.{kind}",
        }
        for index, (file, kind) in enumerate(modules)
    ]
    return {**files, LAYOUT.modules: json_bytes(listed)}


def _pooling(encoder: EncoderFiles) -> dict[str, Any]:
    """Return the pooling's settings, if possible in the form that versions before 6 read.

    Those have a flag for each mode, and no order of modes.
    """
    modes = encoder.pooling.split("+")
    if modes != [mode for mode in POOLING_MODES if mode in modes]:
        return {
            "embedding_dimension": encoder.hidden_size,
            "pooling_mode": modes,
            "include_prompt": encoder.reading.include_prompt,
        }
    settings: dict[str, Any] = {"word_embedding_dimension": encoder.hidden_size}
    for mode in ("cls", "mean", "max", "mean_sqrt_len_tokens"):
        settings[_FLAGS.get(mode, f"pooling_mode_{mode}")] = mode in modes
    settings |= {_FLAGS[mode]: True for mode in ("weightedmean", "lasttoken") if mode in modes}
    return settings | ({} if encoder.reading.include_prompt else {"include_prompt": False})


def _manifest(
    folder: Path, contents: ModelContents, shared: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    encoder = contents.encoder
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    values: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": dict(contents.versions),
        "tasks": [dict(task) for task in contents.tasks],
        "encoder": {
            "pooling": encoder.pooling,
            "normalize": encoder.normalize,
            "max_length": encoder.max_length,
            "hidden_size": encoder.hidden_size,
            "tokenizer_files": sorted(encoder.files),
            "reading": encoder.reading.to_json(),
            "dense": [layer.settings() for layer in encoder.dense],
        },
        "metrics": dict(contents.metrics),
        "config": dict(contents.config),
        "files": {
            file.relative_to(folder).as_posix(): {
                "size": file.stat().st_size,
                "sha256": sha256_file(file),
            }
            for file in files
        },
        "shared_tensors": shared,
    }
    if contents.epoch is not None:
        values["epoch"] = contents.epoch
    # In the form in which it is read, so that the seal does not depend on types that JSON lacks.
    values = json.loads(json.dumps(values))
    return {**values, "sha256": seal(values)}


def _card(contents: ModelContents) -> str:
    encoder = contents.encoder
    base_model = contents.config.get("model_name")
    specs = [TaskSpec.from_json(task) for task in contents.tasks]
    kinds = [kind_of(spec.kind) for spec in specs]
    return model_card(
        tasks=[
            {"name": spec.name, "kind": spec.kind, "labels": spec.labels or kind.no_labels}
            for spec, kind in zip(specs, kinds, strict=True)
        ],
        tags=[kind.card_tag for kind in kinds if kind.card_tag],
        metrics=contents.metrics,
        base_model=base_model if isinstance(base_model, str) else None,
        version=contents.versions.get("manyheads", __version__),
        pooling=encoder.pooling,
        normalize=encoder.normalize,
        dense=bool(encoder.dense),
        reading=encoder.reading,
        max_length=encoder.max_length,
        embedding_size=encoder.embedding_size,
    )


def _save_tensors(file: Path, state: Mapping[str, Tensor], path: StrPath) -> dict[str, str]:
    """Write tensors as safetensors, where no two tensors can share memory.

    Of a tensor with several names only the first is written, as in transformers.

    Args:
        file: the file to write.
        state: the tensors.
        path: the model folder as the user knows it, for errors.

    Returns:
        For every name that was not written, the name that was.
    """
    kept: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, tensor in state.items():
        memory = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        first = kept.setdefault((memory, tensor.shape, tensor.stride()), name)
        if tensor.numel() and first != name:
            shared[name] = first
            continue
        whole = tensor.detach().to("cpu").contiguous()
        is_part = whole.untyped_storage().nbytes() != whole.numel() * whole.element_size()
        tensors[name] = whole.clone() if is_part else whole
    with explained(path):
        try:
            # transformers requires this metadata.
            save_file(tensors, file, {"format": "pt"})
        except SafetensorError as error:
            code = _OS_ERROR.search(str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        # The library creates files that only the owner can read.
        file.chmod(file.parent.stat().st_mode & 0o666)
    return shared


def _load_tensors(manifest: Manifest, name: str) -> dict[str, Tensor]:
    stored = manifest.files.get(name)
    data = manifest.read(name, stored.size if stored else 0)
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise not_tensors(error, manifest.path(name)) from None
    shared = manifest.shared_tensors.get(name, {})
    return tensors | {alias: tensors[key] for alias, key in shared.items() if key in tensors}
