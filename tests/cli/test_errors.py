"""Each error is reported once, with the status of its kind."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from command_line import Run, python
from manyheads.cli.errors import catching
from manyheads.errors import CheckFailed, DataError, ManyheadsError, RequestError
from manyheads.training import Stopped


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run) -> Fail:
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
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
            2,
            "error: there is not enough memory. Use smaller batches",
        ),
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


INTERRUPTED = pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGTERM, 143, "stopped: by SIGTERM\n"),
        (signal.SIGINT, 130, "stopped: by Ctrl-C\n"),
    ],
)


@INTERRUPTED
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


IMPORTER = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path.insert(0, sys.argv[1])
    import manyheads.evaluation
    def evaluate(*args, **kwargs):
        try:
            import interrupted
        except ImportError as error:
            raise ValueError("there is no such package") from error
        print("went on")
    manyheads.evaluation.evaluate = evaluate
    from manyheads.cli import main
    sys.exit(main(["evaluate"]))
"""


@INTERRUPTED
@pytest.mark.parametrize(
    "reaction",
    ["raise", "raise ImportError('cannot load module more than once per process')"],
    ids=["passed on", "taken for a missing package"],
)
def test_a_signal_in_an_import_ends_the_command_without_another_import(
    tmp_path: Path, number: signal.Signals, status: int, message: str, reaction: str
) -> None:
    write_interrupted(tmp_path, number, reaction)
    done = python(IMPORTER, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)


@pytest.mark.parametrize("times", [1, 2])
def test_an_import_cannot_swallow_the_signal(tmp_path: Path, times: int) -> None:
    write_interrupted(tmp_path, signal.SIGTERM, "pass", times)
    done = python(IMPORTER, str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "stopped: by SIGTERM\n")


def write_interrupted(folder: Path, number: signal.Signals, reaction: str, times: int = 1) -> None:
    """Write a module whose import is interrupted, after which no message can be formatted."""
    (folder / "interrupted.py").write_text(
        "import signal, sys\n"
        "sys.modules['manyheads.display'] = sys.modules['manyheads.display.tables'] = None\n"
        f"for _ in range({times}):\n"
        "    try:\n"
        f"        signal.raise_signal({int(number)})\n"
        "    except BaseException:\n"
        f"        {reaction}\n",
        encoding="utf-8",
    )


def test_an_error_while_a_command_is_stopped_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise RequestError("the disk is full")

    assert catching(run) == 2
    assert "the disk is full" in capsys.readouterr().err
