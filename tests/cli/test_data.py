"""`data check`, `data convert` and `data formats`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from command_line import Run, python
from tiny import tiny_tokenizer


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files of sound records, an encoder's tokenizer, and a configuration that names them."""
    monkeypatch.chdir(tmp_path)
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    tiny_tokenizer().save(str(encoder / "tokenizer.json"))
    (encoder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (encoder / "model.safetensors").write_bytes(b"")
    for name, place in (("train", "Paris"), ("valid", "Rome")):
        rows = [
            {"tokens": ["John", "lives", "in", place], "ner": ["B-PER", "O", "O", "B-LOC"]},
            {"text": f"Where is {place}?", "label": "question"},
            {"text": f"{place} is nice.", "label": "statement"},
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    config = tmp_path / "c.yaml"
    config.write_text(
        "model_name: ./encoder\nmax_length: 16\ntrain_file: train.json\nvalid_file: valid.json\n",
        encoding="utf-8",
    )
    return config


def test_sound_data_pass_the_check(run: Run, records: Path) -> None:
    result = run("data", "check", "--config", str(records), "--json", "report.json")
    assert (result.status, result.err) == (0, "")
    assert "Findings: " in result.out
    report = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert report["ok"] is True
    assert report["max_length"] == 16
    assert [(Path(f["path"]).name, f["records"]) for f in report["files"]] == [
        ("train.json", 3),
        ("valid.json", 3),
    ]


def test_data_are_checked_as_the_configuration_of_an_earlier_run_says(
    run: Run, records: Path
) -> None:
    with records.open("a", encoding="utf-8") as stream:
        stream.write("hold_out: 0.2\n")  # which is refused beside `valid_file` since
    assert run("data", "check", "--config", str(records)).status == 0


def test_faults_of_data_are_listed_and_make_the_status_1(run: Run, records: Path) -> None:
    Path("valid.json").write_bytes(Path("train.json").read_bytes())
    result = run("data", "check", "train.json", "valid.json", "--config", str(records))
    assert result.status == 1
    assert "valid.json:1 (record 1): the same text as train.json:1 (record 1)" in result.out
    assert re.fullmatch(r"error: the data have \d+ errors\. Correct them, .*\n", result.err)


def test_a_report_for_programs_stands_alone_on_standard_output(run: Run, records: Path) -> None:
    options = ["--config", str(records), "--max-length", "5", "--json", "-"]
    result = run("data", "check", "train.json", *options)
    assert json.loads(result.out)["max_length"] == 5
    assert json.loads(result.out)["files"][0]["truncated"] > 0


def test_tasks_can_be_named_without_a_configuration(
    run: Run, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.modeling.packaged_encoder", lambda: None)
    Path("own.jsonl").write_text('{"text": "a b", "topic": "x"}\n', encoding="utf-8")
    result = run("data", "check", "own.jsonl", "--task", "t=classification:topic", "--json", "-")
    assert list(json.loads(result.out)["files"][0]["tasks"]) == ["t"]
    assert result.err.startswith("note: truncation is not checked: no encoder is named")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: no data is named; expected files. Name them, or --config CONFIG"),
        (["absent.json"], "absent.json: there is no such file"),
        (["train.json", "--task", "ner"], "--task 'ner' names no kind of task; expected NAME=KIND"),
        (["train.json", "--task", "a=taging"], '(did you mean "tagging"?)'),
        (["train.json", "--task", "a b=tagging"], "the task name 'a b' must begin with a letter"),
        (["--config", "same.yaml"], "train.json is both training and validation data"),
    ],
)
def test_a_data_check_that_cannot_run_says_why(
    run: Run, records: Path, arguments: list[str], message: str
) -> None:
    Path("same.yaml").write_text("train_file: train.json\nvalid_file: train.json", encoding="utf-8")
    result = run("data", "check", *arguments)
    assert result.status == 2
    assert message in result.err


def test_the_layout_of_data_can_be_given(run: Run, records: Path) -> None:
    Path("x.csv").write_text("body,topic\none,a\ntwo,b\n", encoding="utf-8")
    config = ["--config", str(records), "--task", "t=classification"]
    bad = run("data", "check", "x.csv", *config)
    assert bad.status == 1
    assert "only: body, topic" in " ".join(bad.out.split())
    options = ["--text-field", "body", "--map", "topic=label", *config, "--json", "-"]
    result = run("data", "check", "x.csv", *options)
    assert json.loads(result.out)["files"][0]["tasks"]["t"]["labels"] == {"a": 1, "b": 1}
    twice = run("data", "check", "x.csv", "--text-field", "body", "--map", "topic=text")
    assert twice.status == 2
    assert "the field 'topic' is to be read as 'text', but so is another" in twice.err


def test_data_are_converted_and_fields_left_out_are_reported(run: Run, records: Path) -> None:
    Path("nlu.yml").write_text(
        "nlu:\n- intent: greet\n  examples: |\n    - hi [Ada](name)\n- regex: x\n  examples: |\n"
        "    - y\n",
        encoding="utf-8",
    )
    result = run("data", "convert", "nlu.yml", "out.jsonl")
    assert result.out == "1 record: out.jsonl\n"
    assert result.err == "note: not written: sections `regex` (1)\n"
    assert json.loads(Path("out.jsonl").read_text(encoding="utf-8")) == {
        "text": "hi Ada", "label": "greet", "entities": [{"start": 3, "end": 6, "label": "name"}],
    }  # fmt: skip
    assert run("data", "convert", "nlu.yml", "x", "--to", "docano").status == 2


def test_records_that_are_not_augmented_are_reported_with_the_reason(
    run: Run, records: Path
) -> None:
    rows = [
        {"tokens": ["to", place], "ner": tags}
        for place, *tags in (("Oslo", "O", "B-c"), ("Rome", "O", "B-c"), ("Bonn", None, "B-c"))
    ]
    Path("in.json").write_text(json.dumps([*rows, {"text": "hi"}]), encoding="utf-8")
    result = run("data", "augment", "in.json", "out.jsonl")
    why = "without an entity to exchange, or with words without a label"
    assert f"note: left as they are, {why}: 2 records\n" in result.err


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape"])
def test_a_path_that_standard_output_cannot_show_is_escaped(tmp_path: Path, encoding: str) -> None:
    source, target = tmp_path / "a.jsonl", tmp_path / "é.jsonl"
    source.write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    done = python(
        "import sys; from manyheads.cli import main; sys.exit(main(sys.argv[1:]))",
        *("data", "convert", str(source), str(target)),
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"1 record: {tmp_path}/\\xe9.jsonl\n"
    assert target.exists()


def test_formats_are_listed_by_name(run: Run) -> None:
    out = run("data", "formats").out
    assert "label-studio" in out
    assert "conllu" in out
