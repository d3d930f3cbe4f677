"""Models on the Hugging Face hub: only safetensors, JSON and the card are fetched and pushed.

Only these functions contact the hub, and only for a name that the user gave. No other files are
requested or sent: neither graphs nor code nor pickles.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, RequestError, listing, shorten
from manyheads.storage.atomic import StrPath, json_bytes
from manyheads.storage.layout import LAYOUT, is_model_folder
from manyheads.storage.manifest import Manifest, read_manifest, seal
from manyheads.storage.untrusted import inside

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", re.ASCII)
_ALLOWED = (".json", ".safetensors")


def is_hub_name(model: StrPath) -> bool:
    """Return whether a model has the form of a hub name: `user/name` or `user/name@revision`.

    An existing path is not a hub name.
    """
    if not isinstance(model, str | os.PathLike):
        return False
    return _NAME.fullmatch(os.fspath(model)) is not None and not Path(model).exists()


def fetch_model(name: str) -> Path:
    """Fetch a model from the hub, or from the hub's cache on this machine.

    All its files are of one commit, whose hash is the name of the folder.

    Args:
        name: `user/name` for the newest revision, or `user/name@revision`.

    Returns:
        The model's folder in the cache.

    Raises:
        ModelError: there is no such model, the hub cannot be reached, or it has files other than
            safetensors and JSON.
    """
    repo, _, revision = name.partition("@")
    with _asking(f"there is no folder {name} here, and the hub"):
        api = _api()
        first = api.hf_hub_download(repo, LAYOUT.manifest, revision=revision or None)
        folder = Path(first).parent
        manifest = read_manifest(folder)
        strange = [one for one in manifest.files if not one.endswith(_ALLOWED)]
        if strange:
            raise ModelError(
                f"lists {listing(strange)}", where=name,
                expected="only safetensors and JSON, as `manyheads push` uploads them",
                fix="None of its files was fetched. Ask its author to push the model again.",
            )  # fmt: skip
        for file in manifest.files:
            inside(folder, file)
            api.hf_hub_download(repo, file, revision=folder.name)
    return folder


def push_model(folder: StrPath, name: str, *, private: bool = False) -> str:
    """Push a model to the hub; return its name with the commit, for `load`.

    Exported graphs are left out. The account is that of `hf auth login`, or of the variable
    HF_TOKEN.

    Args:
        folder: the model folder.
        name: `user/name`; created if it does not exist.
        private: whether only its owner can see a new repository.

    Raises:
        ModelError: it is no model folder, or damaged.
        RequestError: the name is not one, or the hub refuses or cannot be reached.
    """
    if _NAME.fullmatch(name) is None or "@" in name:
        raise RequestError(f"the name on the hub is {shorten(name)}", expected="user/name")
    if not is_model_folder(folder):
        raise ModelError(
            "is not a model folder", where=os.fspath(folder),
            expected="one such as saved_model/best; a checkpoint holds more than the model",
        )  # fmt: skip
    manifest = read_manifest(folder)
    manifest.verify()
    with tempfile.TemporaryDirectory(prefix="manyheads-push-") as part:
        _write_plain(manifest, Path(part))
        with _asking(f"{name} cannot be pushed: the hub", RequestError):
            api = _api()
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=name, folder_path=part, commit_message="Push a Manyheads model"
            )
    return f"{name}@{commit.oid}"


def _write_plain(manifest: Manifest, target: Path) -> None:
    """Link a model's safetensors and JSON into a folder, with a manifest of only these."""
    kept = [name for name in manifest.files if name.endswith(_ALLOWED)]
    # Graphs and their reports are in folders of their own.
    kept = [name for name in kept if not name.startswith(("onnx/", "openvino/"))]
    for name in (*kept, LAYOUT.card):
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if (manifest.folder / name).exists():
            file.symlink_to((manifest.folder / name).resolve())
    values: dict[str, Any] = json.loads((manifest.folder / LAYOUT.manifest).read_bytes())
    values["files"] = {name: values["files"][name] for name in kept}
    encoder = values["encoder"]
    encoder["tokenizer_files"] = [name for name in encoder["tokenizer_files"] if name in kept]
    values["sha256"] = seal(values)
    (target / LAYOUT.manifest).write_bytes(json_bytes(values))


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="manyheads")


@contextmanager
def _asking(failed: str, error: type[ModelError | RequestError] = ModelError) -> Iterator[None]:
    """Convert the hub's errors to user errors."""
    try:
        from huggingface_hub import errors
    except ImportError as missing:
        raise error(
            f"{failed} is reached by huggingface_hub, which cannot be imported ({missing})",
            fix="Run: pip install huggingface_hub.",
        ) from None
    # The base class of the errors of the HTTP library, which depends on huggingface_hub's version.
    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.RevisionNotFoundError:
        raise error(f"{failed} has no such revision", fix="Correct it.") from None
    except errors.EntryNotFoundError as cause:
        if isinstance(cause, errors.LocalEntryNotFoundError):
            raise error(f"{failed} cannot be reached", fix="Go online once.") from None
        raise error(
            f"{failed} has no Manyheads model of this name", expected=f"one with {LAYOUT.manifest}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise error(
            f"{failed} has no such model, or keeps it private",
            fix="Correct the path or name, or log in: hf auth login.",
        ) from None
    except errors.HfHubHTTPError as cause:
        status = cause.response.status_code
        login = status in (401, 403)
        raise error(
            f"{failed} answered {status} ({shorten(str(cause), 160)})",
            fix="Log in with an account that may write there: hf auth login." if login else "",
        ) from None
    except (errors.OfflineModeIsEnabled, http_error):
        raise error(f"{failed} cannot be reached", fix="Go online, or use a folder.") from None
