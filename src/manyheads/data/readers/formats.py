"""Which format a file has: its content and its name have to agree."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manyheads.data.readers.conll import looks_like_columns, read_conll
from manyheads.data.readers.delimited import read_csv, read_tsv
from manyheads.data.readers.hub import read_dataset
from manyheads.data.readers.json_lines import read_json_lines
from manyheads.data.readers.json_list import read_json_list
from manyheads.data.readers.parquet import read_parquet
from manyheads.data.readers.plain_text import read_plain_text
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.seq_folder import read_seq_folder
from manyheads.data.readers.text_lines import UTF8_BOM, opened
from manyheads.errors import DataError, at, listing, nearest

_HEAD = 2**16


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write records: what it is called, the endings of its files, and its reader."""

    description: str
    endings: tuple[str, ...]
    read: Callable[[Source], Iterator[Row]]


FORMATS: dict[str, Format] = {
    "json": Format("a JSON list", (".json",), read_json_list),
    "jsonl": Format("JSON lines", (".jsonl", ".ndjson", ".json"), read_json_lines),
    "csv": Format("CSV with a header", (".csv",), read_csv),
    "tsv": Format("TSV with a header", (".tsv",), read_tsv),
    "conll": Format(
        "CoNLL columns",
        (".conll", ".annotated", ".bio", ".bio2", ".iob", ".iob2", ".iobes", ".bilou", ".txt"),
        read_conll,
    ),
    "parquet": Format("Parquet", (".parquet", ".pq"), read_parquet),
    "seq": Format("a folder of seq.in, seq.out and label", (), read_seq_folder),
    "datasets": Format("datasets:NAME[:CONFIG][@SPLIT]", (), read_dataset),
    "text": Format("plain text, a sentence a line, where asked for", (), read_plain_text),
}

_KNOWN = ", ".join(
    f"{f.description} ({' '.join(f.endings)})" if f.endings else f.description
    for f in FORMATS.values()
    if f.read is not read_plain_text
)

# What files begin with that are no text at all, and what those are.
_BINARY = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
}
# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_OTHER_UNICODE = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def format_named(name: str) -> Format:
    """Return a format by its name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in FORMATS:
        raise DataError(
            f"unknown format {name!r}{nearest(name, FORMATS)}",
            expected=f"one of: {listing(FORMATS)}",
        )
    return FORMATS[name]


def format_of(path: Path, name: str) -> Format:
    """Tell the format of a file or folder by its ending and what it begins with.

    Raises:
        DataError: it is missing, empty or no text; its ending is not known; or its ending says
            one thing and its content another.
    """
    if _is_folder(path, name):
        return FORMATS["seq"]
    with opened(path, name) as file:
        head = file.read(_HEAD)
    _refuse_other_files(head, name)
    ending = path.suffix.lower()
    if ending in (".parquet", ".pq") or head.startswith(b"PAR1"):
        if head.startswith(b"PAR1") and ending in (".parquet", ".pq"):
            return FORMATS["parquet"]
        raise _contradiction(name, ending, "" if ending in (".parquet", ".pq") else "Parquet")
    text = head.removeprefix(UTF8_BOM).lstrip(b" \t\r\n")
    if not text and len(head) < _HEAD:
        raise DataError("the file is blank", where=name, expected="records")
    if ending in (".json", ".jsonl", ".ndjson"):
        return _json_format(text, ending, name)
    if ending == ".txt" and not looks_like_columns(_whole_lines(head)):
        raise DataError(
            "lines of text without columns of tokens and tags",
            where=name,
            expected=f"in a .txt, CoNLL columns; the formats are: {_KNOWN}",
            fix="Give the file the ending of its format.",
        )
    for known in FORMATS.values():
        if ending in known.endings:
            return known
    raise DataError(
        f"the ending {ending!r} says nothing about the format" if ending else "no file ending",
        where=name,
        expected=f"one of: {_KNOWN}",
        fix="Give the file the ending of its format.",
    )


def _is_folder(path: Path, name: str) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            "there is no such file or folder", where=name, fix=_neighbour(path)
        ) from None
    # ValueError: a NUL character in the path.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read ({reason})", where=name, fix="Check the path.") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise DataError(
            "a device, pipe or socket",
            where=name,
            expected="a file or folder",
            fix="Write the records to a file first.",
        )
    return stat.S_ISDIR(mode)


def _neighbour(path: Path) -> str:
    """Say which file of the same folder may have been meant."""
    try:
        others = [other.name for other in path.parent.iterdir()]
    except OSError:
        return "Check the path."
    return f"Check the path{nearest(path.name, others)}."


def _refuse_other_files(head: bytes, name: str) -> None:
    if not head or head == UTF8_BOM:
        raise DataError("the file is empty", where=name, expected="records")
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"the file is {what}", where=name, fix="Unpack it first.")
    for mark, encoding in _OTHER_UNICODE.items():
        if head.startswith(mark):
            raise DataError(
                f"the file begins with a byte-order mark of {encoding}",
                where=name,
                expected="text in UTF-8",
                fix=f"Convert it, for example with: iconv -f {encoding} -t UTF-8",
            )


def _json_format(text: bytes, ending: str, name: str) -> Format:
    if text[:1] == b"[":
        if ending != ".json":
            raise _contradiction(name, ending, "a JSON list")
        return FORMATS["json"]
    if text[:1] != b"{" and ending == ".json":
        raise DataError(
            f"broken JSON: the file begins with {text[:1].decode('latin-1')!r}",
            where=at(name, 1),
            expected="[ of a list of objects, or { of one object a line",
        )
    first, more, _ = text.partition(b"\n")
    if ending == ".json" and more and not first.rstrip().endswith(b"}"):
        raise DataError(
            "one JSON object over several lines",
            where=name,
            expected="a list of objects, or one object a line",
            fix="Write the records themselves as a list.",
        )
    return FORMATS["jsonl"]


def _contradiction(name: str, ending: str, content: str) -> DataError:
    return DataError(
        f"the ending is {ending!r} but the content is {content or 'something else'}",
        where=name,
        expected=f"content and ending of one format: {_KNOWN}",
        fix="Give the file the ending of its format.",
    )


def _whole_lines(head: bytes) -> list[str]:
    """Return the lines of a file's beginning, without the last one where it is cut."""
    text = head.removeprefix(UTF8_BOM).decode(errors="replace").replace("\r\n", "\n")
    lines = text.split("\n")
    return lines[:-1] if len(head) == _HEAD else lines
