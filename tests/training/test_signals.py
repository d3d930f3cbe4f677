"""Ctrl-C, SIGTERM and SIGHUP sent to real processes at any moment of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import yaml

import forked
from equal_runs import assert_same_run
from forked import messages, run_script, status_of
from held_command import Place, held_command, let_go, wait_for_message
from manyheads.cli import main
from manyheads.errors import worded_for_command
from manyheads.modeling import list_checkpoints, load_checkpoint
from manyheads.training import train
from manyheads.training.signals import StopRequest
from training_setup import config, sentences, settings, write_records

SRC = Path(__file__).parents[2] / "src"
SIZES = {"num_epochs": 2, "checkpoint_every": 2}
"""8 steps an epoch."""


@contextmanager
def held_run(folder: Path, place: Place, number: int) -> Iterator[ForkServerProcess]:
    """Start a run that is held at a place, and wait until it is there."""
    values = settings(many(folder), **SIZES)
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with held_command(folder, place, number, "config.yaml") as process:
        yield process


def send(process: ForkServerProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def stop(folder: Path, process: ForkServerProcess, number: int) -> None:
    """Send a signal, and wait until the run in a folder has noticed it."""
    send(process, number)
    name = signal.Signals(number).name
    wait_for_message(folder, process, f"{name} received: stopping and saving.")


def many(folder: Path) -> Path:
    """Write validation data of more than one batch."""
    write_records(folder / "valid.jsonl", sentences(120, 2))
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(config(many(folder), **SIZES))
    return folder / "saved"


@pytest.mark.parametrize(
    ("place", "call", "number", "status", "step"),
    [
        ("step", 5, signal.SIGINT, 130, 5),
        ("evaluation", 1, signal.SIGHUP, 129, 8),
        ("save", 1, signal.SIGTERM, 143, 3),
    ],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, undisturbed: Path, place: Place, call: int, number: int, status: int, step: int
) -> None:
    with held_run(tmp_path, place, call) as process:
        stop(tmp_path, process, number)
        let_go(tmp_path)
        assert status_of(process) == status, messages(tmp_path)
    said = messages(tmp_path)
    saved = tmp_path / "saved" / f"mtl_step{step}.pt"
    assert f"stopped: Stopped after step {step} of 16; {saved} is saved." in said
    assert "Continue with --resume." in said
    assert "Traceback" not in said
    load_checkpoint(saved)
    train(config(tmp_path, **SIZES), resume=True)
    assert_same_run(undisturbed, tmp_path / "saved", epoch=2)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_before_anything_is_trained_stops_at_once(
    tmp_path: Path, number: int, status: int
) -> None:
    with held_run(tmp_path, "preparation", 1) as process:
        send(process, number)
        assert status_of(process) == status, messages(tmp_path)
    assert "stopped: by " in messages(tmp_path)
    assert not list_checkpoints(tmp_path / "saved")


@pytest.mark.parametrize("place", ["step", "save"])
def test_a_second_signal_stops_at_once_and_breaks_nothing(
    tmp_path: Path, undisturbed: Path, place: Place
) -> None:
    # The seventh flush from the first checkpoint on is of one that replaces another.
    with held_run(tmp_path, place, 7) as process:
        stop(tmp_path, process, signal.SIGTERM)
        assert process.is_alive()
        send(process, signal.SIGTERM)
        assert status_of(process) == -signal.SIGTERM
    files = list_checkpoints(tmp_path / "saved")
    assert files
    for file in files:
        load_checkpoint(file.path)
    train(config(tmp_path, **SIZES), resume=True)
    assert_same_run(undisturbed, tmp_path / "saved", epoch=2)
    assert not [p for p in (tmp_path / "saved").iterdir() if p.name.startswith(".")]


def test_a_second_interrupt_of_a_training_from_python_is_an_exception(tmp_path: Path) -> None:
    """A notebook keeps its variables; in a command it ends the process."""

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        interrupt()
        assert stop.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    with worded_for_command(), StopRequest():
        interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_the_launcher_resumes_like_the_command(tmp_path: Path, undisturbed: Path) -> None:
    with held_run(tmp_path, "step", 5) as process:
        process.kill()
    forked.run(tmp_path, run_script, str(SRC / "train.py"), "config.yaml", "--resume")
    assert "Continuing from " in messages(tmp_path)
    assert_same_run(undisturbed, tmp_path / "saved", epoch=2)


def test_a_second_run_on_a_folder_is_refused_with_the_first_named_and_a_killed_one_blocks_none(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with held_run(tmp_path, "step", 3) as process:
        for options in (["--resume"], ["--overwrite"], []):
            assert main(["train", str(tmp_path / "config.yaml"), *options]) == 2
            said = capsys.readouterr().err
            assert f"in use by process {process.pid}" in said
            assert f"kill {process.pid}" in said
        # Killed without a chance to clean up, a run blocks no other.
        process.kill()
        status_of(process)
    assert (tmp_path / "saved" / ".manyheads.lock").exists()
    assert main(["train", str(tmp_path / "config.yaml"), "--resume"]) == 0
    assert_same_run(undisturbed, tmp_path / "saved", epoch=2)
