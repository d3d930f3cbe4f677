"""Compressed and binary files: Arrow, Parquet, saved data sets and spaCy."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import message, read, unread
from manyheads.data.readers import read_rows
from manyheads.data.readers.parquet_footer import ColumnSize, column_sizes
from manyheads.errors import DataError
from tool_formats import words


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl.gz", b'{"text": "a"}\n'),
        ("x.csv.gz", b"text\na\n"),
        ("x.json.gz", b'[{"text": "a"}]'),
    ],
)
def test_gzip_is_unpacked_while_reading(name: str, content: bytes, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / name
    packed = gzip.compress(content, mtime=0)
    path.write_bytes(packed)
    assert read(path) == [{"text": "a"}]
    path.write_bytes(packed[:-12])
    assert "not a sound gzip file" in message(path)
    path.write_bytes(content)
    assert "not a sound gzip file" in message(path)


@given(st.lists(words, min_size=1, max_size=5))
@settings(max_examples=10)
def test_saved_data_sets_round_trip(folder: Path, texts: list[str]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"])
    )
    table = {"text": texts, "label": [i % 2 for i in range(len(texts))]}
    data = datasets.Dataset.from_dict(table, features=features)
    expected = [{"text": t, "label": ["no", "yes"][i % 2]} for i, t in enumerate(texts)]
    path = folder / f"saved{len(texts)}"
    data.save_to_disk(path)
    assert read(path) == expected
    (file,) = path.glob("*.arrow")
    assert read(file) == expected
    several = folder / f"splits{len(texts)}"
    datasets.DatasetDict(train=data, test=data).save_to_disk(several)
    assert read(Path(f"{several}@test")) == expected
    assert "several splits; expected one of: " in message(several)


def test_an_invalid_arrow_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.arrow"
    path.write_bytes(b"ARROW1 and no more")
    assert "not a sound Arrow file after 0 rows" in message(path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    (tmp_path / "dataset_info.json").write_text("{}")
    assert "expected names of files in the folder" in message(tmp_path)


# A generated case: a footer with statistics that do not fit its column's type.
_DAMAGED_PARQUET = (
    "c-n1}%}&BV5XWarZP0K4;x@ZU4?RfZ0Y5N-7{kFqQB+V$VvNVqG^jyAK*hv^2ag^+_)tEEPvP0w7WoLyVP^WDncq"
    "&cTgOI@>s)ZFN&(UUiEIo2JiEy#_#Aken^~$Qxxo#q0ISRwF)F80RA00;@;YNNjartu_@gYXsPUn4&;K!=1sl#2W"
    "HArI==)c}t;coX@r)+)K`<O-plVSYPmr+C_L@O^q?o$2WYz(TCuAOsq>TExX6oh}GvArB>%?cbmTD8=8jwp;D4KC"
    ";NC$MnO@pFyLedMdoG<2lvgzgLLHZbEzS5i%H$OCxmPlZuadxp2{h0V>8_Ei(%*Dt~5TCHr!UMz>?zKX#R6?w&WD"
    "oHu6eba)G|EDMdPC4{O3DZ2Pz)hu9NW1P`<EBT?WX#yh5as;T*W^`^l^U#8xOhX;eM5wRY&Jl8ttIs;$&n}2Vr-;"
    "-u*)`So6ExHLus}JlT&yuYcXSv$qQCo9j85rR!5S_(N}`POtD6MyPj("
)


def test_a_footer_at_which_pyarrow_ends_the_process_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "x.parquet"
    path.write_bytes(zlib.decompress(base64.b85decode(_DAMAGED_PARQUET)))
    assert "not a sound Parquet file after 0 rows" in message(path)


def test_the_sizes_in_a_footer_are_those_that_pyarrow_reads(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    nested = {"text": ["a b"] * 50, "n": range(50), "l": [[1, 2]] * 50, "s": [{"a": 1.5}] * 50}
    pq.write_table(pa.table(nested), path, row_group_size=20)
    metadata = pq.ParquetFile(path).metadata
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    columns = [(group, group.column(i)) for group in groups for i in range(group.num_columns)]
    assert list(column_sizes(path)) == [
        ColumnSize(
            column.path_in_schema, group.num_rows, column.num_values,
            column.total_uncompressed_size, column.total_compressed_size,
        )
        for group, column in columns
    ]  # fmt: skip


@pytest.mark.parametrize("rows_of_a_group", [1, 100, 300, 1000])
def test_parquet_with_lists_and_structures_of_texts_may_have_row_groups_of_any_size(
    rows_of_a_group: int, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    records = [
        {"tokens": ["to", f"Oslo{i}"], "ner": ["O", "B-city"],
         "aspects": [{"start": 3, "end": 7, "label": f"a{i % 3}"}]}
        for i in range(600)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=rows_of_a_group)
    assert read(path) == records


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("form", ["new_file", "new_stream"])
def test_a_small_arrow_file_does_not_fill_the_memory(
    form: str, codec: str | None, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    path = tmp_path / "x.arrow"

    def save(texts: list[str]) -> None:
        table = pa.table({"text": pa.array(texts).dictionary_encode()})
        options = ipc.IpcWriteOptions(compression=codec)
        with getattr(ipc, form)(path, table.schema, options=options) as writer:
            writer.write_table(table)

    save(["a b", "c"])
    assert read(path) == [{"text": "a b"}, {"text": "c"}]
    if codec == "zstd":
        save(["a" * 2**27])
        assert "a batch unpacks from " in message(path)


def test_a_small_parquet_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    large = ["a" * 20_000_000, "b" * 20_000_000]
    pq.write_table(pa.table({"text": large}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    assert "the column 'text' unpacks from " in message(path)
    repeated = pa.array(["b" * 100_000] * 200)
    pq.write_table(pa.table({"text": repeated}), path, compression="zstd")
    read_one_by_one = read_rows(path, limit_bytes=200_000)
    assert sum(len(row.fields["text"]) for row in read_one_by_one) == 20_000_000
    with pytest.raises(DataError, match="a text of 100,000 bytes; expected at most 50,000"):
        list(read_rows(path, limit_bytes=50_000))


def test_documents_of_spacy_are_read(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import DocBin

    nlp, path = spacy.blank("en"), tmp_path / "x.spacy"
    document = nlp("Ada lives in Oslo")
    document.ents = [document.char_span(0, 3, label="PER")]
    document.cats = {"A": 1.0, "B": 0.0}
    DocBin(docs=[document]).to_disk(path)
    entity = {"start": 0, "end": 3, "label": "PER"}
    assert read(path)[0]["entities"] == [entity]
    document.set_ents([*document.ents], blocked=[document[1:2]], missing=[document[2:4]])
    document.spans["sc"] = [document[0:2]]
    DocBin(docs=[document], store_user_data=True).to_disk(path)
    assert read(path) == [
        {
            "text": "Ada lives in Oslo", "label": "A",
            "tokens": ["Ada", "lives", "in", "Oslo"], "ner": ["B-PER", "O", None, None],
        }
    ]  # fmt: skip
    assert unread(path) == {"spans of the group 'sc'": 1}
    path.write_bytes(b"broken")
    assert "not a sound .spacy file after 0 documents" in message(path)
