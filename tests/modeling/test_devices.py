"""The choice of device and precision."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from manyheads.config import available_cores
from manyheads.errors import RequestError
from manyheads.modeling import Compute, choose_compute, choose_device, devices
from manyheads.modeling.devices import BF16_GAIN, product_rate

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any accelerator."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


def test_without_an_accelerator_the_cpu_is_used(machine: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_missing_device_is_refused(machine: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(RequestError, match=f"device '{name}' is not available.*`device: auto`"):
        choose_device(name)


def test_accelerators_are_found(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("mps") == torch.device("mps")
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 2)
    machine.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("auto") == choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(RequestError, match="'cuda:2' is not available"):
        choose_device("cuda:2")


def test_the_number_of_threads_is_set() -> None:
    for count in (3, 1):
        assert choose_compute("cpu", "float32", count).threads == torch.get_num_threads() == count
    assert choose_compute("cpu", "float32").threads == available_cores()


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert available_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert available_cores() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(
    ("gain", "precision"), [(BF16_GAIN * 1.01, "bf16"), (BF16_GAIN * 0.99, "float32")]
)
def test_the_faster_precision_is_chosen_by_measurement(
    monkeypatch: pytest.MonkeyPatch, gain: float, precision: str
) -> None:
    def rate(device: torch.device, dtype: torch.dtype, hidden: int, rows: int) -> float:
        assert (hidden, rows) == (96, 512)
        return 1e9 * (gain if dtype is torch.bfloat16 else 1.0)

    monkeypatch.setattr(devices, "product_rate", rate)
    compute = choose_compute("cpu", "auto", 1, hidden=96)
    assert compute.precision == precision
    assert compute.reason == "bf16 products are 1.2 times as fast here"


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_configured_precision_is_used_without_measuring(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(devices, "product_rate", lambda *_: pytest.fail("measured"))
    assert choose_compute("cpu", precision, 1).precision == precision


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_are_computed_in_the_chosen_precision(precision: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with Compute(CPU, precision, 1, "").autocast():
        assert layer(torch.ones(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_the_rate_of_products_is_measured() -> None:
    rate = product_rate(CPU, torch.float32, 64, 32)
    assert 1e6 < rate < 1e14
