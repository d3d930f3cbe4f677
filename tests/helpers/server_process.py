"""A real server in a process of its own, whose models are changed by a script."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx

from serving import served_model

# Its models call `computes` with the thread's name before each batch, and `loaded` after a load.
CHANGED = """
import atexit, os, sys, threading
from manyheads.cli import main
from manyheads.server import registry

def computes(thread):
    pass

def loaded(model, loads=[]):
    pass

PATCH

class Changed:
    name = "changed"
    def __init__(self, inner):
        self.inner = inner
    def run(self, batch):
        computes(threading.current_thread().name)
        return self.inner.run(batch)

def load(path, runtime, load=registry.load_model):
    model = load(path, runtime)
    model.predictor.backend = Changed(model.predictor.backend)
    loaded(model)
    return model

registry.load_model = load
atexit.register(print, "ended in order")
sys.exit(main(sys.argv[1:]))
"""

# A patch: the first reload computes forever, and says so.
RELOADS = """
def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 2:
        os.write(1, b"reloads\\n")
        while True:
            model.predictor.predict(["Is everything ready?"])
"""


@contextlib.contextmanager
def server_process(patch: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a server of its own with a changed function, and kill it in the end if it still runs."""
    arguments = ["serve", str(served_model()), "--port", "0", "--threads", "1", "--timeout", "3600"]
    arguments += options
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(
            [sys.executable, "-c", CHANGED.replace("PATCH", patch), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "NO_COLOR": "1"},
        ))  # fmt: skip
        stack.callback(process.kill)  # before it is waited for
        yield process


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines of a process's standard output, sorted."""
    assert process.stdout is not None
    return sorted(process.stdout.readline() for _ in range(count))


def alive_at(serving_line: str) -> str:
    """Ask a server whether it lives; from then on its signals are its own. Returns its address."""
    assert serving_line.startswith("Serving"), serving_line
    url = serving_line.split(" at ")[1].split(" ")[0]
    assert httpx.get(f"{url}/livez", timeout=60, trust_env=False).status_code == 200
    return url
