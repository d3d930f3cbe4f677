"""The `train` command in a forked process, slow at one place, which it reports when it is there.

The processes are forks of a server that has imported everything (`multiprocessing`'s forkserver),
so that one starts in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

from manyheads.cli import main
from manyheads.storage import atomic
from manyheads.training import loop, run, setup

Place = Literal["step", "evaluation", "preparation", "save"]
"""Between two steps, in a batch of an evaluation, before training, or in writing a checkpoint."""

PATIENCE = 600.0
"""Seconds after which a process counts as hung."""


def _train(place: Place, number: int, seconds: float, folder: str, options: Sequence[str]) -> None:
    """Train in this process, and sleep from the n-th call on at a place."""
    # A process in the background is born to ignore Ctrl-C, and one under nohup to ignore SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    for descriptor, name in ((1, "output"), (2, "messages")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    calls = 0

    def slow(function: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= number:
                print(place, flush=True)
                time.sleep(seconds)
            return function(*arguments, **keywords)

        return slowly

    if place == "step":
        loop.forward_backward = slow(loop.forward_backward)
    elif place == "evaluation":
        run._Watched.run = slow(run._Watched.run)  # type: ignore[method-assign]
    elif place == "preparation":
        setup.load_training_data = slow(setup.load_training_data)
    else:
        save, sync = run.save_checkpoint, slow(atomic._sync)

        def saving(*arguments: Any) -> None:
            atomic._sync = sync
            save(*arguments)

        run.save_checkpoint = saving
    sys.exit(main(["train", *options]))


@contextmanager
def slow_command(
    folder: Path, place: Place, number: int, seconds: float, *options: str
) -> Iterator[ForkServerProcess]:
    """Start the command in a folder, and wait until it is at the place; kill it at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    (folder / "output").unlink(missing_ok=True)
    process = context.Process(
        target=_train, args=(place, number, seconds, str(folder), options), daemon=True
    )
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        process.start()
    finally:
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
    try:
        end = time.monotonic() + PATIENCE
        while not _printed(folder, place):
            assert process.is_alive() or _printed(folder, place), messages(folder)
            assert time.monotonic() < end, messages(folder)
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.join()


def _printed(folder: Path, place: str) -> bool:
    output = folder / "output"
    return output.exists() and place in output.read_text(encoding="utf-8").splitlines()


def status_of(process: ForkServerProcess) -> int | None:
    """Wait for a process; return its exit status, negative for the signal that killed it."""
    process.join(PATIENCE)
    return process.exitcode


def messages(folder: Path) -> str:
    """Return what the process in a folder wrote to standard error, in one line."""
    return " ".join((folder / "messages").read_text(encoding="utf-8").split())
