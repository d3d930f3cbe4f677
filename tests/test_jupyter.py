"""A notebook shows progress, and models, predictions and scores as tables; a server runs in it."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manyheads.server.running import _run
from training_setup import sentences, settings

nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
nbformat = pytest.importorskip("nbformat", reason="pip install nbclient ipykernel")
pytest.importorskip("ipykernel", reason="pip install nbclient ipykernel")


def test_a_kernel_shows_progress_and_tables(tmp_path: Path) -> None:
    values = settings(tmp_path, train_file="", valid_file="", num_epochs=2)
    options = {k: v for k, v in values.items() if k not in ("train_file", "valid_file")}
    cells = [
        f"import manyheads\nmodel = manyheads.train({sentences(14, 1)}, "
        f"valid={sentences(8, 2)}, **{options})",
        "model",
        "model.predict(['will <b>anna</b> eat ?', 'anna lives in rome'])",
        "model.evaluate()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    training, *shown = [cell.outputs for cell in notebook.cells]
    text = "".join(output.text for output in training if output.output_type == "stream")
    assert "Evaluating epoch 1" in text
    assert "2 " in text.split("Epochs")[1]
    for outputs in shown:
        assert html_of(outputs).startswith("<table>")
    answers = html_of(shown[1])
    assert "2 predictions" in answers
    assert answers.count("<tr>") == 3
    assert "&lt;b&gt;" in answers
    assert "<b>anna" not in answers


def test_a_server_runs_beside_the_event_loop_of_a_notebook() -> None:
    threads: list[threading.Thread] = []

    def run(sockets: list[socket.socket]) -> None:
        threads.append(threading.current_thread())
        asyncio.run(asyncio.sleep(0))

    server: Any = SimpleNamespace(run=run, should_exit=False)
    with socket.socket() as listening:

        async def cell() -> None:
            _run(server, listening)

        asyncio.run(cell())
        _run(server, listening)
    assert [one is threading.main_thread() for one in threads] == [False, True]


def html_of(outputs: Any) -> str:
    """The HTML of a cell's value."""
    [value] = [one for one in outputs if one.output_type == "execute_result"]
    return str(value.data["text/html"])
