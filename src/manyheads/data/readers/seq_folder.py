"""A folder of `seq.in`, `seq.out` and `label`, as in the literature on intents and slots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines, words_of
from manyheads.errors import DataError, at

SEQ_FILES = ("seq.in", "seq.out", "label")


def read_seq_folder(source: Source) -> Iterator[Row]:
    """Yield `tokens`, their tags as `ner`, and the sentence's `label`, line by line.

    Raises:
        DataError: a file is missing, or they differ in length.
    """
    missing = [name for name in SEQ_FILES if not (source.path / name).is_file()]
    if missing:
        raise DataError(
            f"a folder without {' and '.join(missing)}",
            where=source.name,
            expected="the files seq.in (tokens), seq.out (tags) and label, line by line",
            fix="Name one file, or a folder that has these three.",
        )
    files = [
        replace(source, path=source.path / name, name=str(source.path / name)) for name in SEQ_FILES
    ]
    return _rows(source, files)


def _rows(source: Source, files: Sequence[Source]) -> Iterator[Row]:
    for number, lines in enumerate(zip_longest(*map(read_lines, files)), 1):
        if None in lines:
            ended = SEQ_FILES[lines.index(None)]
            longer = next(n for n, line in zip(SEQ_FILES, lines, strict=True) if line is not None)
            raise DataError(
                f"{ended} has ended, but {longer} continues",
                where=at(source.name, number),
                expected="seq.in, seq.out and label of equal length",
                fix="Find the line that is missing in one of them.",
            )
        texts = [line for line in lines if isinstance(line, str)]
        for line in lines:
            if isinstance(line, DataError):
                source.refuse(line)
        if len(texts) < len(lines):
            continue
        tokens, tags = words_of(texts[0]), words_of(texts[1])
        # The name of a class may contain spaces; tokens and tags cannot.
        label = texts[2].strip(" \t") or None
        if tokens or tags or label:
            fields = {"tokens": tokens, "ner": tags, "label": label}
            yield Row(source.name, number, "line", fields)
