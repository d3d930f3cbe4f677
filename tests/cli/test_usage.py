"""Help, usage errors, and what starts without a framework."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from command_line import Run, python
from manyheads.cli import COMMANDS, main
from manyheads.cli.evaluate import tell_which


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.status == 0
    assert result.out.startswith(f"Usage: manyheads {command}")
    assert result.err == ""


def test_without_arguments_the_commands_are_listed(run: Run) -> None:
    result = run()
    assert result.status == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.out, re.MULTILINE)


def test_the_version_is_printed(run: Run) -> None:
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
    run: Run, arguments: Sequence[str], message: str
) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""


def test_a_launcher_calls_its_command_by_its_own_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
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


HEAVY = ("torch", "transformers", "sklearn", "datasets", "scipy", "pandas", "accelerate")


def test_help_and_messages_need_no_framework() -> None:
    done = python(
        f"""
        import sys
        from manyheads.cli import main
        for arguments in (["--help"], ["info", "nowhere"], ["predict", "--help"]):
            main(arguments)
        print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
        """
    )
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["calibrate", "thresholds", "export", "push"])
def test_a_checkpoint_is_offered_only_where_one_is_taken(run: Run, command: str) -> None:
    assert ".pt checkpoint" in " ".join(run("info", "--help").out.split())
    assert ".pt" not in run(command, "--help").out
