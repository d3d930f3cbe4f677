"""The keys that requests need, from a file that can be read again."""

from __future__ import annotations

import hmac
from pathlib import Path

from manyheads.errors import RequestError
from manyheads.storage import explained


class Keys:
    """The accepted keys. Without any, requests need none.

    Args:
        given: the keys, or the file that has one per line.

    Raises:
        StorageError: the file cannot be read.
        RequestError: it is not text in UTF-8, or has no key.
    """

    def __init__(self, given: tuple[str, ...] | Path) -> None:
        self.file = given if isinstance(given, Path) else None
        """The file that they are from, if any."""
        self._keys = _encoded(_read(given) if isinstance(given, Path) else given)

    def __len__(self) -> int:
        return len(self._keys)

    def accept(self, key: bytes) -> bool:
        """Return whether a key is one of them."""
        # All keys are compared in constant time, so the duration reveals nothing about them.
        same = [hmac.compare_digest(key, known) for known in self._keys]
        return any(same)

    def read_again(self) -> None:
        """Replace the keys by those that the file has by now.

        Raises:
            StorageError, RequestError: as at first; the keys stay.
        """
        if self.file is not None:
            self._keys = _encoded(_read(self.file))


def _encoded(keys: tuple[str, ...]) -> list[bytes]:
    return [key.encode() for key in keys]


def _read(path: Path) -> tuple[str, ...]:
    try:
        with explained(path, "read"):
            # Some editors begin a file with a byte-order mark.
            lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}",
            expected="one key per line, as text in UTF-8",
            fix="Save the file as UTF-8.",
        ) from error
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise RequestError(f"{path} has no key", expected="one key per line")
    return keys
