"""The `train` command in another process, held at one place, which it reports when it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal

import forked
from manyheads.cli import main
from manyheads.storage import atomic
from manyheads.training import loop, run, setup

Place = Literal["step", "evaluation", "preparation", "save"]
"""Between two steps, in a batch of an evaluation, before training, or in writing a checkpoint."""


_GO = "go"
"""The file, in the command's folder, that lets it go on."""


def _train(place: Place, number: int, options: Sequence[str]) -> int:
    """Train in this process, and wait from the n-th call on at a place."""
    calls = 0

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def holding(*arguments: Any, **keywords: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= number:
                print(place, flush=True)
                _wait(Path(_GO).exists)
            return function(*arguments, **keywords)

        return holding

    if place == "step":
        loop.forward_backward = held(loop.forward_backward)
    elif place == "evaluation":
        run._Evaluated.run = held(run._Evaluated.run)  # type: ignore[method-assign]
    elif place == "preparation":
        setup.load_training_data = held(setup.load_training_data)
    else:
        save, sync = run.save_checkpoint, held(atomic._sync)

        def saving(*arguments: Any) -> None:
            atomic._sync = sync
            save(*arguments)

        run.save_checkpoint = saving
    return main(["train", *options])


@contextmanager
def held_command(
    folder: Path, place: Place, number: int, *options: str
) -> Iterator[ForkServerProcess]:
    """Start the command in a folder, and wait until it is at the place; kill it at the end."""
    process = forked.start(folder, _train, place, number, options)
    try:
        _wait(lambda: _printed(folder, place) or not process.is_alive())
        assert _printed(folder, place), forked.messages(folder)
        yield process
    finally:
        process.kill()
        process.join()


def let_go(folder: Path) -> None:
    """Let the command in a folder go on."""
    (folder / _GO).touch()


def wait_for_message(folder: Path, process: ForkServerProcess, text: str) -> None:
    """Wait until the command in a folder says something."""
    _wait(lambda: text in forked.messages(folder) or not process.is_alive())
    assert text in forked.messages(folder), forked.messages(folder)


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + forked.PATIENCE
    while not condition():
        assert time.monotonic() < end, "it waited too long"
        time.sleep(0.005)


def _printed(folder: Path, place: str) -> bool:
    output = folder / "output"
    return output.exists() and place in output.read_text(encoding="utf-8").splitlines()
