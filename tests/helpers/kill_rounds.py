"""Kill real training processes repeatedly, and compare the final results.

    python tests/helpers/kill_rounds.py --kills 100 --seed 0

A run is trained once undisturbed. Then it is trained in processes that get SIGKILL at random
moments: between steps, during a save, during evaluation, during the writing of `best/`. Each
next process resumes. What the last one leaves must equal the undisturbed run to the bit: weights,
optimiser, the loss of every step, the metrics log, the files of `best/`. Prints a JSON object that
counts the kills by what the process was doing, and ends with status 1 at the first difference.

The processes are forks of this one, which has imported everything but done nothing else, so that a
round takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fork_imports  # noqa: F401
from equal_runs import assert_equal, hard_config, state_of
from manyheads.training import Run, loop, run, train
from training_setup import digest, encoder_folder

STAGES = ("step", "save", "evaluation", "best")
PATIENCE = 600.0
"""Seconds after which a process counts as hung."""


def child(folder: Path, pipe: int) -> None:
    """Resume the run, and write a byte for each stage that it begins."""

    def announced(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def announcing(*arguments: Any, **options: Any) -> Any:
            os.write(pipe, bytes([STAGES.index(stage)]))
            return function(*arguments, **options)

        return announcing

    loop.forward_backward = announced("step", loop.forward_backward)
    run.save_checkpoint = announced("save", run.save_checkpoint)
    run.save_model_folder = announced("best", run.save_model_folder)
    Run.evaluate = announced("evaluation", Run.evaluate)  # type: ignore[method-assign]
    # Run inside the folder, so that the configurations are the same.
    os.chdir(folder)
    train(hard_config(Path(), checkpoint_every=1), resume=True)


def start(folder: Path) -> tuple[int, int]:
    """Fork a process that trains; return its id and its announcements."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.close(reading)
            child(folder, writing)
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(writing)
    return pid, reading


def undisturbed(folder: Path) -> None:
    """Train to the end in a separate process."""
    pid, reading = start(folder)
    while os.read(reading, 4096):
        pass
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"the undisturbed run failed with status {status}")


def disturbed(folder: Path, draw: random.Random, kills: Counter[str]) -> None:
    """Train to the end in processes that are killed at random moments."""
    while True:
        stage = draw.choice(STAGES)
        # The moment: shortly after the n-th beginning of the stage.
        countdown = draw.randint(1, 4) if stage in ("step", "save") else 1
        delay = draw.choice([0.0, draw.uniform(0, 0.004), draw.uniform(0, 0.05)])
        pid, reading = start(folder)
        deadline = time.monotonic() + PATIENCE
        killed = False
        while byte := os.read(reading, 1):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise SystemExit("a process hangs")
            if STAGES[byte[0]] == stage:
                countdown -= 1
                if countdown == 0:
                    time.sleep(delay)
                    os.kill(pid, signal.SIGKILL)
                    killed = True
                    break
        os.close(reading)
        _, status = os.waitpid(pid, 0)
        if killed and os.WIFSIGNALED(status):
            kills[stage] += 1
        elif os.WEXITSTATUS(status):
            raise SystemExit(f"a resumed process failed with status {os.WEXITSTATUS(status)}")
        else:
            return


def rounds(count: int, seed: int) -> None:
    """Run until there are enough kills, then print the report."""
    draw = random.Random(seed)
    kills: Counter[str] = Counter()
    runs = 0
    encoder_folder()
    with tempfile.TemporaryDirectory(prefix="manyheads-kills-") as temporary:
        reference = Path(temporary) / "undisturbed"
        reference.mkdir()
        undisturbed(reference)
        while kills.total() < count:
            folder = Path(temporary) / f"run{runs}"
            folder.mkdir()
            disturbed(folder, draw, kills)
            compare(reference, folder)
            runs += 1
    counts = {stage: kills[stage] for stage in STAGES}
    print(json.dumps({"kills": kills.total(), "during": counts, "runs": runs, "different": 0}))


def compare(reference: Path, folder: Path) -> None:
    """Exit if a run differs from the undisturbed one (in a separate process)."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            expected, found = (saved / "saved" for saved in (reference, folder))
            assert_equal(state_of(expected), state_of(found))
            extra = digest(expected).keys() ^ digest(found).keys()
            assert not extra, f"files of one alone: {sorted(extra)}"
            status = 0
        except AssertionError as error:
            print(f"{folder.name} differs: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rounds(arguments.kills, arguments.seed)
