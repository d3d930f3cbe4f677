"""The input: its files, their format, and the columns of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import ray
from pyarrow import csv, fs, json

from manyheads.errors import DataError, RequestError, listing, nearest, option
from manyheads.inference.ray.tables import common_schema

ENDINGS = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
}
_COMPRESSIONS = (".gz", ".zst", ".br", ".lz4")


@dataclass(frozen=True, slots=True)
class Input:
    """Files to read, in their order."""

    name: str
    """The input in the user's words, for messages."""
    paths: tuple[str, ...]
    files: Any
    """The `pyarrow.fs.FileSystem` they are in; None where only Ray knows it."""
    format: str

    def read(self, schema: pa.Schema | None = None) -> Any:
        """Return the `ray.data.Dataset` of the records.

        Args:
            schema: the columns, if they are known already.
        """
        options: dict[str, Any] = {"filesystem": self.files, "file_extensions": None}
        paths = list(self.paths)
        if self.format == "parquet":
            return ray.data.read_parquet(paths, **options)
        if self.format == "jsonl":
            if schema is not None:
                # Otherwise a string that looks like a date would become one.
                options["parse_options"] = json.ParseOptions(explicit_schema=schema)
            return ray.data.read_json(paths, **options)
        options["parse_options"] = csv.ParseOptions(newlines_in_values=True)
        if schema is not None:
            strings = dict.fromkeys(schema.names, pa.string())
            options["convert_options"] = csv.ConvertOptions(column_types=strings)
        return ray.data.read_csv(paths, **options)


def find_input(inputs: Sequence[str], format: str | None) -> Input:
    """Find the files of some paths and URIs.

    Raises:
        DataError: there are none, or their endings do not name their format.
        RequestError: there is no such format, or the paths are of several file systems.
    """
    if format is not None and format not in ENDINGS:
        raise RequestError(
            f"the engine ray does not read {format!r}{nearest(format, ENDINGS)}",
            expected=f"one of: {listing(ENDINGS)}",
        )
    if not inputs:
        raise RequestError("no input", expected="at least one file, folder or URI")
    name = listing(inputs, 3)
    systems: list[Any] = []
    paths: list[str] = []
    for one in inputs:
        files, found = _found(one)
        systems.append(files)
        paths += found
    if any(system != systems[0] for system in systems):
        raise RequestError(
            "the inputs are in several file systems", where=name, expected="all in one",
            fix="Predict for one after the other.",
        )  # fmt: skip
    return Input(name, tuple(paths), systems[0], format or _format(paths, name))


def _found(one: str) -> tuple[Any, list[str]]:
    """List the files that a path or URI names."""
    if "://" not in one:
        files, path = fs.LocalFileSystem(), str(Path(one).absolute())
    else:
        try:
            files, path = fs.FileSystem.from_uri(one)
        except pa.ArrowException:
            return None, [one]  # Ray knows more file systems
        except OSError as error:
            raise DataError(f"cannot be read ({error})", where=one) from error
    try:
        info = files.get_file_info(path)
        if info.type is fs.FileType.NotFound:
            raise DataError(
                "there is no such file or folder", where=one, fix="Check the path."
            )  # fmt: skip
        if info.type is not fs.FileType.Directory:
            return files, [path]
        inside = files.get_file_info(fs.FileSelector(path, recursive=True))
    except OSError as error:
        raise DataError(f"cannot be read ({error})", where=one) from error
    found = sorted(
        member.path
        for member in inside
        if member.type is fs.FileType.File and not _is_hidden(member.path[len(path) :])
    )
    if not found:
        raise DataError(
            "the folder holds no files", where=one,
            expected="files of Parquet, JSON lines or CSV",
        )  # fmt: skip
    return files, found


def _is_hidden(path: str) -> bool:
    """Return whether a file, such as `_SUCCESS`, holds no data by its name."""
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def _format(paths: Sequence[str], name: str) -> str:
    found: dict[str, str] = {}
    for path in paths:
        lower = path.lower()
        for compression in _COMPRESSIONS:
            lower = lower.removesuffix(compression)
        kinds = [kind for kind, endings in ENDINGS.items() if lower.endswith(endings)]
        found.setdefault(kinds[0] if kinds else "", path)
    if len(found) == 1 and "" not in found:
        return next(iter(found))
    raise DataError(
        f"the ending of {found['']} says nothing about the format" if "" in found
        else f"files of several formats: {listing(found)}",
        where=name,
        expected=f"files of one of the formats {listing(ENDINGS)}",
        fix="Say it with "
        + option("--input-format", "`layout=Layout(format=...)`")
        + ", or leave the others out.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Survey:
    """The columns and rows of the whole input."""

    columns: pa.Schema
    """Columns of CSV are strings, as in the file."""
    rows: int


def survey(source: Input) -> Survey:
    """Read the input once, for its columns and the number of its rows.

    Raises:
        DataError: the parts have incompatible columns, or there is no text.
    """
    known = None
    if source.format == "csv":
        # Read as strings: a number would lose its leading zeros, and a type inferred from the
        # first rows might not fit the rest.
        names = source.read().limit(1).schema()
        known = pa.schema([(name, pa.string()) for name in names.names]) if names else None
    data = source.read(known)
    parts = data.map_batches(
        _look_at, batch_format="pyarrow", batch_size=None, udf_modifying_row_count=True
    )
    found = parts.take_all()
    # Each schema once, in the order of the input, which is that of the output's columns.
    stored = dict.fromkeys(row["schema"] for row in found)
    schemas = [pa.ipc.read_schema(pa.py_buffer(schema)) for schema in stored]
    if not schemas and (whole := data.schema()) is not None:
        schemas = [whole.base_schema]  # there are columns, but no rows
    if source.format == "csv":
        schemas = [pa.schema([(n, pa.string()) for n in schema.names]) for schema in schemas]
    elif source.format == "jsonl":
        schemas = [_without_dates(schema) for schema in schemas]
    return Survey(common_schema(schemas, source.name), sum(row["rows"] for row in found))


def _look_at(block: pa.Table) -> pa.Table:
    schema = block.schema.remove_metadata().serialize().to_pybytes()
    return pa.table({"schema": pa.array([schema], pa.binary()), "rows": [block.num_rows]})


def _without_dates(schema: pa.Schema) -> pa.Schema:
    return pa.schema([(field.name, _without_date(field.type)) for field in schema])


def _without_date(type: pa.DataType) -> pa.DataType:
    """Replace the type that Arrow infers for strings that look like dates: JSON has no dates."""
    if pa.types.is_timestamp(type):
        return pa.string()
    if pa.types.is_list(type):
        return pa.list_(_without_date(type.value_type))
    if pa.types.is_struct(type):
        return pa.struct([(field.name, _without_date(field.type)) for field in type])
    return type
