"""The device, threads and precision with which the encoder runs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from manyheads.config import available_cores, undo_threads
from manyheads.config.sections.hardware import DEVICES
from manyheads.errors import RequestError, shorten

BF16_GAIN = 1.2
"""The speed-up of bf16 products over float32 ones from which bf16 is chosen."""


@dataclass(frozen=True, slots=True)
class Compute:
    """The chosen device, precision and threads."""

    device: torch.device
    precision: str
    """`float32` or `bf16`."""
    threads: int
    reason: str
    """Why this precision was chosen."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which to run the encoder."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @property
    def is_async(self) -> bool:
        """Whether the device is asynchronous, so that reading a value blocks."""
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device without waiting for it.

    Memory is not pinned: a batch is so small that the driver copies it anyway, and pinning took
    longer than the rest of a step.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into an available device.

    Raises:
        RequestError: it is not available, or not the name of a device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise RequestError(f"there is no device {shorten(name)}", expected=DEVICES)
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    there = device.type == "cpu" or (
        torch.cuda.is_available() and (device.index or 0) < count
        if device.type == "cuda"
        else torch.backends.mps.is_available()
    )
    if not there:
        raise RequestError(
            f"device {name!r} is not available",
            expected="a device that this PyTorch sees",
            fix="Use `device: auto`, or install a PyTorch built for the device.",
        )
    return device


def choose_compute(
    device: str = "auto", precision: str = "auto", threads: int | None = None, hidden: int = 384
) -> Compute:
    """Choose device, threads and precision, and set the number of threads.

    Within `restored_threads`, the number is restored later.

    Args:
        device: see `choose_device`.
        precision: `float32`, `bf16`, or `auto`: bf16 where products of the encoder's size are
            at least `BF16_GAIN` times as fast in it, as measured now.
        threads: processor threads; default, all available cores.
        hidden: the encoder's hidden size.

    Raises:
        RequestError: the device is not available.
    """
    chosen = choose_device(device)
    count = threads or available_cores()
    if (undo := undo_threads()) is not None:
        undo.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(count)
    if precision != "auto":
        return Compute(chosen, precision, count, "as configured")
    # With fewer rows, a GPU spends its time on launching kernels, and nothing else is measured.
    rows = 512 if chosen.type == "cpu" else 16_384
    float32, bf16 = (product_rate(chosen, dtype, hidden, rows) for dtype in _DTYPES)
    ratio = bf16 / float32
    name = "bf16" if ratio >= BF16_GAIN else "float32"
    return Compute(chosen, name, count, f"bf16 products are {ratio:.1f} times as fast here")


_DTYPES = (torch.float32, torch.bfloat16)
_TRIAL_SECONDS = 0.03


def product_rate(device: torch.device, dtype: torch.dtype, hidden: int, rows: int) -> float:
    """Measure the rate of matrix products at an encoder's shape, in operations per second.

    The best of three trials counts.

    Args:
        device: the device.
        dtype: the precision.
        hidden: the encoder's hidden size H; the product is [rows, H] by [H, 4 H].
        rows: sub-tokens in a batch.
    """
    left = torch.randn(rows, hidden, device=device).to(dtype)
    right = torch.randn(4 * hidden, hidden, device=device).to(dtype)
    work = 2.0 * rows * hidden * 4 * hidden

    def multiply() -> None:
        torch.nn.functional.linear(left, right)

    with torch.inference_mode():
        multiply()
        return work * max(_rate(multiply, device) for _ in range(3))


def _rate(action: Callable[[], None], device: torch.device) -> float:
    """Return the number of runs of an action per second."""
    done, start = 0, time.perf_counter()
    while True:
        for _ in range(8):
            action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 8
        elapsed = time.perf_counter() - start
        if elapsed >= _TRIAL_SECONDS:
            return done / elapsed
