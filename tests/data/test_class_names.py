"""Class names of Parquet files and data sets, and the packages that these formats need."""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from every_format import write
from files import message, read
from manyheads.data.readers import is_dataset_name, read_rows
from manyheads.errors import DataError

# Packages that only some formats need.


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("pyarrow", lambda p: write(p / "x.parquet", b"PAR1....PAR1")),
        ("datasets", lambda p: "datasets:squad"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    package: str,
    make: Callable[[Path], Path | str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    path = make(tmp_path)
    with pytest.raises(DataError, match=f"needs {package}.*Run: pip install {package}") as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))


def test_indices_in_parquet_get_the_class_names_of_the_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    tags = {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "List"}
    features = {"label": names, "ner": tags}
    ner = [[0], [1, -100, -1], None]
    table = pa.table({"text": ["a", "b", "c"], "label": [1, -1, 5], "ner": ner})
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    errors: list[DataError] = []
    rows = [row.fields for row in read_rows(tmp_path / "x.parquet", on_error=errors.append)]
    assert rows[0] == {"text": "a", "label": "pos", "ner": ["O"]}
    assert rows[1] == {"text": "b", "label": None, "ner": ["B-x", None, None]}
    assert "x.parquet row 3: `label` has the class 5; expected 0 to 1" in str(errors[0])


@pytest.mark.parametrize("by_columns", [False, True])
def test_indices_in_entities_of_parquet_get_the_class_names_of_the_file(
    tmp_path: Path, by_columns: bool
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    struct = {
        "start": {"dtype": "int32", "_type": "Value"}, "end": {"dtype": "int32", "_type": "Value"},
        "label": {"names": ["PER", "LOC"], "_type": "ClassLabel"},
    }  # fmt: skip
    if by_columns:
        column = {"start": [0, 4], "end": [3, 6], "label": [1, 0]}
        feature: Any = {key: {"feature": one, "_type": "List"} for key, one in struct.items()}
    else:
        column = [{"start": 0, "end": 3, "label": 1}, {"start": 4, "end": 6, "label": 0}]
        feature = {"feature": struct, "_type": "List"}
    table = pa.table({"text": ["Rom Bo", "b"], "entities": [column, None]})
    info = json.dumps({"info": {"features": {"entities": feature}}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    first, second = read(tmp_path / "x.parquet")
    assert first["entities"] == [
        {"start": 0, "end": 3, "label": "LOC"}, {"start": 4, "end": 6, "label": "PER"},
    ]  # fmt: skip
    assert second["entities"] is None


def test_an_index_without_a_name_inside_an_object_of_parquet_stays(tmp_path: Path) -> None:
    """No task may read the object; a list of tags is one of a task."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    names = {"names": ["de", "en"], "_type": "ClassLabel"}
    features = {"meta": {"lang": names}, "ner": {"feature": names, "_type": "List"}}
    meta = [{"lang": 1}, {"lang": -1}, {"lang": 7}, None]
    table = pa.table({"text": [*"abcd"], "meta": meta, "ner": [[0], [0], [1], [2]]})
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), tmp_path / "x.parquet")
    errors: list[DataError] = []
    rows = [row.fields for row in read_rows(tmp_path / "x.parquet", on_error=errors.append)]
    assert [row["meta"] for row in rows] == [{"lang": "en"}, {"lang": None}, {"lang": 7}]
    assert ["`ner` has the class 2" in str(error) for error in errors] == [True]


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "x.parquet", b"PAR1" + string.printable.encode() + b"PAR1")
    assert f"{path}: not a sound Parquet file after 0 rows" in message(path)


@pytest.fixture
def local_dataset(tmp_path: Path) -> Path:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        first, second = {"text": f"{split} a", "label": 0}, {"text": "b", "label": 1}
        lines = f"{json.dumps(first)}\n{json.dumps(second)}\n"
        write(tmp_path / "set" / f"{split}.jsonl", lines)
    return tmp_path / "set"


@pytest.mark.filterwarnings("ignore")
def test_a_data_set_by_name_streams_the_named_split(local_dataset: Path) -> None:
    name = f"datasets:{local_dataset}"
    assert is_dataset_name(name)
    assert read(f"{name}@test") == [{"text": "test a", "label": 0}, {"text": "b", "label": 1}]
    assert [row.where for row in read_rows(f"{name}@train")][1] == f"{name}@train record 2"
    assert "several splits; expected one of: t" in message(name)
    assert "no split 'tran' (did you mean \"train\"?)" in message(f"{name}@tran")
    (local_dataset / "test.jsonl").unlink()
    assert len(read(name)) == 2


@pytest.mark.filterwarnings("ignore")
def test_an_unavailable_data_set_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    text = message("datasets:owner/name:config@train")
    assert (
        "datasets:owner/name:config@train: the data set cannot be opened (ConnectionError" in text
    )
    assert "offline, only what is on this machine is found" in text
    assert "does not name a data set" in message("datasets:a@b@c")
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    assert "version 4 or newer, which runs no code of a data set" in message("datasets:x")
