"""Arrow files, and data sets saved with `save_to_disk`, through pyarrow where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manyheads.data.readers.arrow_messages import MAGIC, unpacked_sizes
from manyheads.data.readers.class_names import Names, class_names, stored_names, with_names
from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.parquet import unpacks_too_far
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.splits import chosen_splits
from manyheads.errors import DataError, counted, shorten

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"
_ROWS = 64


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder: one data set, or several by split."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file()


def read_arrow(source: Source) -> Iterator[Row]:
    """Yield the rows of an Arrow file or of a saved data set, numbered from 1.

    Class names that the `datasets` library left there replace its indices.

    Raises:
        DataError: pyarrow is not installed, a file cannot be read, or a folder has several splits
            and none is chosen.
    """
    arrow = optional_module("pyarrow", "reading Arrow", source.name)
    optional_module("pyarrow.ipc", "reading Arrow", source.name)
    number = 0
    for path, names in _files(source):
        try:
            for table, known in _tables(arrow, path, source.limit):
                columns = {**names, **known}
                for start in range(0, table.num_rows, _ROWS):
                    for fields in table.slice(start, _ROWS).to_pylist():
                        number += 1
                        row = Row(source.name, number, "row", {})
                        yield from source.attempt(row, with_names, fields, columns, row.where)
        except (arrow.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"not a sound Arrow file after {counted(number, 'row')} "
                f"({shorten(str(error), 200)})",
                where=str(path),
                fix="Write the data set again.",
            ) from error


def _tables(arrow: Any, path: Path, limit: int) -> Iterator[tuple[Any, dict[str, Names]]]:
    """Yield the batches of a stream or a file of Arrow.

    A file is read as the stream that it contains: the footer of a file may refer to other batches
    than those whose sizes were checked.

    Raises:
        DataError: a batch unpacks to more than texts can.
    """
    with arrow.memory_map(str(path)) as file:
        contents = file.read_buffer()
        start = len(MAGIC) if contents[: len(MAGIC)].to_pybytes() == MAGIC else 0
        for packed, unpacked in unpacked_sizes(memoryview(contents), start):
            if unpacked > max(limit, packed) and unpacks_too_far(packed, unpacked):
                raise DataError(
                    f"a batch unpacks from {packed:,} to {unpacked:,} bytes",
                    where=str(path),
                    expected=f"batches of at most {limit:,} bytes",
                    fix="Write the data set again without compression, or as JSON lines.",
                )
        reader = arrow.ipc.open_stream(contents[start:])
        names = stored_names(reader.schema.metadata)
        for batch in reader:
            yield batch, names


def _files(source: Source) -> list[tuple[Path, dict[str, Names]]]:
    """Return the Arrow files to read, each with the class names stored beside it."""
    if not source.path.is_dir():
        return [(source.path, {})]
    folders = [source.path]
    if (source.path / _SPLITS).is_file():
        splits = _json(source.path / _SPLITS).get("splits")
        known = [name for name in splits if isinstance(name, str)] if splits else []
        folders = [source.path / name for name in known if name in chosen_splits(source, known)]
    files = []
    for folder in folders:
        features = _json(folder / _INFO).get("features")
        names = class_names(features) if isinstance(features, dict) else {}
        listed = _json(folder / _STATE).get("_data_files")
        for item in listed if isinstance(listed, list) else ():
            name = item.get("filename") if isinstance(item, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise DataError(
                    f"`_data_files` has {shorten(item)}",
                    where=str(folder / _STATE),
                    expected="names of files in the folder",
                )
            files.append((folder / name, names))
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(2**24))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"cannot be read ({shorten(str(error))})",
            where=str(path),
            expected="what `save_to_disk` writes",
        ) from None
    return value if isinstance(value, dict) else {}
