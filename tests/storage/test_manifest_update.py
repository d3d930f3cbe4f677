"""Several processes add to one model: each keeps what the others added, and what it is of."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from documents import ENCODER
from manyheads.errors import ModelError
from manyheads.modeling import ModelContents, save_model_folder
from manyheads.storage import add_files, atomic_folder, change_calibration, read_manifest

TASK = {"name": "intent", "kind": "classification", "labels": ["ask", "tell"]}


def saved(folder: Path, weight: float) -> Path:
    """Write a model of one weight, in the place of another one if there is one."""
    state = {"weight": torch.tensor([weight])}
    contents = ModelContents(
        tasks=[TASK], encoder=ENCODER, encoder_state=state, head_state={}, metrics={}, config={}
    )
    save_model_folder(folder, contents)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "best", 1.0)


def test_two_writers_keep_each_others_changes(model: Path) -> None:
    manifest = read_manifest(model)
    others: list[Future[Any]] = []
    with ThreadPoolExecutor(2) as pool:

        def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
            one = {"onnx/second.bin": b"2"}
            others.append(pool.submit(add_files, manifest, one))
            others.append(pool.submit(change_calibration, manifest, lambda k: {**k, "other": {}}))
            # Time for them to write, if they could.
            assert not wait(others, timeout=1).done
            return {**known, "own": {}}

        add_files(manifest, {"onnx/first.bin": b"1"}, calibration=change)
    for other in others:
        other.result()
    found = read_manifest(model)
    found.verify()
    assert {"onnx/first.bin", "onnx/second.bin"} <= set(found.files)
    assert set(found.calibration) == {"own", "other"}


def test_results_are_not_added_to_another_model(model: Path) -> None:
    manifest = read_manifest(model)
    saved(model, 2.0)
    before = read_manifest(model)
    with pytest.raises(ModelError, match=r"best: holds another model.*Repeat it for the new"):
        add_files(manifest, {"onnx/model.onnx": b"graph"})
    with pytest.raises(ModelError, match=r"best: holds another model"):
        change_calibration(manifest, lambda _: {"tasks": {}})
    assert read_manifest(model) == before
    assert not (model / "onnx").exists()


def test_a_model_is_not_replaced_while_files_are_added(model: Path) -> None:
    replaced: list[Future[Any]] = []
    with ThreadPoolExecutor(1) as pool:

        def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
            replaced.append(pool.submit(saved, model, 2.0))
            assert not wait(replaced, timeout=1).done
            return {**known, "own": {}}

        add_files(read_manifest(model), {"onnx/model.onnx": b"graph"}, calibration=change)
    replaced[0].result()
    found = read_manifest(model)
    found.verify()
    assert "onnx/model.onnx" not in found.files
    assert not found.calibration


def test_results_for_a_folder_that_is_gone_are_refused(model: Path) -> None:
    manifest = read_manifest(model)
    shutil.rmtree(model)
    with pytest.raises(ModelError, match="best"):
        add_files(manifest, {"onnx/model.onnx": b"graph"})


def test_a_writer_that_is_stopped_does_not_stop_others_for_ever(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.storage.locked._PATIENCE", 0.1)
    descriptor = os.open(model, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        add_files(read_manifest(model), {"onnx/model.onnx": b"graph"})
        assert "onnx/model.onnx" in read_manifest(model).files
        saved(model, 2.0)
    finally:
        os.close(descriptor)
    assert "onnx/model.onnx" not in read_manifest(model).files


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forked_while_a_model_is_written_does_not_keep_its_lock(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, sleep = threading.get_ident(), time.sleep

    def waits(seconds: float) -> None:
        # Threads of other tests, such as a server's, may sleep meanwhile.
        if threading.get_ident() == here:
            pytest.fail("waits for the lock")
        sleep(seconds)

    reading, writing = os.pipe()
    with atomic_folder(model) as folder:
        child = os.fork()
        if child == 0:  # with copies of all descriptors, until the test closes the pipe
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        saved(folder, 1.0)
    try:
        monkeypatch.setattr("time.sleep", waits)
        saved(model, 2.0)
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)
    read_manifest(model).verify()
