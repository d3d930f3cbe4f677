"""Lines of a UTF-8 file in bounded memory; an error names the first byte that is not UTF-8."""

from __future__ import annotations

import gzip
import shlex
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from manyheads.data.readers.row import Source
from manyheads.errors import DataError, at

UTF8_BOM = b"\xef\xbb\xbf"
STDIN = "standard input"
"""The name of a source that is no file."""

_USUAL_ENCODINGS = (
    "cp1252 (Western Europe), cp1250 (Central Europe), cp1251 (Russian), cp1254 (Turkish), "
    "shift_jis (Japanese) or gb18030 (Chinese)"
)

Line = str | DataError
"""A line without its line break, or the error of an unreadable one, which is not raised so that a
reader can keep its place and continue."""


@contextmanager
def opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed if its name ends in `.gz`.

    Raises:
        DataError: it cannot be opened, or reading fails later.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".gz":
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield cast(BinaryIO, unpacked)
            else:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"not a sound gzip file ({error})", where=name, fix="Compress the file again."
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror or error})",
            where=name,
            fix="Check the path and its permissions.",
        ) from error


def read_lines(source: Source, *, keep_ends: bool = False) -> Iterator[Line]:
    """Yield the lines of a UTF-8 file.

    A line ends at LF or CR LF: Unicode's other line breaks are ordinary characters. A byte-order
    mark at the beginning of the file is not part of the first line.

    Args:
        source: the file.
        keep_ends: whether lines keep their line breaks.
    """
    with opened(source.path, source.name) as file:
        yield from lines_of(file, source, keep_ends=keep_ends)


def sound_lines(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the readable lines of a file with their numbers; the source refuses the others."""
    for number, line in enumerate(read_lines(source), 1):
        if isinstance(line, DataError):
            source.refuse(line)
        else:
            yield number, line


def words_of(line: str) -> list[str]:
    """Split at spaces and tabs; a word may hold other white space, such as a no-break space, or be
    it."""
    return [part for part in line.replace("\t", " ").split(" ") if part]


def lines_of(file: BinaryIO, source: Source, *, keep_ends: bool = False) -> Iterator[Line]:
    """Yield the lines of an open stream, as `read_lines` does for a file."""
    offset = 0
    for number, raw in enumerate(iter(partial(file.readline, source.limit + 1), b""), 1):
        size = len(raw)
        if size > source.limit:
            size += _skip_line(file, source.limit) if raw[-1] != 10 else 0
            yield source.too_large(number)
        else:
            if number == 1:
                raw = raw.removeprefix(UTF8_BOM)
            if not keep_ends:
                raw = raw[: -2 if raw[-2:] == b"\r\n" else -1] if raw[-1:] == b"\n" else raw
            yield _decode(raw, source, number, offset)
        offset += size


def _skip_line(file: BinaryIO, limit: int) -> int:
    """Skip the rest of a line that is too long, and return its number of bytes."""
    skipped = 0
    while rest := file.readline(limit):
        skipped += len(rest)
        if rest[-1] == 10:
            break
    return skipped


def _decode(raw: bytes, source: Source, line: int, offset: int) -> Line:
    if b"\0" in raw:
        return nul_byte(source.name, line)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        if source.legacy_encoding is not None:
            return raw.decode(source.legacy_encoding, errors="replace")
        return not_utf8(source, line, offset + error.start, raw[error.start])


def not_utf8(source: Source, line: int, offset: int, byte: int) -> DataError:
    """Make the error for a byte that is not UTF-8."""
    return DataError(
        f"byte 0x{byte:02x} at offset {offset} of the file is not UTF-8",
        where=at(source.name, line),
        expected="text in UTF-8",
        fix=f"{recode(source.path, source.name, 'ENCODING')}, where ENCODING is the one that the "
        f"file was saved in, usually {_USUAL_ENCODINGS}. With the right one, all of the text reads "
        "correctly.",
    )


def recode(path: Path, name: str, encoding: str) -> str:
    """Return the advice to convert a file from another encoding, with the whole command."""
    return convert(path, name, f"iconv -f {encoding} -t utf-8", "utf8")


def convert(path: Path, name: str, command: str, mark: str) -> str:
    """Return the advice to convert a file.

    Args:
        path: the file, which may be compressed; the result is not.
        name: the path as the user wrote it, or `STDIN`.
        command: what precedes the file's name; with ` <` at its end if only standard input is read.
        mark: what to add to the name of the result.
    """
    if name == STDIN:
        filtered = f"... | {command.removesuffix(' <')} | manyheads predict ..."
        return f"Convert the input, for example with: {filtered}"
    is_packed = path.suffix.lower() == ".gz"
    bare = path.with_suffix("") if is_packed else path
    target = shlex.quote(str(bare.with_name(f"{bare.stem}-{mark}{bare.suffix}")))
    file = shlex.quote(str(path))
    whole = f"gzip -dc {file} | {command.removesuffix(' <')}" if is_packed else f"{command} {file}"
    return f"Convert the file, for example with: {whole} > {target}"


def nul_byte(name: str, line: int) -> DataError:
    """Make the error for a NUL byte, which does not occur in text."""
    return DataError(
        "a NUL byte",
        where=at(name, line),
        expected="text in UTF-8",
        fix="The file is binary, damaged, or in another encoding such as UTF-16.",
    )
