"""The `train` command in another process, slow at one place, which it reports when it is there."""

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


def _train(place: Place, number: int, seconds: float, options: Sequence[str]) -> int:
    """Train in this process, and sleep from the n-th call on at a place."""
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
        run._Evaluated.run = slow(run._Evaluated.run)  # type: ignore[method-assign]
    elif place == "preparation":
        setup.load_training_data = slow(setup.load_training_data)
    else:
        save, sync = run.save_checkpoint, slow(atomic._sync)

        def saving(*arguments: Any) -> None:
            atomic._sync = sync
            save(*arguments)

        run.save_checkpoint = saving
    return main(["train", *options])


@contextmanager
def slow_command(
    folder: Path, place: Place, number: int, seconds: float, *options: str
) -> Iterator[ForkServerProcess]:
    """Start the command in a folder, and wait until it is at the place; kill it at the end."""
    process = forked.start(folder, _train, place, number, seconds, options)
    try:
        end = time.monotonic() + forked.PATIENCE
        while not _printed(folder, place):
            assert process.is_alive() or _printed(folder, place), forked.messages(folder)
            assert time.monotonic() < end, forked.messages(folder)
            time.sleep(0.005)
        yield process
    finally:
        process.kill()
        process.join()


def _printed(folder: Path, place: str) -> bool:
    output = folder / "output"
    return output.exists() and place in output.read_text(encoding="utf-8").splitlines()
