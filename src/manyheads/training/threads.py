"""The number of CPU threads of a run: as configured, as recorded, or the fastest one measured.

On a machine with other work, operations on several threads wait for whichever thread was delayed,
so that fewer threads can be faster. The gradients depend on the number of threads in their last
bits. So checkpoints record it, and a resumed run keeps it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from manyheads.config import available_cores

GAIN = 1.15
"""The speed-up over all cores from which fewer threads are chosen."""

_ROUNDS = 7
_ROWS = 512
"""About the sub-tokens of a batch of short sentences."""


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads."""

    count: int
    reasons: tuple[str, ...] = ()
    """The reasons, in words, if it is not the number of cores."""


def choose_threads(
    hidden: int,
    recorded: int | None = None,
    measure: Callable[[int, int], float] | None = None,
) -> ThreadChoice:
    """Choose the number of threads of a run that does not configure it.

    Args:
        hidden: the encoder's hidden size.
        recorded: the number in the checkpoint that the run continues from.
        measure: returns the seconds of some work for a number of threads and the hidden size.
    """
    measure = measure or work_seconds
    cores = available_cores()
    if recorded is not None and recorded <= cores:
        return ThreadChoice(recorded, ("as many as before",) if recorded < cores else ())
    counts = [cores]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    if len(counts) == 1:
        return ThreadChoice(cores)
    # The counts take turns, so that other load on the machine affects all of them.
    rounds = [[measure(count, hidden) for count in counts] for _ in range(_ROUNDS)]
    seconds = dict(zip(counts, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    fastest = min(counts, key=lambda count: seconds[count])
    ratio = seconds[cores] / seconds[fastest]
    if ratio < GAIN:
        return ThreadChoice(cores)
    return ThreadChoice(fastest, (f"{fastest} is {ratio:.1f} times as fast as {cores} now",))


def work_seconds(threads: int, hidden: int) -> float:
    """Return the seconds of a forward and backward pass of an encoder-like layer.

    Args:
        threads: the number of threads to run it on; it stays set.
        hidden: the encoder's hidden size H: products are [rows, H] by [H, 4 H] and back.
    """
    torch.set_num_threads(threads)
    layer = nn.Sequential(
        nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden),
        nn.LayerNorm(hidden),
    )  # fmt: skip
    inputs = torch.ones(_ROWS, hidden)
    layer(inputs).sum().backward()
    start = time.perf_counter()
    for _ in range(2):
        layer(inputs).sum().backward()
    return time.perf_counter() - start
