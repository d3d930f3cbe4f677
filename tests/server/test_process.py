"""The server's process: signals, stopping, and what it needs installed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from absent import without
from manyheads.cli import main
from manyheads.exporting import export_model
from manyheads.server import ServerSettings, create_app
from manyheads.server.connections import make_server
from server_process import RELOADS, alive_at, lines_of, server_process
from serving import TEXT, Gate, answer_of, connection, predict, served_model, serving

RUN = """
from manyheads.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no export on Python 3.10")
def test_the_command_serves_an_export_without_torch_reloads_and_finishes_on_sigterm(
    model: Path,
) -> None:
    data = served_model().parent.parent / "valid.jsonl"
    export_model(model, formats=["float32"], data=data, limit=100, threads=1)
    script = without("torch", "transformers", "sentence_transformers", "onnx", "sklearn") + RUN
    arguments = ["serve", f"exported={model}", "--port", "0", "--threads", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NO_COLOR": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("Serving exported at http://127.0.0.1:"), process.stderr.read()
        url = line.split(" at ")[1].split(" ")[0]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            assert client.get("/v1/models").json()["data"][0]["backend"].startswith("onnx")
            predict(client)
            process.send_signal(signal.SIGHUP)
            line = process.stderr.readline()
            while '"reloaded"' not in line:
                assert line, "the server ended"
                line = process.stderr.readline()
            texts = [f"{TEXT} {i}" for i in range(500)]
            with ThreadPoolExecutor(1) as pool:
                last = pool.submit(client.post, "/v1/predict", json={"texts": texts})
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(httpx.TransportError):
                    # Accepted before the signal: answered. Otherwise the connection is refused.
                    assert len(last.result(60).json()["predictions"]) == 500
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "Traceback" not in process.stderr.read()


HANGS = """
def computes(thread):
    if thread.startswith("manyheads-lane"):
        os.write(1, b"hangs\\n")
        threading.Event().wait()
"""


@pytest.mark.parametrize("patch", [HANGS, RELOADS], ids=["a lane", "a reload"])
def test_a_stopped_server_ends_at_once_where_a_thread_still_computes(patch: str) -> None:
    # While a library computes, an end in order would abort the process.
    with server_process(patch) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if patch is HANGS:
            serving_line, state = lines_of(process, 2)
            alive_at(serving_line)
        else:
            alive_at(*lines_of(process, 1))
            process.send_signal(signal.SIGHUP)
            (state,) = lines_of(process, 1)
        assert state in {"hangs\n", "reloads\n"}, process.stderr.read()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.stderr.read().endswith("}\nstopped: by SIGTERM\n")
        assert process.wait(60) == 128 + signal.SIGTERM


LISTENS_TO_NO_PORT = """
import signal, socket

reloads = threading.Event()

def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 1:
        os.kill(os.getpid(), signal.SIGHUP)
        return
    reloads.set()
    while True:
        model.predictor.predict(["Is everything ready?"])

class Taken(socket.socket):
    def listen(self, backlog):
        assert reloads.wait(60)
        raise OSError(98, "Address already in use")

socket.socket = Taken
"""


def test_a_server_that_fails_ends_at_once_where_a_reload_still_computes() -> None:
    with server_process(LISTENS_TO_NO_PORT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""
        assert "(Address already in use)" in process.stderr.read()
        assert process.wait(60) == 2


def test_a_server_that_fails_does_not_end_a_process_that_serves_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr("manyheads.cli.serve.os._exit", ended.append)
    with serving(served_model()) as client:
        assert main(["serve", str(tmp_path / "none")]) == 2
        assert predict(client)
    assert not ended


EARLY = """
import signal

def loaded(model, loads=[]):
    loads.append(model)
    if len(loads) == 1:
        os.kill(os.getpid(), signal.SIGHUP)
    else:
        os.write(1, b"reloads\\n")
"""


def test_sighup_while_a_server_loads_its_models_reloads_them_afterwards() -> None:
    with server_process(EARLY) as process:
        assert process.stderr is not None
        state, serving_line = sorted(lines_of(process, 2), reverse=True)
        assert state == "reloads\n", process.stderr.read()
        alive_at(serving_line)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_sighup_before_a_server_loads_its_models_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "manyheads.server.serve", lambda *a, **k: os.kill(os.getpid(), signal.SIGHUP)
    )
    assert main(["serve", "model"]) == 0


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_signal_before_the_loop_runs_causes_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> asyncio.AbstractEventLoop:
        raise KeyboardInterrupt

    settings = ServerSettings()
    server = make_server(create_app({}, settings), settings)
    monkeypatch.setattr(server.config, "get_loop_factory", lambda: interrupted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(KeyboardInterrupt):
            server.run([])
        gc.collect()
    assert caught == []


def ask_livez(raw: socket.socket) -> bytes:
    raw.sendall(LIVEZ)
    return answer_of(raw)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_request_that_arrives_as_the_server_stops_is_answered(is_new: bool) -> None:
    stopping, arrived = threading.Event(), threading.Event()
    with serving(served_model()) as client, connection(client) as idle:
        server = client.server  # type: ignore[attr-defined]

        async def tick(counter: int) -> bool:
            # The event loop is busy when the server has to stop, and reads nothing before.
            if server.should_exit:
                stopping.set()
                assert arrived.wait(60)
            return bool(server.should_exit)

        server.on_tick = tick
        assert b"connection: close" not in ask_livez(idle)
        server.should_exit = True
        assert stopping.wait(60)
        with contextlib.ExitStack() as stack:
            # The system has accepted a new connection, the server has not.
            raw = stack.enter_context(connection(client)) if is_new else idle
            raw.sendall(LIVEZ)
            arrived.set()
            assert b"connection: close" in answer_of(raw)
            assert raw.recv(1) == b""


def test_stopping_answers_the_requests_that_were_accepted() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        with serving(served_model(), gate) as client:
            gate.open.clear()
            waiting = pool.submit(predict, client)
            assert gate.entered.acquire(timeout=60)
        assert waiting.result(60)["predictions"][0]["text"] == TEXT


def test_without_the_extra_the_error_names_the_installation() -> None:
    script = without("fastapi", "uvicorn", "prometheus_client", "httpx", "orjson") + RUN
    done = subprocess.run(
        [sys.executable, "-c", script, "serve", "model"],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: the server needs the package fastapi. Run, in a checkout: "
        'pip install -e ".[serve]"; or with a wheel of manyheads: pip install "FILE.whl[serve]".\n'
    )
