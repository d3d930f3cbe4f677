"""`predict`: models, texts, files and output, with a predictor that needs no model."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from command_line import Run
from fake_predictor import FakePredictor
from manyheads.api.texts import EmptyTexts, argument_texts, count_texts, file_texts
from manyheads.cli.conversation import EXAMPLES
from manyheads.cli.predict import announced, split_arguments
from manyheads.data.readers import Layout
from manyheads.display import Counter
from manyheads.errors import DataError, RequestError
from manyheads.inference import Runtime

NO_LABEL = {"from_name": "ner", "type": "labels", "value": {"start": 0, "end": 3}}
"""A span of Label Studio without a label."""


def test_texts_among_the_arguments_are_answered_in_two_lines_and_in_words(
    run: Run, predictor: FakePredictor
) -> None:
    result = run("predict", "John lives", "in Paris")
    assert result.status == 0
    assert result.out == (
        "In words: classification: 10 25 %; ner: John (PER 50 %)\n"
        'Classification: 10\nNER Tags: [("John", 0), ("lives", 0)]\n\n'
        "In words: classification: 8 25 %; ner: in (PER 50 %)\n"
        'Classification: 8\nNER Tags: [("in", 0), ("Paris", 0)]\n'
    )
    assert predictor.loaded["model"] == "saved_model"


def test_options_of_prediction_reach_the_predictor(run: Run, predictor: FakePredictor) -> None:
    options = ["--backend", "onnx", "--device", "cpu", "--threads", "1", "--batch_tokens", "64"]
    result = run("predict", "--model", "m", *options, "--tasks", "classification, ner", "a")
    assert result.status == 0, result.err
    assert callable(predictor.loaded.pop("warn"))
    runtime = Runtime("onnx", "cpu", 1, 64)
    assert predictor.loaded == {"model": "m", "runtime": runtime, "alone": True}
    assert predictor.options["tasks"] == ["classification", "ner"]


def test_a_prompt_is_that_of_the_embedding(run: Run, predictor: FakePredictor) -> None:
    assert run("predict", "--embed", "--prompt-name", "passage", "a b").status == 0
    assert predictor.prompt == "passage: "
    assert run("predict", "--embed", "--prompt", "find: ", "a b").status == 0
    assert predictor.prompt == "find: "
    assert run("predict", "--embed", "a b").status == 0
    assert predictor.prompt is None
    for option in ("--prompt-name", "--prompt"):
        predictor.loaded.clear()
        result = run("predict", option, "query", "a b")
        assert not predictor.loaded
        assert (result.status, result.err) == (
            2,
            f"error: {option} without --embed; expected the embedding, which alone reads a prompt. "
            f"Add --embed, or leave out {option}.\n",
        )
        result = run("predict", "m", "in.csv", "--engine", "ray", "--embed", option, "query")
        assert f"{option} with --engine ray" in result.err


def test_json_lines_have_every_text_on_a_line_in_utf_8(run: Run, predictor: FakePredictor) -> None:
    result = run("predict", "--format", "jsonl", "--embed", "Zoë 🎈", "two\nlines\x9b")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == [
        "Zoë 🎈",
        "two\nlines\x9b",
    ]
    assert "Zoë 🎈" in result.out
    assert predictor.options["embed"] is True


def test_lines_for_people_have_no_control_characters(run: Run, predictor: FakePredictor) -> None:
    out = run("predict", "a\x1b[31m\x9b\x7f\x07 b").out
    assert all(c.isprintable() for c in out.replace("\n", ""))


def test_the_embedding_is_a_line_of_its_own_for_people(run: Run, predictor: FakePredictor) -> None:
    assert run("predict", "--embed", "a").out.splitlines()[3:] == ["Embedding: [0.5, -0.25]"]


@pytest.mark.parametrize(
    ("arguments", "model", "texts"),
    [
        ([], "saved_model", []),
        (["a text"], "saved_model", ["a text"]),
        (["there"], "there", []),
        (["there", "a text"], "there", ["a text"]),
        (["old.pt", "a"], "old.pt", ["a"]),
        (["absent.pt"], "absent.pt", []),
        (["runs/absent", "a"], "runs/absent", ["a"]),
        (["absent/"], "absent/", []),
        (["either/or is fine"], "saved_model", ["either/or is fine"]),
        (["Ends in.", "there"], "saved_model", ["Ends in.", "there"]),
        (["", "there"], "saved_model", ["", "there"]),
        (["word " * 10_000], "saved_model", ["word " * 10_000]),
        (["a\0b"], "saved_model", ["a\0b"]),
    ],
)
def test_the_first_argument_is_the_model_if_it_is_a_path(
    arguments: list[str],
    model: str,
    texts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "old.pt").write_bytes(b"")
    assert split_arguments(arguments) == (model, texts)


def test_a_first_word_that_may_be_a_mistyped_model_is_said_to_be_read_as_a_text(
    run: Run, predictor: FakePredictor
) -> None:
    result = run("predict", "--format", "jsonl", "m1x", "John lives in Paris")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == [
        "m1x",
        "John lives in Paris",
    ]
    assert (result.status, result.err) == (
        0, "note: model saved_model; 'm1x' is read as a text\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [["Hello"], ["John lives", "Paris"], ["there", "Hello", "Paris"], ["--model", "m", "a", "b"]],
    ids=["one text", "several words", "a model", "--model"],
)
def test_texts_that_are_no_mistyped_model_are_read_without_a_note(
    run: Run, predictor: FakePredictor, arguments: list[str]
) -> None:
    Path("there").mkdir()
    result = run("predict", *arguments)
    assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize("texts", [["m1x"], ["m1x", "John lives in Paris"]])
def test_without_a_default_model_the_error_names_both_readings_of_a_first_word(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("predict", *texts)
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        "error: 'm1x' is not the path of a model, and there is no saved_model that would read it "
        "as a text; expected a model folder, a checkpoint (.pt) or a run's folder, and texts. "
        "Train a model first (manyheads train CONFIG), or correct the path.\n"
    )


def test_without_a_default_model_the_error_names_only_the_model_if_a_text_is_no_word(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("predict", "John lives in Paris")
    assert result.status == 2
    assert result.err.startswith("error: saved_model: there is no such model; expected")


def test_a_file_of_sentences_is_not_taken_for_a_model(run: Run, predictor: FakePredictor) -> None:
    Path("a.txt").write_text("x", encoding="utf-8")
    result = run("predict", "a.txt")
    assert result.status == 2
    assert "a.txt is a file, but not a model" in result.err
    assert "--file a.txt" in result.err


@pytest.mark.parametrize(("text", "problem"), [("", "empty"), (" \t\n", "only white space")])
def test_a_text_without_words_is_refused_flagged_or_left_out(
    run: Run, predictor: FakePredictor, text: str, problem: str
) -> None:
    refused = run("predict", "fine", text)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"error: text 2: the text is {problem}; expected a sentence")
    flagged = run("predict", "--when-empty", "flag", "--format", "jsonl", "fine", text)
    assert [json.loads(line)["text"] for line in flagged.out.splitlines()] == ["fine", text]
    skipped = run("predict", "--when-empty", "skip", "--format", "jsonl", "fine", text, "\u200b")
    assert [json.loads(line)["text"] for line in skipped.out.splitlines()] == ["fine"]


def test_an_argument_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(RequestError, match=r"text 2: b'caf\\xe9' is not UTF-8"):
        argument_texts(["fine", os.fsdecode(b"caf\xe9")], EmptyTexts.REFUSE)
    # As an ASCII locale passes it on.
    halves = "café".encode().decode("ascii", "surrogateescape")
    assert argument_texts([halves], EmptyTexts.REFUSE) == ["café"]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "one two\r\nthree\n", ["one two", "three"]),
        ("a.txt", "\ufeffone\nlast without end", ["one", "last without end"]),
        ("a.jsonl", '{"text": "one two", "label": "x"}\n', ["one two"]),
        ("a.json", '[{"tokens": ["one", "two."], "ner": ["O", "O"]}]', [["one", "two."]]),
        ("a.csv", "text,label\none two,x\n", ["one two"]),
        ("a.conll", "one O\ntwo B-X\n\nthree O\n", [["one", "two"], ["three"]]),
    ],
)
def test_texts_are_read_from_files_of_every_format(
    tmp_path: Path, name: str, content: str, texts: list[Any]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert [one.text for one in file_texts(str(path), Layout(), EmptyTexts.REFUSE)] == texts


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.txt", "one\ntwo\n", 2),
        ("a.txt", "one\ntwo without end", 2),
        ("a.jsonl", '{"text": "one"}\n', 1),
        ("a.csv", "text,label\none,x\ntwo,y", 2),
        ("a.tsv", "", 0),
        ("a.conll", "one O\n\ntwo O\n", None),
        ("a.json", "[]", None),
    ],
)
def test_texts_are_counted_in_files_with_one_a_line(
    tmp_path: Path, name: str, content: str, count: int | None
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert count_texts(str(path), None) == count
    assert count_texts(str(tmp_path / "missing.txt"), None) is None
    assert count_texts("-", "text") is None


@pytest.mark.parametrize("arguments", [["--output", "out.txt"], []], ids=["file", "stdout"])
def test_the_progress_of_a_file_shows_the_time_left(
    run: Run,
    predictor: FakePredictor,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    totals: list[int | None] = []

    def counter(description: str, total: int | None, **options: bool) -> Any:
        assert options == {"enabled": True, "grouped": True}
        totals.append(total)
        return Counter(description, total, enabled=False)

    monkeypatch.setattr("manyheads.display.Counter", counter)
    Path("in.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    assert run("predict", "m/", "--file", "in.txt", *arguments).status == 0
    assert totals == [3]


@pytest.mark.parametrize(
    ("name", "records"),
    [
        (
            "x.jsonl",  # Prodigy's
            [
                {"text": "one", "spans": [], "answer": "accept"},
                {"text": "two", "spans": [], "answer": "reject"},
                {"text": "three", "answer": "ignore"},
            ],
        ),
        (
            "x.json",  # Label Studio's
            [
                {"data": {"text": "one"}, "annotations": [{"result": [NO_LABEL]}]},
                {"data": {"text": "two"}, "annotations": []},
                {"data": {"text": "three"}, "annotations": [{"result": []}]},
            ],
        ),
    ],
)
def test_texts_are_read_whatever_their_annotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, records: list[Any]
) -> None:
    path = tmp_path / name
    path.write_text(
        json.dumps(records) if name == "x.json" else "".join(json.dumps(r) + "\n" for r in records)
    )
    expected = ["one", "two", "three"]
    assert [one.text for one in file_texts(str(path), Layout(), EmptyTexts.REFUSE)] == expected
    stdin = SimpleNamespace(buffer=BytesIO(path.read_bytes()), closed=False)
    monkeypatch.setattr("sys.stdin", stdin)
    layout = Layout("prodigy" if name == "x.jsonl" else "label-studio")
    assert [one.text for one in file_texts("-", layout, EmptyTexts.REFUSE)] == expected


def test_texts_of_brat_are_read_with_and_without_annotations(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "a.ann").write_text("T1\tX 0 3\tone\n")
    (tmp_path / "b.txt").write_text("two\n")
    found = file_texts(str(tmp_path), Layout(), EmptyTexts.REFUSE)
    assert [one.text for one in found] == ["one", "two"]


def test_a_row_of_a_table_without_a_second_text_is_one_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("text,text2\na,b\nc,\n", encoding="utf-8")
    found = file_texts(str(path), Layout(), EmptyTexts.REFUSE, pairs=True)
    assert [one.text for one in found] == [("a", "b"), "c"]


def test_the_format_of_a_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one O\ntwo B-X\n", encoding="utf-8")
    found = file_texts(str(path), Layout("conll"), EmptyTexts.REFUSE)
    assert [one.text for one in found] == [["one", "two"]]
    with pytest.raises(DataError, match=r"unknown format 'conl' \(did you mean \"conll\"\?\)"):
        list(file_texts(str(path), Layout("conl"), EmptyTexts.REFUSE))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            b"fine\ncaf\xe9 x\n",
            r"a\.txt:2: byte 0xe9 at offset 8 of the file is not UTF-8",
        ),
        ("a.txt", b"fine\n\nmore\n", r"a\.txt:2: the text is empty; expected a sentence"),
        ("a.txt", b"", r"a\.txt: the file is empty"),
        ("a.txt", None, r"a\.txt: cannot be read \(No such file or directory\)"),
        ("a.jsonl", b'{"text": "x"}\n{"text": " "}\n', r"a\.jsonl:2: the text is only white space"),
        ("a.jsonl", b'{"label": "x"}\n', r"a\.jsonl:1: neither `text` nor `tokens`"),
        ("a.xyz", b"x\n", r"a\.xyz: the ending '\.xyz' says nothing about the format"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line(
    run: Run,
    predictor: FakePredictor,
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    Path("out.txt").write_text("old", encoding="utf-8")
    result = run("predict", "--file", name, "--output", "out.txt")
    assert result.status == 2
    assert re.search(message, result.err)
    assert Path("out.txt").read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in Path().iterdir() if p.name != name) == ["out.txt"]


def test_output_appears_in_a_file(run: Run, predictor: FakePredictor) -> None:
    Path("a.txt").write_text("one\ntwo\n", encoding="utf-8")
    result = run("predict", "--file", "a.txt", "--output", "o.jsonl", "--format", "jsonl")
    assert (result.status, result.out) == (0, "")
    lines = Path("o.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize(
    "name",
    ["o.tsv", "o.xlsx", "o.xls", "O.JSON", "o.conll", "o.arrow", "o.tsv.gz", "o.jsonl.gz"],
)
def test_an_output_that_ends_as_other_data_is_refused_unless_its_format_is_named(
    run: Run, predictor: FakePredictor, name: str
) -> None:
    refused = run("predict", "a b", "--output", name)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        f"error: {name}: predictions are not written as {Path(name).suffix.lower()}; expected a "
        "file that ends in .jsonl, .ndjson, .csv, .parquet, .pq. Rename it, or name its format "
        "with --format NAME: text, jsonl, csv, parquet.\n"
    )
    assert not Path(name).exists()
    assert run("predict", "a b", "--output", name, "--format", "text").status == 0
    assert Path(name).read_text(encoding="utf-8").startswith("In words: classification: 3 ")


@pytest.mark.parametrize("name", ["o.txt", "o.md", "o.log", "o", "o.answers"])
def test_an_output_of_another_ending_is_text(run: Run, predictor: FakePredictor, name: str) -> None:
    assert run("predict", "a b", "--output", name).status == 0
    assert Path(name).read_text(encoding="utf-8").startswith("In words: classification: 3 ")


def test_resuming_without_a_stopped_run_says_that_it_starts_from_the_beginning(
    run: Run, predictor: FakePredictor
) -> None:
    Path("a.csv").write_text("text\none\ntwo\n", encoding="utf-8")
    command = ("predict", "m", "--file", "a.csv", "--output", "p.jsonl", "--resume")
    Path("m").mkdir()
    begins = "note: there is no stopped run; starting from the beginning"
    first = run(*command)
    assert (first.status, first.err) == (0, f"{begins}\n")
    again = run(*command)
    assert (again.status, again.err) == (
        0, f"{begins}. p.jsonl is replaced when the new one is complete\n",
    )  # fmt: skip
    lines = Path("p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize("form", ["text", "csv", "parquet"])
@pytest.mark.parametrize("options", [("--top-k", "3"), ("--logits",)])
def test_what_only_json_lines_hold_is_refused_in_other_forms(
    run: Run, predictor: FakePredictor, form: str, options: tuple[str, ...]
) -> None:
    result = run("predict", "a b", "--output", "o", "--format", form, *options)
    assert result.status == 2
    assert result.err == (
        f"error: {options[0]} with output as {form}, which has no place for it; expected JSON "
        "lines. Use --format jsonl.\n"
    )
    assert run("predict", "a b", "--format", "jsonl", *options).status == 0


def test_texts_come_from_one_place_only(run: Run, predictor: FakePredictor) -> None:
    result = run("predict", "--file", "a.txt", "some text")
    assert result.status == 2
    assert "1 text among the arguments and --file a.txt. Give one of the two." in result.err


@pytest.mark.parametrize("texts", [["some text"], []])
def test_a_layout_of_no_file_is_refused(
    run: Run, predictor: FakePredictor, texts: list[str]
) -> None:
    result = run("predict", "m/", "--input-format", "jsonl", "--text-field", "body", *texts)
    assert result.status == 2
    assert "error: --input-format, --text-field without --file; expected a file" in result.err


def test_an_unknown_task_is_refused_before_anything_is_read(
    run: Run, predictor: FakePredictor
) -> None:
    result = run("predict", "--task", "nr", "--file", "absent.txt")
    assert "error: no task ['nr']" in result.err


def test_a_command_without_input_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manyheads.cli.predict._PATIENCE", 0.01)

    def texts(pause: float) -> Iterator[str]:
        time.sleep(pause)
        yield "one"
        time.sleep(0.1)

    assert list(announced(texts(0.5))) == ["one"]
    assert capsys.readouterr().err.startswith("note: reading sentences from standard input")
    monkeypatch.setattr("manyheads.cli.predict._PATIENCE", 30.0)
    assert list(announced(texts(0.0))) == ["one"]
    assert capsys.readouterr().err == ""


def test_a_mistake_does_not_end_a_conversation(
    run: Run, predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    undecodable = UnicodeDecodeError("utf-8", b"caf\xe9", 3, 4, "invalid continuation byte")
    lines = iter([undecodable, os.fsdecode(b"caf\xe9"), "", "refuse", "fine", EOFError()])

    def read(prompt: str) -> str:
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return str(line)

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("manyheads.cli.predict.is_person", lambda stream: True)
    monkeypatch.setattr("manyheads.api.texts.is_person", lambda stream: True)
    result = run("predict")
    assert result.status == 0
    assert [line.split(";")[0] for line in result.err.splitlines()] == [
        "error: byte 0xe9 is not UTF-8",
        "error: text 1: b'caf\\xe9' is not UTF-8",
        "error: refused",
    ]
    assert result.out.count("Classification: ") == len(EXAMPLES) + 1
    assert "Classification: 4\n" in result.out
