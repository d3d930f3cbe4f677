"""Atomic writes, limits for untrusted files, and the model folder format."""

from __future__ import annotations

from manyheads.storage.atomic import (
    StorageError,
    StrPath,
    atomic_file,
    atomic_folder,
    explain,
    explained,
    json_bytes,
    sha256,
    sha256_file,
    write_json,
)
from manyheads.storage.locate import Prefer, other_best, resolve_model
from manyheads.storage.manifest import (
    BEST,
    FORMAT,
    FORMAT_VERSION,
    LAYOUT,
    POOLING_MODES,
    EncoderFiles,
    Manifest,
    best_of,
    check_code,
    check_format_version,
    is_model_folder,
    not_tensors,
    read_encoder,
    read_heads,
    read_manifest,
    seal,
)
from manyheads.storage.manifest_update import add_files
from manyheads.storage.model_card import model_card
from manyheads.storage.run_lock import RunLock
from manyheads.storage.torch_file import check_torch_file, damaged, hostile
from manyheads.storage.untrusted import (
    MAX_JSON_BYTES,
    Fields,
    inside,
    open_regular,
    read_bytes,
    read_json,
    refuse_code,
)

__all__ = [
    "BEST",
    "FORMAT",
    "FORMAT_VERSION",
    "LAYOUT",
    "MAX_JSON_BYTES",
    "POOLING_MODES",
    "EncoderFiles",
    "Fields",
    "Manifest",
    "Prefer",
    "RunLock",
    "StorageError",
    "StrPath",
    "add_files",
    "atomic_file",
    "atomic_folder",
    "best_of",
    "check_code",
    "check_format_version",
    "check_torch_file",
    "damaged",
    "explain",
    "explained",
    "hostile",
    "inside",
    "is_model_folder",
    "json_bytes",
    "model_card",
    "not_tensors",
    "open_regular",
    "other_best",
    "read_bytes",
    "read_encoder",
    "read_heads",
    "read_json",
    "read_manifest",
    "refuse_code",
    "resolve_model",
    "seal",
    "sha256",
    "sha256_file",
    "write_json",
]
