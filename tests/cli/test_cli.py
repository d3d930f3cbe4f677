"""The command line passes its arguments to the API and reports each error once."""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fake_predictor import FakePredictor
from manyheads.api.texts import WhenEmpty, argument_texts, count_texts, file_texts
from manyheads.cli import COMMANDS, main
from manyheads.cli.conversation import EXAMPLES
from manyheads.cli.evaluate import tell_which
from manyheads.cli.help import MOST_USED
from manyheads.cli.options import FLAT_FIELDS, overrides_of
from manyheads.cli.predict import announced, split_arguments
from manyheads.config import Config, key_groups
from manyheads.data.readers import Layout
from manyheads.errors import CheckFailed, DataError, ManyheadsError, RequestError
from manyheads.training import Stopped
from manyheads.training.distill import SAVE_DIR
from tiny import tiny_tokenizer


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """Run a command line in this process."""

    def run(*arguments: str, **options: Any) -> SimpleNamespace:
        status = main(arguments, **options)
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


def process(
    *arguments: str, text: str | None = None, python: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `manyheads`, or some Python, in a process of its own."""
    command = ["-c", textwrap.dedent(python)] if python else ["-m", "manyheads"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True,
        encoding="utf-8",
        **({"input": text} if text is not None else {"stdin": subprocess.DEVNULL}),
        timeout=3000,
        check=False,
        **options,
    )


# ------------------------------------------------------------------------------ help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(run: Callable[..., SimpleNamespace], command: str) -> None:
    result = run(command, "--help")
    assert result.status == 0
    assert result.out.startswith(f"Usage: manyheads {command}")
    assert result.err == ""


def test_without_arguments_the_commands_are_listed(run: Callable[..., SimpleNamespace]) -> None:
    result = run()
    assert result.status == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.out, re.MULTILINE)


def test_the_version_is_printed(run: Callable[..., SimpleNamespace]) -> None:
    assert re.fullmatch(r"manyheads \d+\.\d+\.\d+\S*\n", run("--version").out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trian"],
            "error: there is no command 'trian' (did you mean \"train\"?); expected one of",
        ),
        (["train", "--bach-size", "3"], "there is no option --bach-size (did you mean --batch-siz"),
        (["train", "--bach_size=3"], "there is no option --bach-size (did you mean --batch-size?)"),
        (["--nonsense"], "error: there is no option --nonsense. See `manyheads --help`."),
        (["train", "--batch-size"], "error: option '--batch-size' requires an argument"),
        (
            ["train", "a.yaml", "b.yaml"],
            "a.yaml is a configuration, and is given together with b.yaml",
        ),
        (
            ["predict", "--format", "xml", "text"],
            "error: --format is 'xml'; expected one of 'text', 'jsonl', 'csv', 'parquet'. See",
        ),
        (
            ["predict", "--threads", "0", "text"],
            "error: --threads is '0'; expected greater than or equal to 1.",
        ),
    ],
)
def test_a_mistaken_command_line_ends_with_one_message_and_status_2(
    run: Callable[..., SimpleNamespace], arguments: Sequence[str], message: str
) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_a_launcher_calls_its_command_by_its_own_name(
    run: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["src/evaluate.py", "--help"])
    status = main(command="evaluate")
    assert status == 0
    assert run("--help", command="evaluate").out.startswith("Usage: python src/evaluate.py")


def test_without_a_model_evaluate_names_the_scored_model_and_the_best(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manyheads.cli.evaluate.other_best", lambda path: path.parent / "best")
    tell_which(Path("saved_model/mtl_epoch3.pt"))
    assert capsys.readouterr().err == (
        "note: scored saved_model/mtl_epoch3.pt; the best model is another: saved_model/best\n"
    )


# ---------------------------------------------------------------------------------------- train


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SimpleNamespace]:
    """Replace training by a function that records its calls."""
    calls: list[SimpleNamespace] = []

    def train(config: Config, *, resume: bool, overwrite: bool, reporter: Any) -> SimpleNamespace:
        calls.append(SimpleNamespace(config=config, resume=resume, overwrite=overwrite))
        best_of = {"ner": Path("out/best-ner")} if config.keep_best_per_task else {}
        return SimpleNamespace(
            best=Path("out/best"), best_epoch=2, best_score=0.5, best_of=best_of, summary=()
        )

    module = ModuleType("manyheads.training.loop")
    module.__dict__["train"] = train
    monkeypatch.setitem(sys.modules, "manyheads.training.loop", module)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("batch_size: 4\nlearning_rate: 2e-5\n", encoding="utf-8")
    return calls


def test_training_names_the_best_model_of_each_task(
    run: Callable[..., SimpleNamespace], trained: list[SimpleNamespace]
) -> None:
    mapping = "{classification: 1, ner: 3}"
    options = ["--keep-best-per-task", "true", "--best-metric", "weighted"]
    result = run("train", "config.yaml", *options, "--best-weights", mapping)
    assert result.status == 0, result.err
    assert result.out.splitlines()[1:] == ["Best model for ner: out/best-ner"]
    assert trained[0].config.best_weights == {"classification": 1, "ner": 3}


def test_an_option_overrides_the_configuration(
    run: Callable[..., SimpleNamespace], trained: list[SimpleNamespace]
) -> None:
    result = run("train", "config.yaml", "--lr", "3e-5", "--epochs", "7", "--resume")
    assert result.status == 0, result.err
    assert result.out == "Best model: epoch 2, score 0.5000, out/best\n"
    (call,) = trained
    assert (call.config.batch_size, call.config.learning_rate, call.config.num_epochs) == (
        4,
        3e-5,
        7,
    )
    assert (call.resume, call.overwrite) == (True, False)


@pytest.mark.parametrize(
    "flag", ["--save_dir", "--save-dir", "--checkpoint_dir", "--checkpoint-dir"]
)
def test_a_field_has_one_option_under_all_its_names(
    run: Callable[..., SimpleNamespace], trained: list[SimpleNamespace], flag: str
) -> None:
    assert run("train", flag, "2024", f"{flag}=2025").status == 0
    assert trained[0].config.save_dir == "2025"


def test_the_help_has_every_key_with_the_schema_s_meaning_and_default(
    run: Callable[..., SimpleNamespace],
) -> None:
    text = "".join(run("train", "--help").out.split())
    for group in key_groups():
        for key in group.keys:
            if key.name not in ("tasks", "files"):  # which are for the file, and have no flag
                name = key.name if "." in key.name else f"--{key.name.replace('_', '-')}"
                assert name in text
                assert "".join(key.help.split()) in text
    assert set(Config.model_fields) - set(FLAT_FIELDS) == {"tasks", "files"}


def test_the_help_groups_the_flags_and_begins_with_those_that_matter_first(
    run: Callable[..., SimpleNamespace],
) -> None:
    text = run("train", "--help").out
    titles = [group.title for group in key_groups()]
    places = [text.index(f"\n{title}") for title in (MOST_USED, "Options", *titles)]
    assert places == sorted(places)
    assert text.index("--train-file") < text.index("--resume") < text.index("--num-classes")


def test_the_help_of_distill_has_the_defaults_of_a_student(
    run: Callable[..., SimpleNamespace],
) -> None:
    text = " ".join(run("distill", "--help").out.split())
    assert f"Default: {SAVE_DIR}." in text
    assert "saved_model" not in text
    assert "Sentences in a batch. Default: that of TEACHER." in text


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_the_help_is_as_wide_as_the_terminal(
    run: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = run("train", "--help").out.splitlines()
    assert columns - 10 < max(map(len, lines)) <= columns


def test_a_setting_reaches_any_field_of_any_task(
    run: Callable[..., SimpleNamespace], trained: list[SimpleNamespace]
) -> None:
    result = run("train", "--set", "tasks.ner.decoder=crf", "--set", "tasks.ner.labels=[PER, LOC]")
    assert result.status == 0, result.err
    task = trained[0].config.tasks["ner"]
    assert (task.decoder, task.labels) == ("crf", ("PER", "LOC"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "fast"], "`learning_rate` is 'fast'; expected a number at least 0"),
        (["--set", "lr"], "--set 'lr' sets nothing; expected KEY=VALUE"),
        (["--set", "=3"], "--set '=3' sets nothing"),
        (["--set", "lr=1", "--learning_rate", "2"], "--set lr sets learning_rate a second time"),
        (["--set", "tasks.ner.decodr=crf"], '`tasks.ner.decodr` (did you mean "decoder"?)'),
        (["--set", "sede=1"], 'unknown key `sede` (did you mean "seed"?)'),
        (["none.yaml"], "none.yaml: there is no such configuration file"),
    ],
)
def test_a_mistaken_setting_is_reported_before_anything_is_loaded(
    run: Callable[..., SimpleNamespace],
    trained: list[SimpleNamespace],
    arguments: Sequence[str],
    message: str,
) -> None:
    result = run("train", *arguments)
    assert (result.status, trained) == (2, [])
    assert message in result.err


def test_values_may_have_equals_signs_and_stay_as_they_are() -> None:
    assert overrides_of({"seed": None, "save_dir": "x"}, ["train_file=a=b.json"]) == {
        "save_dir": "x",
        "train_file": "a=b.json",
    }


def test_the_configuration_is_the_launcher_s_or_that_of_the_working_directory(
    run: Callable[..., SimpleNamespace], trained: list[SimpleNamespace], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("batch_size: 9", encoding="utf-8")
    assert run("train").status == 0
    assert run(command="train", default_config=other).status == 0
    assert run("config.yaml", command="train", default_config=other).status == 0
    assert [call.config.batch_size for call in trained] == [4, 9, 4]


def test_without_any_configuration_the_message_says_how_to_name_one(
    run: Callable[..., SimpleNamespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("train")
    assert result.status == 2
    assert result.err == (
        "error: no configuration and no data are named, and there is no config.yaml here; expected "
        "a YAML file, or labelled data. Name them: manyheads train CONFIG, or manyheads train FILE "
        "...\n"
    )


# --------------------------------------------------------------------------- errors and statuses


@pytest.fixture
def fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Callable[..., SimpleNamespace]
) -> Callable[[BaseException], SimpleNamespace]:
    """Run a command in which an exception is raised."""

    def fail(error: BaseException) -> SimpleNamespace:
        def train(*_: Any, **__: Any) -> None:
            raise error

        module = ModuleType("manyheads.training.loop")
        module.__dict__["train"] = train
        monkeypatch.setitem(sys.modules, "manyheads.training.loop", module)
        path = tmp_path / "c.yaml"
        path.write_text("", encoding="utf-8")
        result = run("train", str(path))
        result.err = result.err.removeprefix(f"Configuration: {path}\n")
        return result

    return fail


Fail = Callable[[BaseException], SimpleNamespace]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ManyheadsError("found", expected="more", where="f:1"), 2, "error: f:1: found; expected m"),
        (CheckFailed("3 problems"), 1, "error: 3 problems"),
        (Stopped("Stopped after step 3.", signal.SIGINT), 130, "stopped: Stopped after step 3."),
        (Stopped("Stopped after step 3.", signal.SIGTERM), 143, "stopped: Stopped after step 3."),
        (KeyboardInterrupt(), 130, "stopped: by Ctrl-C"),
        (MemoryError(), 2, "error: there is not enough memory. Use smaller batches"),
        (PermissionError(13, "Permission denied", "x/y"), 2, "error: x/y: Permission denied"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            "error: this needs the package torch, which is not installed. Run, in a checkout: pip "
            'install -e ".[train]"; or with a wheel of manyheads: pip install "FILE.whl[train]".',
        ),
        (KeyError("tasks"), 70, "error: KeyError: 'tasks'\nThis is a bug of Manyheads, not of you"),
        (
            ModuleNotFoundError("No module named 'manyheads.x'", name="manyheads.x"),
            70,
            "error: ModuleNotFoundError: No module named 'manyheads.x'\nThis is a bug",
        ),
    ],
)
def test_an_exception_becomes_one_message_and_its_status(
    fail: Fail, error: BaseException, status: int, message: str
) -> None:
    result = fail(error)
    assert result.status == status
    assert result.err.startswith(message)
    assert "Traceback" not in result.err
    assert result.out == ""


def test_a_traceback_is_shown_on_request(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHEADS_TRACEBACK", "1")
    result = fail(KeyError("tasks"))
    assert result.status == 70
    assert "Traceback (most recent call last)" in result.err
    assert "in train\n    raise error" in result.err


def test_a_message_cannot_control_the_terminal(fail: Fail) -> None:
    assert fail(DataError("\x1b[2Jx", where="a\x07.csv")).err == "error: a\\x07.csv: \\x1b[2Jx\n"


def test_the_word_error_is_red_on_a_terminal_alone(
    fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.display.tables.is_terminal", lambda stream: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31merror:\x1b[0m x" in fail(DataError("x")).err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in fail(DataError("x")).err.split("error:")[1]


SLEEPER = """
    import signal, sys, time
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import manyheads.evaluation
    def evaluate(*args, **kwargs):
        from manyheads.storage.atomic import atomic_file
        with atomic_file("out.txt") as file:
            file.write(b"half")
            print("ready", flush=True)
            time.sleep(30)
    manyheads.evaluation.evaluate = evaluate
    from manyheads.cli import main
    sys.exit(main(["evaluate"]))
"""


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGTERM, 143, "stopped: by SIGTERM\n"),
        (signal.SIGINT, 130, "stopped: by Ctrl-C\n"),
    ],
)
def test_a_signal_ends_a_command_without_a_trace(
    tmp_path: Path, number: signal.Signals, status: int, message: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLEEPER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=tmp_path,
    ) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "ready\n"
        sleeper.send_signal(number)
        _, err = sleeper.communicate(timeout=3000)
    assert (sleeper.returncode, err) == (status, message)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- predict


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePredictor:
    """Replace the loaded predictor by one that needs no model."""
    fake = FakePredictor()

    def load_predictor(model: str, **options: Any) -> FakePredictor:
        fake.loaded = {"model": model, **options}
        return fake

    monkeypatch.setattr("manyheads.inference.load_predictor", load_predictor)
    monkeypatch.chdir(tmp_path)
    return fake


def test_texts_among_the_arguments_are_answered_in_two_lines_and_in_words(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
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


def test_options_of_prediction_reach_the_predictor(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    options = ["--backend", "onnx", "--device", "cpu", "--threads", "1", "--batch_tokens", "64"]
    result = run("predict", "--model", "m", *options, "--tasks", "classification, ner", "a")
    assert result.status == 0, result.err
    assert callable(predictor.loaded.pop("warn"))
    assert predictor.loaded == {
        "model": "m",
        "backend": "onnx",
        "alone": True,
        "device": "cpu",
        "threads": 1,
        "batch_tokens": 64,
    }
    assert predictor.options["tasks"] == ["classification", "ner"]


def test_json_lines_have_every_text_on_a_line_in_utf_8(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    result = run("predict", "--format", "jsonl", "--embed", "Zoë 🎈", "two\nlines\x9b")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == [
        "Zoë 🎈",
        "two\nlines\x9b",
    ]
    assert "Zoë 🎈" in result.out
    assert predictor.options["embed"] is True


def test_lines_for_people_have_no_control_characters(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    out = run("predict", "a\x1b[31m\x9b\x7f\x07 b").out
    assert all(c.isprintable() for c in out.replace("\n", ""))


def test_the_embedding_is_a_line_of_its_own_for_people(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
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


def test_a_file_of_sentences_is_not_taken_for_a_model(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    Path("a.txt").write_text("x", encoding="utf-8")
    result = run("predict", "a.txt")
    assert result.status == 2
    assert "a.txt is a file, but not a model" in result.err
    assert "--file a.txt" in result.err


@pytest.mark.parametrize(("text", "problem"), [("", "empty"), (" \t\n", "only white space")])
def test_a_text_without_words_is_refused_flagged_or_left_out(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor, text: str, problem: str
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
        argument_texts(["fine", os.fsdecode(b"caf\xe9")], WhenEmpty.REFUSE)


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
    assert [t for t, _ in file_texts(str(path), Layout(), WhenEmpty.REFUSE)] == texts


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
    run: Callable[..., SimpleNamespace],
    predictor: FakePredictor,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    totals: list[int | None] = []

    def track(items: Any, description: str, total: int | None = None, *, enabled: bool) -> Any:
        assert enabled
        totals.append(total)
        return items

    monkeypatch.setattr("manyheads.display.track", track)
    Path("in.txt").write_text("one\ntwo\nthree\n", encoding="utf-8")
    assert run("predict", "m/", "--file", "in.txt", *arguments).status == 0
    assert totals == [3]


def test_the_format_of_a_file_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one O\ntwo B-X\n", encoding="utf-8")
    found = file_texts(str(path), Layout("conll"), WhenEmpty.REFUSE)
    assert [text for text, _ in found] == [["one", "two"]]
    with pytest.raises(DataError, match=r"unknown format 'conl' \(did you mean \"conll\"\?\)"):
        list(file_texts(str(path), Layout("conl"), WhenEmpty.REFUSE))


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
    run: Callable[..., SimpleNamespace],
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


def test_output_appears_in_a_file(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    Path("a.txt").write_text("one\ntwo\n", encoding="utf-8")
    result = run("predict", "--file", "a.txt", "--output", "o.jsonl", "--format", "jsonl")
    assert (result.status, result.out) == (0, "")
    lines = Path("o.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one", "two"]


def test_texts_come_from_one_place_only(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    result = run("predict", "--file", "a.txt", "some text")
    assert result.status == 2
    assert "1 text among the arguments and --file a.txt. Give one of the two." in result.err


def test_an_unknown_task_is_refused_before_anything_is_read(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor
) -> None:
    result = run("predict", "--task", "nr", "--file", "absent.txt")
    assert "error: no task ['nr']" in result.err


# Prediction in a process of its own, with a predictor that needs no model.
FAKE = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parents[1] / "helpers")!r})
    import manyheads.inference
    from fake_predictor import FakePredictor
    manyheads.inference.load_predictor = lambda *args, **options: FakePredictor()
    from manyheads.cli import main
    sys.exit(main(["predict", *sys.argv[1:]]))
"""


def test_lines_of_standard_input_are_texts() -> None:
    done = process("--format", "jsonl", python=FAKE, text="one two\nZoë\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one two", "Zoë"]
    assert process("--file", "-", python=FAKE, text="one").stdout.startswith("In words: ")


def test_a_line_of_standard_input_that_is_no_text_is_named() -> None:
    done = process(python=FAKE, text="one\n\n")
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard input:2: the text is empty; expected a sentence")


@pytest.mark.parametrize("text", ["", None])
def test_without_any_text_a_few_examples_are_shown(text: str | None) -> None:
    done = process(python=FAKE, text=text)
    assert (done.returncode, done.stderr) == (0, "")
    for example in EXAMPLES:
        words = f"In words: classification: {len(example)} 25 %; "
        assert f"> {example}\n{words}" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


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


def test_empty_standard_input_has_no_output() -> None:
    done = process("--format", "jsonl", python=FAKE, text="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Terminal:
    """The person's end of a terminal at which `manyheads predict` runs."""

    def __init__(self) -> None:
        self.descriptor, self.other_end = pytest.importorskip("pty").openpty()
        self.unread = b""

    def expect(self, text: bytes) -> bytes:
        """Read until some text appears, for ten seconds at most, and return all that was read."""
        while text not in self.unread:
            assert select.select([self.descriptor], [], [], 10)[0], self.unread
            self.unread += os.read(self.descriptor, 4096)
        seen, _, self.unread = self.unread.partition(text)
        return seen

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)


def test_at_a_terminal_examples_come_first_and_then_one_s_own_sentences() -> None:
    terminal = Terminal()
    talk = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FAKE)],
        stdin=terminal.other_end,
        stdout=terminal.other_end,
        stderr=subprocess.PIPE,
    )
    os.close(terminal.other_end)
    try:
        seen = terminal.expect(b"Your own sentences (Ctrl-D ends):")
        for example in EXAMPLES:
            assert f"> {example}".encode() in seen
        for sentence in (b"one two three", b"four"):
            terminal.expect(b"> ")
            terminal.type(sentence + b"\n")
            terminal.expect(f"Classification: {len(sentence)}\r\n".encode())
        terminal.expect(b"> ")
        terminal.type(b"\x04")
        _, err = talk.communicate(timeout=3000)
    finally:
        talk.kill()
        talk.communicate()
        os.close(terminal.descriptor)
    assert (talk.returncode, err) == (0, b"")


def test_a_mistake_does_not_end_a_conversation(
    run: Callable[..., SimpleNamespace], predictor: FakePredictor, monkeypatch: pytest.MonkeyPatch
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


def test_examples_that_go_to_a_file_are_followed_by_no_questions() -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FAKE)],
        stdin=slave,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    os.close(slave)
    os.close(master)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("> ") == len(EXAMPLES)


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly() -> None:
    script = FAKE.replace('["predict", ', '["predict", *["word"] * 20_000, ')
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline().startswith("In words: classification: 4 ")
        writer.stdout.close()
        err = writer.stderr.read()
        assert writer.wait(timeout=300) == 141
    assert err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_reported() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FAKE), "some text"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_process_without_standard_streams_can_predict(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    script = shlex.join([sys.executable, "-c", textwrap.dedent(FAKE), "a b", "--output", str(out)])
    done = subprocess.run(f"{script} <&- >&- 2>&-", shell=True, check=False)
    assert done.returncode == 0
    assert out.read_text(encoding="utf-8").startswith("In words: classification: 3 ")


# ----------------------------------------------------------------------------------- data check


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


def test_sound_data_pass_the_check(run: Callable[..., SimpleNamespace], records: Path) -> None:
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


def test_faults_of_data_are_listed_and_make_the_status_1(
    run: Callable[..., SimpleNamespace], records: Path
) -> None:
    Path("valid.json").write_bytes(Path("train.json").read_bytes())
    result = run("data", "check", "train.json", "valid.json", "--config", str(records))
    assert result.status == 1
    assert "error: valid.json:1: the same text as train.json:1" in result.out
    assert re.fullmatch(r"error: the data have \d+ errors\. Correct them, .*\n", result.err)


def test_a_report_for_programs_stands_alone_on_standard_output(
    run: Callable[..., SimpleNamespace], records: Path
) -> None:
    options = ["--config", str(records), "--max-length", "5", "--json", "-"]
    result = run("data", "check", "train.json", *options)
    assert json.loads(result.out)["max_length"] == 5
    assert json.loads(result.out)["files"][0]["truncated"] > 0


def test_tasks_can_be_named_without_a_configuration(
    run: Callable[..., SimpleNamespace], records: Path, monkeypatch: pytest.MonkeyPatch
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
    run: Callable[..., SimpleNamespace], records: Path, arguments: list[str], message: str
) -> None:
    Path("same.yaml").write_text("train_file: train.json\nvalid_file: train.json", encoding="utf-8")
    result = run("data", "check", *arguments)
    assert result.status == 2
    assert message in result.err


def test_the_layout_of_data_can_be_given(
    run: Callable[..., SimpleNamespace], records: Path
) -> None:
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


def test_data_are_converted_and_fields_left_out_are_reported(
    run: Callable[..., SimpleNamespace], records: Path
) -> None:
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


def test_formats_are_listed_by_name(run: Callable[..., SimpleNamespace]) -> None:
    out = run("data", "formats").out
    assert "label-studio" in out
    assert "conllu" in out


# -------------------------------------------------------------------------------------- startup

HEAVY = ("torch", "transformers", "sklearn", "datasets", "scipy", "pandas", "accelerate")


def test_help_and_messages_need_no_framework() -> None:
    done = process(
        python=f"""
        import sys
        from manyheads.cli import main
        for arguments in (["--help"], ["info", "nowhere"], ["predict", "--help"]):
            main(arguments)
        print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
        """
    )
    assert done.stderr.splitlines()[-1] == "[]"
