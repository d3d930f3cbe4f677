"""A pretrained encoder's tokenizer: its files, and the `tokenizer.json` made from them."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, at, shorten
from manyheads.modeling.pretrained.settings import json_object
from manyheads.storage import (
    MAX_JSON_BYTES,
    check_code,
    inside,
    parse_json,
    read_bytes,
    read_json,
    refuse_sizes,
    write_json,
)
from manyheads.text import TextTokenizer

TOKENIZER = "tokenizer.json"

# Files that the tokenizer libraries read besides tokenizer.json.
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Settings of a tokenizer that the library treats as paths.
_PATHS = re.compile("vocab|merges|.*_file")
_TOKENIZER_FILES = (
    _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip
_MAX_TOKEN_ID = 10_000_000
"""The largest vocabularies have a million tokens."""


def read_tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Read the tokenizer's files, with the `tokenizer.json` that the library makes from them.

    The library rebuilds some tokenizers from the vocabulary and `tokenizer_config.json`, which may
    differ from `tokenizer.json`. Other libraries use the rebuilt tokenizer with the same weights.
    They refuse batches without a padding token, so a tokenizer that has none gets another one.
    """
    names = [name for name in (*_TOKENIZER_FILES, TOKENIZER) if (folder / name).is_file()]
    files = {name: _text(inside(folder, name)) for name in names}
    check_code({}, files, at(folder))
    models = [] if TOKENIZER in files else sorted(path.name for path in folder.glob("*.model"))
    # Without any vocabulary the library would make an empty tokenizer.
    if not {"vocab.txt", "vocab.json", TOKENIZER} & files.keys() and not models:
        raise ModelError(
            "the encoder has no tokenizer", where=at(folder),
            expected=f"a {TOKENIZER}, or a vocabulary to make it of",
            fix="Get the encoder again, or save its tokenizer into the folder.",
        )  # fmt: skip
    binary = {name: read_bytes(inside(folder, name), MAX_JSON_BYTES) for name in models}
    config = _text(inside(folder, "config.json"))
    refuse_sizes(parse_json(config, at(folder / "config.json")), at(folder / "config.json"))
    made, padding = _made_tokenizer({**files, **binary, "config.json": config}, folder)
    files[TOKENIZER] = made
    if padding is not None:
        settings = json.loads(files.get(_TOKENIZER_CONFIG, b"{}"))
        text = json.dumps({**settings, "pad_token": padding}, ensure_ascii=False, indent=2)
        files[_TOKENIZER_CONFIG] = text.encode()
    return files


def _made_tokenizer(files: Mapping[str, bytes], folder: Path) -> tuple[bytes, str | None]:
    """Return the `tokenizer.json` that `transformers` makes from a tokenizer's files.

    Beside it, return the special token that pads where the tokenizer has no token for that.

    It gets only a copy of the files, because it would follow links, and paths in
    `tokenizer_config.json`, to any file of this machine.

    Raises:
        ModelError: it cannot make one, and there is none.
    """
    from transformers import AutoTokenizer

    if TOKENIZER in files:
        # Checked first here, where a panic of the library is an error: in transformers, which adds
        # tokens one by one, it ends the process.
        path = folder / TOKENIZER
        where = at(path)
        _check_token_ids(json_object(parse_json(files[TOKENIZER], where), path), where)
        TextTokenizer.from_json(files[TOKENIZER].decode(errors="replace"), where=where)
    with tempfile.TemporaryDirectory() as copy:
        for name, data in files.items():
            (Path(copy) / name).write_bytes(data)
        path = Path(copy) / _TOKENIZER_CONFIG
        if path.exists():
            settings = json_object(read_json(path), folder / _TOKENIZER_CONFIG)
            kept = {k: v for k, v in settings.items() if not _PATHS.fullmatch(k)}
            write_json(path, kept)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                copy, trust_remote_code=False, local_files_only=True
            )
            made: str = tokenizer.backend_tokenizer.to_str()
            padding = None if tokenizer.pad_token else _padding_token(tokenizer)
        except BaseException as error:  # the libraries raise all kinds, and panic
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if TOKENIZER in files:
                return files[TOKENIZER], None
            raise ModelError(
                f"the encoder's tokenizer cannot be read ({shorten(str(error), 200)})",
                where=at(folder), expected=f"a {TOKENIZER}",
            ) from None  # fmt: skip
    stored = files.get(TOKENIZER)
    return made.encode() if stored is None or _differ(made, stored) else stored, padding


def _padding_token(tokenizer: Any) -> str | None:
    """Return a special token that can pad, which is masked: the end of a text, or the first one.

    Args:
        tokenizer: of `transformers`.
    """
    special = [tokenizer.eos_token, *tokenizer.all_special_tokens]
    return next((str(token) for token in special if token), None)


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
    """Return whether two tokenizers differ in more than truncation and padding."""
    one, other = json.loads(made), json.loads(stored)
    return any(
        one.get(part) != other.get(part)
        for part in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")
    )


def lower_cased(tokenizer: bytes) -> bytes:
    """Make a `tokenizer.json` lower-case texts first, as sentence-transformers does."""
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
