"""Ray Data predicts the same rows as one process, in order, even if a worker is killed.

One cluster of two workers serves all tests of this file.
"""

from __future__ import annotations

import csv
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("ray.data", reason='needs pip install "manyheads[ray]"')
pytest.importorskip("torch", reason='needs pip install "manyheads[train]"')

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from manyheads.cli import main
from manyheads.errors import DataError, ManyheadsError, ModelError, RequestError
from manyheads.exporting import export_model
from manyheads.inference import Runtime, Text, load_model
from manyheads.inference.ray import outputs, predict_files
from manyheads.inference.ray.cluster import joined
from manyheads.inference.ray.inputs import find_input
from manyheads.inference.ray.stages import Job, Worker
from manyheads.inference.ray.tables import (
    common_schema,
    conformed,
    output_columns,
    result_columns,
    result_schema,
)
from manyheads.tasks import (
    ClassResult,
    Entity,
    MultilabelResult,
    Prediction,
    Scheme,
    TaggingResult,
    TaskSpec,
    TokenTag,
)
from training_setup import run, sentences, write_records
from worker_killer import Victim

pytestmark = [
    # Ray sets each of its own deprecated settings when it makes its settings.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
    # With fewer blocks than workers, which is so with a handful of rows.
    pytest.mark.filterwarnings("ignore:The minimum number of concurrent actors:UserWarning"),
]

WORKERS = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds entities, exported so that workers start without PyTorch."""
    folder = tmp_path_factory.mktemp("model")
    write_records(folder / "train.jsonl", sentences(160, 1))
    run(folder, num_epochs=3)
    export_model(folder / "saved", formats=("float32",), threads=1)
    return folder / "saved"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Ray sets each of its own deprecated settings when it makes its settings.
        warnings.filterwarnings("ignore", "`use_", DeprecationWarning, "ray.data.context")
        # The workers import what tests send them, and the same package as the tests.
        helpers = str(Path(__file__).parents[1] / "helpers")
        patch.setenv("PYTHONPATH", os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")]))
        with joined(None, WORKERS, 1, progress=False):
            yield
    assert not ray.is_initialized()


def table_of(folder: Path) -> pa.Table:
    """The rows of all files of the output, one file after the other by their names."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


def check_rows(found: pa.Table, model: Path, texts: list[Text], ner: str = "ner") -> None:
    """Compare the output with the predictions of one process."""
    predictor = load_model(model, Runtime(threads=1)).predictor
    rows = found.to_pylist()
    for row, prediction in zip(rows, predictor.predict(texts, embed=True), strict=True):
        assert row["empty"] == prediction.empty
        if prediction.empty:
            assert (row["classification"], row[ner], row["embedding"]) == (None, [], None)
            continue
        label, tags = prediction.results["classification"], prediction.results["ner"]
        assert isinstance(label, ClassResult)
        assert isinstance(tags, TaggingResult)
        assert row["classification"] == {
            "label": label.label, "id": label.id, "score": pytest.approx(label.score, abs=1e-4)
        }  # fmt: skip
        assert row[ner] == [
            {
                "text": e.text, "label": e.label, "start": e.start, "end": e.end,
                "score": pytest.approx(e.score, abs=1e-4),
            }
            for e in tags.entities
        ]  # fmt: skip
        assert row["embedding"] == pytest.approx(prediction.embedding, abs=1e-4)


def test_a_killed_worker_costs_no_row_and_doubles_none(
    model: Path, cluster: None, tmp_path: Path
) -> None:
    records = sentences(240, seed=3)
    for i in range(6):
        write_records(tmp_path / "in" / f"{i}.jsonl", records[40 * i : 40 * (i + 1)])
    notes = tmp_path / "notes"
    notes.mkdir()
    victim = Victim(notes)
    Thread(target=victim.kill, daemon=True).start()
    written = predict_files(
        model, [str(tmp_path / "in")], str(tmp_path / "out"), embed=True, workers=WORKERS,
        chunk=8, before_chunk=victim,
    )  # fmt: skip
    assert (notes / "killed").exists()
    # The victim, the one beside it, and the one in its place.
    assert len(list(notes.glob("worker-*"))) > WORKERS
    found = table_of(tmp_path / "out")
    assert (written.rows, written.files) == (240, len(list((tmp_path / "out").iterdir())))
    assert found["tokens"].to_pylist() == [record["tokens"] for record in records]
    assert found["ner"].to_pylist() == [record["ner"] for record in records]
    check_rows(found, model, [record["tokens"] for record in records], ner="predicted_ner")
    assert [path.name for path in tmp_path.iterdir() if "manyheads-tmp" in path.name] == []
    assert sum(map(len, found["predicted_ner"].to_pylist())) > 100


def test_parquet_keeps_its_types_and_flags_texts_without_words(
    model: Path, cluster: None, tmp_path: Path
) -> None:
    texts = ["John lives in Paris", "", None, " \u200b", "Where is Mary ?"]
    table = pa.table(
        {
            "text": pa.array(texts, pa.large_string()),
            "when": pa.array([1, 2, 3, 4, None], pa.timestamp("ms")),
            "nothing": pa.nulls(5),
            "empty": pa.array([b"", b"a", b"b", b"c", b"d"], pa.binary()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    predict_files(
        model, [(tmp_path / "in.parquet").as_uri()], str(tmp_path / "out"), embed=True, workers=1
    )
    found = table_of(tmp_path / "out")
    assert found.column_names == [
        *table.column_names, "classification", "ner", "predicted_empty", "embedding"
    ]  # fmt: skip
    assert found.schema.field("when").type == pa.timestamp("ms")
    assert found.select(["text", "when", "empty"]).to_pydict() == (
        table.select(["text", "when", "empty"]).to_pydict()
    )
    found = found.drop_columns(["empty"]).rename_columns({"predicted_empty": "empty"})
    check_rows(found, model, [text or "" for text in texts])


def test_csv_through_the_command_line_is_text_to_the_letter(
    model: Path, cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ["text", "id"],
        ["2026-01-01", "007"],
        ["john lives\nin paris", "x"],
        ["", "NA"],
        ["null", ""],
    ]
    with (tmp_path / "in.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    arguments = ["predict", str(model), str(tmp_path / "in.csv"), "--engine", "ray", "--workers=1"]
    status = main([*arguments, "--output", str(tmp_path / "refused")])
    assert (status, "the text is empty" in capsys.readouterr().err) == (2, True)
    assert not (tmp_path / "refused").exists()
    arguments += ["--when-empty=skip", "--embed", "--output", str(tmp_path / "new" / "out")]
    assert main(arguments) == 0
    files = len(list((tmp_path / "new" / "out").iterdir()))
    note = f"note: 3 rows in {files} files: {tmp_path / 'new' / 'out'}\n"
    assert capsys.readouterr().err == note
    found = table_of(tmp_path / "new" / "out")
    kept = [row for row in rows[1:] if row[0]]
    assert [list(row.values()) for row in found.select(["text", "id"]).to_pylist()] == kept
    check_rows(found, model, [text for text, _ in kept])
    assert main(arguments) == 2
    assert "holds something already: part-000000.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"txt": "a"}\n', "neither `text` nor `tokens` among the columns txt"),
        ("a.jsonl", '{"text": 1}\n', "`text` is int64; expected a column of strings"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl: cannot be read .*Extra data: line 2"),
        ("a.csv", "text,b\na,b,c\n", "cannot be read .*Failed to read CSV file: .*a.csv'"),
        pytest.param(
            "a.csv", "", r"cannot be read .*Run manyheads\.check\(FILE\)", marks=pytest.mark.soak
        ),
        pytest.param("a.parquet", "text", "a.parquet: cannot be read", marks=pytest.mark.soak),
    ],
)
def test_a_bad_input_is_reported_once_and_leaves_no_output(
    model: Path, cluster: None, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        predict_files(model, [str(tmp_path / name)], str(tmp_path / "out"), workers=1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_input_without_rows_gives_a_file_without_rows(
    model: Path, cluster: None, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    predict_files(model, [str(tmp_path / "in.parquet")], str(tmp_path / "out"), workers=1)
    found = table_of(tmp_path / "out")
    assert found.column_names == ["text", "classification", "ner", "empty"]
    assert found.num_rows == 0


def test_more_workers_than_processors_are_refused(
    model: Path, cluster: None, tmp_path: Path
) -> None:
    write_records(tmp_path / "in.jsonl", sentences(1))
    with pytest.raises(RequestError, match="the cluster has 3 processors; expected 10: 3 for each"):
        predict_files(
            model, [str(tmp_path / "in.jsonl")], str(tmp_path / "out"), Runtime(threads=3),
            workers=3,
        )  # fmt: skip


# ------------------------------------------------------------------------ without a cluster


def test_a_worker_that_cannot_load_the_model_raises_that_with_its_first_block(
    tmp_path: Path,
) -> None:
    schema = pa.schema([("text", pa.string())])
    job = Job(
        model=str(tmp_path / "gone"), runtime=Runtime(threads=1), tasks=(), embed=False,
        when_empty="flag", skip_empty=False, chunk=8, input=schema,
        results=pa.schema([]), output=schema, source="in.csv", before_chunk=None,
    )  # fmt: skip
    worker = Worker(job)
    with pytest.raises(ModelError, match="gone: there is no such model"):
        list(worker(pa.table({"text": ["a"]})))


@pytest.mark.parametrize("missing", ["ray.data", "pyarrow"])
def test_missing_packages_are_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RequestError, match=r'pip install -e "\.\[ray\]"'):
        predict_files("model", ["in.csv"], "out")


def test_other_devices_are_refused() -> None:
    with pytest.raises(RequestError, match="device 'cuda' with the engine ray; expected one of"):
        predict_files("model", ["in.csv"], "out", Runtime(device="cuda"))


def test_the_files_of_a_folder_come_in_order_and_without_the_hidden(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/c.jsonl.gz", "_SUCCESS", ".a.jsonl", "_old/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    found = find_input([str(tmp_path)], None)
    assert found.format == "jsonl"
    assert [Path(path).relative_to(tmp_path).as_posix() for path in found.paths] == [
        "a/c.jsonl.gz", "b.jsonl"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "format", "message"),
    [
        ([], None, "no input"),
        (["gone.csv"], None, "gone.csv: there is no such file or folder"),
        (["a.csv", "a.jsonl"], None, "files of several formats: csv, jsonl"),
        (["a.txt"], None, "the ending of .*a.txt says nothing about the format"),
        (["a.csv"], "tsv", r"does not read 'tsv' \(did you mean \"csv\"\?\)"),
        (["empty"], None, "empty: the folder holds no files"),
        (["a.csv", "mock:///a.csv"], None, "the inputs are in several file systems|no such file"),
    ],
)
def test_wrong_inputs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], format: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("a.csv", "a.jsonl", "a.txt"):
        (tmp_path / name).write_text("text\na\n")
    with pytest.raises(ManyheadsError, match=message):
        find_input(inputs, format)


SPECS = (
    TaskSpec("intent", "classification", ("a", "b")),
    TaskSpec("topics", "multilabel", ("x", "y"), threshold=0.5),
    TaskSpec("ner", "tagging", ("O", "B-PER", "I-PER"), Scheme.BIO, "linear"),
    TaskSpec("pos", "tagging", ("NOUN", "VERB"), Scheme.PLAIN, "linear"),
)


def test_the_types_of_the_columns_do_not_depend_on_what_is_in_them() -> None:
    schema = result_schema(SPECS, embed=True, scoped=True)
    nothing = Prediction(
        "", {"intent": ClassResult(None, None, None), "topics": MultilabelResult(()),
             "ner": TaggingResult((), ()), "pos": TaggingResult((), ())}, None, 0,
    )  # fmt: skip
    label, token = ClassResult("b", 1, 0.5), TokenTag("Ann", "NOUN", 0, 0, 3)
    entity = Entity("Ann", "PER", 0, 3, 0.25)
    something = Prediction(
        "Ann", {"intent": label, "topics": MultilabelResult((label,)),
                "ner": TaggingResult((entity,), (token,)), "pos": TaggingResult((), (token,))},
        np.array([0.5, 1.0], np.float32), in_scope=0.75,
    )  # fmt: skip
    for predictions in ([], [nothing], [something], [nothing, something]):
        columns = result_columns(predictions, SPECS, schema)
        assert [column.type for column in columns] == schema.types
    assert pa.Table.from_arrays(columns, schema=schema).to_pylist() == [
        {
            "intent": None,
            "topics": [],
            "ner": [],
            "pos": [],
            "in_scope": None,
            "empty": True,
            "embedding": None,
        },
        {
            "intent": label.to_json(),
            "topics": [label.to_json()],
            "ner": [entity.to_json()],
            "pos": [token._asdict()],
            "in_scope": 0.75,
            "empty": False,
            "embedding": [0.5, 1.0],
        },
    ]


def test_columns_of_the_input_keep_their_names() -> None:
    assert output_columns(["ner", "empty"], ["text", "ner"]) == {
        "ner": "predicted_ner", "empty": "empty"
    }  # fmt: skip
    with pytest.raises(RequestError, match="has the columns 'ner' and 'predicted_ner' already"):
        output_columns(["ner"], ["ner", "predicted_ner"])


def test_parts_of_the_input_are_put_under_one_schema() -> None:
    parts = [
        pa.table({"text": ["a"], "score": [1]}),
        pa.table({"score": [0.5], "text": ["b"], "more": [None]}),
    ]
    schema = common_schema([part.schema for part in parts], "in")
    assert schema == pa.schema(
        [("text", pa.string()), ("score", pa.float64()), ("more", pa.string())]
    )
    whole = pa.concat_tables(conformed(part, schema, "in") for part in parts)
    assert whole.to_pydict() == {"text": ["a", "b"], "score": [1.0, 0.5], "more": [None, None]}
    with pytest.raises(DataError, match=r"in: the parts of the input differ .*int64 vs string"):
        common_schema([pa.schema([("a", pa.int64())]), pa.schema([("a", pa.string())])], "in")
    with pytest.raises(DataError, match=r"column 'text' is list<.*> in one part .* string"):
        conformed(pa.table({"text": [["a"]]}), schema, "in")


def test_output_on_other_file_systems_is_complete_or_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = fs._MockFileSystem()
    monkeypatch.setattr(outputs, "_resolved", lambda output: (files, output))

    def contents() -> list[str]:
        infos = files.get_file_info(fs.FileSelector("home", recursive=True))
        return sorted(info.path for info in infos if info.type is fs.FileType.File)

    def write() -> None:
        with outputs.output_folder("home/out") as place:
            with files.open_output_stream(f"{place.folder}/part") as stream:
                stream.write(b"a")
            assert place.names() == ["part"]
            assert contents() == ["home/out/part"]
            if failing:
                raise KeyboardInterrupt

    failing = True
    with pytest.raises(KeyboardInterrupt):
        write()
    assert contents() == []
    failing = False
    write()
    assert contents() == ["home/out/_SUCCESS", "home/out/part"]
    with pytest.raises(RequestError, match="home/out: the folder holds something already"):
        write()


def test_an_unknown_file_system_is_refused() -> None:
    with (
        pytest.raises(RequestError, match=r"nofs://a: the file system cannot be opened"),
        outputs.output_folder("nofs://a"),
    ):
        pass
