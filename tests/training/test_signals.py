"""Ctrl-C and SIGTERM sent to real processes at any moment of a run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from equal_runs import assert_same_run
from manyheads.cli import main
from manyheads.modeling import list_checkpoints, load_checkpoint
from manyheads.training import train
from training_setup import config, sentences, settings, write_records

SRC = Path(__file__).parents[2] / "src"
SIZES = {"num_epochs": 3, "checkpoint_every": 2}

# The command itself, but slow at one place, where it says so: between two steps, in a batch of an
# evaluation, before anything is trained, or while it writes a checkpoint.
SLOW = """
import signal, sys, time
from manyheads.storage import atomic
from manyheads.training import loop, run, setup
from manyheads.cli import main

# A process in the background is born to ignore Ctrl-C, and one under nohup to ignore SIGHUP.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
place, number, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
calls = 0

def slow(function):
    def slowly(*arguments, **options):
        global calls
        calls += 1
        if calls >= number:
            print(place, flush=True)
            time.sleep(seconds)
        return function(*arguments, **options)
    return slowly

if place == "step":
    loop.forward_backward = slow(loop.forward_backward)
elif place == "evaluation":
    run._Watched.run = slow(run._Watched.run)
elif place == "preparation":
    setup.load_training_data = slow(setup.load_training_data)
elif place == "save":
    save, sync = run.save_checkpoint, slow(atomic._sync)
    def saving(*arguments):
        atomic._sync = sync
        save(*arguments)
    run.save_checkpoint = saving
sys.exit(main(["train", *sys.argv[4:]]))
"""


@contextmanager
def slow_run(
    folder: Path, place: str, number: int, seconds: float
) -> Iterator[subprocess.Popen[str]]:
    """Start a run that is slow at a place, and wait until it is there."""
    values = settings(many(folder), **SIZES)
    (folder / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-c", SLOW, place, str(number), str(seconds), "config.yaml"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )  # fmt: skip
    try:
        wait_for(f"{place}\n", process)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(line: str, process: subprocess.Popen[str]) -> None:
    """Read until a process prints a line; tables and the like may come before it."""
    assert process.stdout is not None
    while (found := process.stdout.readline()) != line:
        assert found, process.communicate()


def many(folder: Path) -> Path:
    """Write validation data of more than one batch."""
    write_records(folder / "valid.jsonl", sentences(300, 2))
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
        ("evaluation", 1, signal.SIGINT, 130, 8),
        ("save", 1, signal.SIGTERM, 143, 3),
        ("step", 5, signal.SIGHUP, 129, 5),
    ],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, undisturbed: Path, place: str, call: int, number: int, status: int, step: int
) -> None:
    with slow_run(tmp_path, place, call, 0.5) as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=300)
        assert process.returncode == status, said
    said = " ".join(said.split())
    saved = tmp_path / "saved" / f"mtl_step{step}.pt"
    assert f"stopped: Stopped after step {step} of 24; {saved} is saved." in said
    assert f"{signal.Signals(number).name} received: stopping and saving." in said
    assert "Continue with --resume." in said
    assert "Traceback" not in said
    load_checkpoint(saved)
    train(config(tmp_path, **SIZES), resume=True)
    assert_same_run(undisturbed, tmp_path / "saved")


def test_a_signal_before_anything_is_trained_stops_at_once(tmp_path: Path) -> None:
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with slow_run(tmp_path, "preparation", 1, 600) as process:
            process.send_signal(number)
            _, said = process.communicate(timeout=300)
            assert process.returncode == status, said
        assert "stopped: by " in said
        assert not list_checkpoints(tmp_path / "saved")


@pytest.mark.parametrize("place", ["step", "save"])
def test_a_second_signal_stops_at_once_and_breaks_nothing(
    tmp_path: Path, undisturbed: Path, place: str
) -> None:
    # The seventh flush from the first checkpoint on is of one that takes the place of another.
    with slow_run(tmp_path, place, {"step": 7, "save": 7}[place], 600) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == -signal.SIGTERM
    files = list_checkpoints(tmp_path / "saved")
    assert files
    for file in files:
        load_checkpoint(file.path)
    train(config(tmp_path, **SIZES), resume=True)
    assert_same_run(undisturbed, tmp_path / "saved")
    assert not [p for p in (tmp_path / "saved").iterdir() if p.name.startswith(".")]


def test_the_launcher_stops_and_resumes_like_the_command(tmp_path: Path, undisturbed: Path) -> None:
    values = settings(many(tmp_path), **SIZES)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, str(SRC / "train.py"), "config.yaml", "--resume"]
    options = {"cwd": tmp_path, "text": True, "env": {**os.environ, "PYTHONPATH": str(SRC)}}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as process:
        log = tmp_path / "saved" / "metrics.jsonl"
        while process.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    # A run as short as this one may be over before the signal is there.
    assert process.returncode in (0, 143), said
    if process.returncode:
        assert re.search(r"Stopped after step \d+ of 24", " ".join(said.split()))
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "Continuing from " in done.stderr
    assert_same_run(undisturbed, tmp_path / "saved")


def test_a_second_run_on_a_folder_is_refused_with_the_first_named_and_the_first_goes_on(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with slow_run(tmp_path, "step", 3, 1) as process:
        for options in (["--resume"], ["--overwrite"], []):
            assert main(["train", str(tmp_path / "config.yaml"), *options]) == 2
            said = capsys.readouterr().err
            assert f"in use by process {process.pid}" in said
            assert f"kill {process.pid}" in said
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)
        assert process.returncode == 143
    # Killed without a chance to clean up, a run blocks nobody.
    (tmp_path / "killed").mkdir()
    with slow_run(tmp_path / "killed", "step", 4, 600) as process:
        process.kill()
        process.communicate()
    assert (tmp_path / "killed" / "saved" / ".manyheads.lock").exists()
    for folder in (tmp_path, tmp_path / "killed"):
        assert main(["train", str(folder / "config.yaml"), "--resume"]) == 0
        assert_same_run(undisturbed, folder / "saved")
