"""A real server on a free port of this machine, in this process."""

from __future__ import annotations

import atexit
import io
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from manyheads.inference import LoadedModel, Runtime, load_model
from manyheads.server import ServerSettings, create_app
from manyheads.server.connections import make_server
from manyheads.server.protection import LogFormatter
from manyheads.server.running import bind_socket
from manyheads.text import Batch
from training_setup import run, sentences, write_records

TEXT = "the weather in London"


@cache
def served_model() -> Path:
    """A tiny trained model with the tasks `intent` and `ner`, shared by the tests of a process."""
    folder = Path(tempfile.mkdtemp(prefix="manyheads-served-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_records(folder / "train.jsonl", sentences(60, 1))
    tasks = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging"}}
    run(folder, tasks=tasks, num_epochs=2)
    return folder / "saved" / "best"


def becomes(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait until a condition holds; returns whether it did in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


class Gate:
    """Holds back the batches of every model that is loaded with it, while it is closed."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        """Released whenever a batch arrives at the closed gate."""
        self.runs = 0
        """The batches that have arrived."""

    def load(self, path: Path, threads: int | None) -> LoadedModel:
        loaded = load_model(path, Runtime(threads=1))
        loaded.predictor.backend = _Gated(loaded.predictor.backend, self)
        return loaded


class _Gated:
    def __init__(self, inner: Any, gate: Gate) -> None:
        self.inner, self.gate, self.name = inner, gate, inner.name

    def run(self, batch: Batch) -> Any:
        self.gate.runs += 1
        if not self.gate.open.is_set():
            self.gate.entered.release()
        assert self.gate.open.wait(60)
        return self.inner.run(batch)


@contextmanager
def serving(
    models: Mapping[str, Path] | Path,
    gate: Gate | None = None,
    tracer_provider: Any = None,
    **settings: Any,
) -> Iterator[httpx.Client]:
    """Serve models; yields a client with the application as `app` and the server as `server`."""
    named = {"tiny": models} if isinstance(models, Path) else models
    chosen = ServerSettings.model_validate({"threads": 1, "port": 0, **settings})
    app = create_app(named, chosen, gate.load if gate else None, tracer_provider)
    # Not a loop, whose variable would keep the last model in memory.
    assert all(model.scheduler.wait_ready(60) for model in app.state.service.registry.all())
    socket = bind_socket(chosen)
    socket.listen()
    server = make_server(app, chosen)
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        client.app, client.server = app, server  # type: ignore[attr-defined]
        try:
            yield client
        finally:
            server.should_exit = True
            if gate:
                thread.join(0.3)
                gate.open.set()
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def connection(client: httpx.Client) -> Iterator[socket.socket]:
    """Open a plain connection to a client's server."""
    with socket.create_connection((client.base_url.host, client.base_url.port), 60) as raw:
        yield raw


def answer_of(raw: socket.socket) -> bytes:
    """Read the answer to a request, which ends with a JSON object."""
    answer = b""
    while not answer.endswith(b"}"):
        part = raw.recv(4096)
        assert part, f"the connection ended after {answer!r}"
        answer += part
    return answer


def predict(client: httpx.Client, text: str = TEXT) -> Any:
    """Return the server's answer to a text."""
    response = client.post("/v1/predict", json={"texts": text})
    assert response.status_code == 200, response.text
    return response.json()


@contextmanager
def logged(form: str) -> Iterator[io.StringIO]:
    """Catch the server's log, in one of its formats."""
    lines, logger = io.StringIO(), logging.getLogger("manyheads.server")
    handler = logging.StreamHandler(lines)
    handler.setFormatter(LogFormatter(form))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
