"""Trains as one of several processes, job after job; for `test_distributed.py`.

A job has a configuration (`values`), a port, and what happens to one of the processes: `rank` gets
`signal` when `step` steps are done, or has `changes` in its configuration. The outcome of each job
is printed as a line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from manyheads.cli import main
from manyheads.training import Run, loop
from manyheads.training.data import Step

_forward_backward = loop.forward_backward


def do(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train, and return the exit status, the messages and the drawn sources."""
    rank = int(os.environ["RANK"])
    os.environ["MASTER_PORT"] = str(job["port"])
    path = Path(job["values"]["save_dir"]).parent / f"config{rank}.yaml"
    values = {**job["values"], **(job.get("changes", {}) if rank == job.get("rank") else {})}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    drawn: list[Any] = []

    def watched(run: Run, step: Step) -> Any:
        if rank == job.get("rank") and run.state.step == job.get("step"):
            os.kill(os.getpid(), job["signal"])
        drawn.append([part.source for part in step.parts])
        return _forward_backward(run, step)

    loop.forward_backward = watched
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = main(["train", str(path), *job.get("options", [])])
    return {"status": status, "said": " ".join(said.getvalue().split()), "drawn": drawn}


def do_all(file: str) -> None:
    """Do the jobs of a file of JSON."""
    for one in json.loads(Path(file).read_text(encoding="utf-8")):
        print(json.dumps(do(one)), flush=True)
