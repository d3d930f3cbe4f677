"""Training speed of a device by batch size: computing time and waiting time.

    python benchmarks/batch_sizes.py --data SNIPS_FOLDER [--device cuda] [--sizes N ...]

SNIPS_FOLDER holds `train` and `dev`. The intent and slot heads train jointly with the default
settings. `--steps` optimiser steps are measured for each size, after as many warm-up steps. On a
GPU, computing time is the time of its kernels by torch's profiler, over ten further steps; for the
rest of a step it waits for the CPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from accuracy import machine
from manyheads.modeling import choose_compute, keep_freed_memory
from manyheads.training import (
    STEPS_AHEAD,
    InFlightStep,
    Run,
    fetch,
    forward_backward,
    prepare_run,
    update,
)
from manyheads.training.data import Schedule, Step, plan_epoch
from snips import configuration

PROFILED = 10
"""Steps."""


@dataclass(frozen=True)
class Speed:
    """The speed of steps with one batch size."""

    size: int
    precision: str
    milliseconds: float
    """Per step."""
    tokens: float
    """Real sub-tokens per second."""
    padding: float
    """Share of padding in the batches."""
    computing: float | None
    """Milliseconds per step in which a GPU computed."""


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--model", help="encoder; default: that of the configuration")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args(given)
    compute = choose_compute(arguments.device, arguments.precision, arguments.threads)
    gpu = compute.device.type == "cuda"
    name = torch.cuda.get_device_name(compute.device) if gpu else machine()
    print(f"{name}, {compute.precision} ({compute.reason}), torch {torch.__version__}\n")
    print("| sentences a batch | ms a step | sub-tokens/s | padding | GPU computes, ms a step |")
    print("|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        found = measure(arguments, size)
        computing = "" if found.computing is None else f"{found.computing:.1f}"
        print(
            f"| {size} | {found.milliseconds:.1f} | {found.tokens:,.0f} | {found.padding:.1%} "
            f"| {computing} |",
            flush=True,
        )


def measure(arguments: argparse.Namespace, size: int) -> Speed:
    """Measure training with one batch size."""
    with tempfile.TemporaryDirectory() as work:
        config = configuration(
            arguments.data / "train", arguments.data / "dev", Path(work) / "saved",
            batch_size=size, num_epochs=1, seed=1, device=arguments.device,
            precision=arguments.precision, max_length=arguments.max_length,
            **({"threads": arguments.threads} if arguments.threads else {}),
            **({"model_name": arguments.model} if arguments.model else {}),
        )  # fmt: skip
        keep_freed_memory()
        run = prepare_run(config, resume=False, overwrite=True, report=lambda text: None)
        steps = _steps(run)
        take(run, islice(steps, arguments.steps))
        measured = list(islice(steps, arguments.steps))
        began = time.perf_counter()
        take(run, measured)
        seconds = time.perf_counter() - began
        computing = None
        if run.compute.device.type == "cuda":
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                take(run, islice(steps, PROFILED))
            spent = sum(event.self_device_time_total for event in profiled.key_averages())
            computing = spent / 1e3 / PROFILED
    lengths = run.data.datasets[0].tokens.lengths
    real = padded = 0
    for step in measured:
        for rows in step.parts[0].batches:
            real += int(lengths[rows].sum())
            padded += len(rows) * int(lengths[rows].max())
    return Speed(
        size, run.compute.precision, 1e3 * seconds / len(measured), real / seconds,
        1 - real / padded, computing,
    )  # fmt: skip


def _steps(run: Run) -> Iterator[Step]:
    """Yield the steps of successive epochs."""
    config = run.config
    for epoch in count():
        plan = plan_epoch(run.data.sources, Schedule.of(config), seed=config.seed, epoch=epoch)
        yield from (plan[number] for number in range(len(plan)))


def take(run: Run, steps: Iterator[Step] | Sequence[Step]) -> None:
    """Run optimiser steps as training does, and wait for the last."""
    in_flight: list[InFlightStep] = []
    for step in steps:
        result = forward_backward(run, step)
        in_flight.append(InFlightStep(step, 0, 0, result, update(run, result)))
        run.state.step += 1
        if not run.compute.is_async or len(in_flight) == STEPS_AHEAD:
            fetch(in_flight)
            in_flight.clear()
    fetch(in_flight)


if __name__ == "__main__":
    main()
