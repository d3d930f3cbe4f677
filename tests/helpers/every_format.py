"""The same records in every format, and files with any content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, whatever its content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    """Write columns as Parquet."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


TOKENS = [["John", "lives", "in", "Paris", "."], ["#", "é", "日本"]]
TAGS = [["B-PER", "O", "O", "B-LOC", "O"], ["O", "I-X", "B-X"]]


def as_objects() -> list[dict[str, Any]]:
    """Return the records that all files here hold."""
    return [{"tokens": t, "ner": n} for t, n in zip(TOKENS, TAGS, strict=True)]


def write_seq_folder(path: Path, end: str = "\n") -> Path:
    """Write the records as a folder of parallel files."""
    path.mkdir()
    for name, rows in (("seq.in", TOKENS), ("seq.out", TAGS), ("label", [["a"], ["b c"]])):
        write(path / name, "".join(f"{' '.join(row)} {end}" for row in rows))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "json": lambda p: write(p / "x.json", json.dumps(as_objects(), indent=2, ensure_ascii=False)),
    "json lines": lambda p: write(p / "x.jsonl", json_lines()),
    "json lines in .json": lambda p: write(p / "x.json", json_lines()),
    "crlf": lambda p: write(p / "x.ndjson", json_lines("\r\n")),
    "conll": lambda p: write(p / "x.conll", conll("\t")),
    "conll crlf": lambda p: write(p / "x.bio", conll("\t").replace("\n", "\r\n")),
    "conll spaces": lambda p: write(p / "x.iob", conll(" ")),
    "conll in .txt": lambda p: write(p / "x.txt", conll("\t")),
    "bom": lambda p: write(p / "x.annotated", b"\xef\xbb\xbf" + conll("\t").encode()),
    "folder": lambda p: write_seq_folder(p / "x"),
    "folder crlf": lambda p: write_seq_folder(p / "x", "\r\n"),
    "parquet": lambda p: write_parquet(p / "x.parquet", {"tokens": TOKENS, "ner": TAGS}),
}
"""Writes the records to a folder in one format; returns the path."""


def json_lines(end: str = "\n") -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + end for item in as_objects())


def conll(separator: str) -> str:
    sentences = [
        "".join(f"{token}{separator}{tag}\n" for token, tag in zip(t, n, strict=True))
        for t, n in zip(TOKENS, TAGS, strict=True)
    ]
    return "\n".join(sentences)


ENDINGS = [".json", ".jsonl", ".csv", ".tsv", ".conll", ".txt", ".parquet"]
"""Those of the formats of one file."""
