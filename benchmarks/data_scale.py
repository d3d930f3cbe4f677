"""Memory and start-up time of training by the number of records, from 10 thousand to 1 million.

    python benchmarks/data_scale.py --data SNIPS_FOLDER [--records N ...] [--threads N]

SNIPS_FOLDER holds `train` and `dev`. For each number, a JSON-lines file is written with that many
training sentences, drawn with replacement. A separate process trains on it with the default
settings and stops after `--steps` optimiser steps. It reports

- the seconds for reading and tokenising the records, for the rest of the preparation (encoder,
  precision measurement, heads), for the first step of the epoch and for the median step;
- its private memory (`RssAnon` of Linux), sampled throughout: the peak of the preparation, the
  value when training starts, and the peak of training;
- the bytes of the temporary files that it maps. Their pages may stay in memory until the system
  needs it, and are not counted.

Writes data-scale.json and data-scale.md. Needs `/proc`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import manyheads.training.setup as run_setup
from accuracy import machine
from manyheads.config import Config, available_cores
from manyheads.modeling import keep_freed_memory
from manyheads.training import Reporter, StepReport, train
from snips import configuration

STATUS, MAPS = Path("/proc/self/status"), Path("/proc/self/maps")
SAMPLE_SECONDS = 0.02
READING, PREPARING, TRAINING = "reading", "preparing", "training"


def main(given: Sequence[str] | None = None) -> None:
    """Measure each size in a separate process and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--model", help="encoder; default: that of the configuration")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if not STATUS.exists():
        parser.error("there is no /proc here, which tells a process's private memory")
    if arguments.part:
        print(json.dumps(measure(arguments, arguments.part)))
        return
    options = sys.argv[1:] if given is None else list(given)
    parts = []
    for count in arguments.records:
        print(f"{count:,} records ...", flush=True)
        command = [sys.executable, __file__, *options, "--part", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        parts.append(json.loads(done.stdout.splitlines()[-1]))
    report = {"machine": machine(), "threads": arguments.threads, "parts": parts}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "data-scale.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (arguments.out / "data-scale.md").write_text(text)
    print(text)


def measure(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """Start training on that many records."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "train.jsonl"
        size = write_records(arguments.data / "train", count, file)
        watch = Watch(arguments.steps)
        with watch.memory.sampled(), watch.timing():
            try:
                keep_freed_memory()
                train(_config(arguments, file, Path(work) / "saved"), reporter=watch)
            except Enough:
                watch.memory.sample()
    steps = [after - before for before, after in zip(watch.steps, watch.steps[1:], strict=False)]
    return {
        "records": count,
        "file_bytes": size,
        "seconds": {
            READING: watch.read - watch.begun,
            PREPARING: watch.steps[0] - watch.started - (watch.read - watch.begun),
            "first_step": steps[0],
            "step": statistics.median(steps),
        },
        "private_bytes": {**watch.memory.peaks, "held": watch.held},
        "mapped_bytes": watch.mapped,
    }


def write_records(folder: Path, count: int, file: Path) -> int:
    """Write sentences, drawn with replacement, as JSON lines; return the file size in bytes."""
    columns = [
        (folder / name).read_text(encoding="utf-8").splitlines()
        for name in ("seq.in", "seq.out", "label")
    ]
    lines = [
        json.dumps({"tokens": words.split(), "ner": tags.split(), "label": label}) + "\n"
        for words, tags, label in zip(*columns, strict=True)
    ]
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for _ in range(count):
            out.write(draw.choice(lines))
    return file.stat().st_size


class Enough(Exception):
    """Raised to end training."""


@dataclass
class Memory:
    """Peak private memory of the process by stage."""

    stage: str = PREPARING
    peaks: dict[str, int] = field(default_factory=dict)

    def sample(self) -> int:
        """Sample once."""
        found = next(s for s in STATUS.read_text().splitlines() if s.startswith("RssAnon:"))
        size = int(found.split()[1]) << 10
        self.peaks[self.stage] = max(size, self.peaks.get(self.stage, 0))
        return size

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample repeatedly in a thread."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_SECONDS):
                self.sample()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Watch(Reporter):
    """A reporter that records times and memory, and ends training after some steps."""

    def __init__(self, enough: int) -> None:
        self.memory = Memory()
        self.started = self.begun = self.read = time.perf_counter()
        self.steps: list[float] = []
        self.held = self.mapped = 0
        self._enough = enough

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Measure the time for reading and tokenising the records."""
        owner: Any = run_setup
        load = owner.load_training_data

        def timed(*arguments: Any) -> Any:
            self.begun = time.perf_counter()
            self.memory.stage = READING
            data = load(*arguments)
            self.read = time.perf_counter()
            self.memory.sample()
            self.memory.stage = PREPARING
            return data

        owner.load_training_data = timed
        try:
            yield
        finally:
            owner.load_training_data = load

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        """Record the start of the first epoch."""
        self.steps.append(time.perf_counter())
        self.held = self.memory.sample()
        self.memory.stage = TRAINING
        self.mapped = mapped_bytes()

    def step(self, report: StepReport) -> None:
        """Record the time, once per step."""
        if report.shared:
            return
        self.steps.append(time.perf_counter())
        if len(self.steps) > self._enough:
            raise Enough


def mapped_bytes() -> int:
    """Return the size of the unnamed temporary files that are mapped into memory."""
    found = 0
    for line in MAPS.read_text().splitlines():
        span, *_, path = line.split(maxsplit=5)
        if path.startswith(tempfile.gettempdir()) and path.endswith("(deleted)"):
            first, last = span.split("-")
            found += int(last, 16) - int(first, 16)
    return found


def markdown(report: Mapping[str, Any]) -> str:
    """Make the table for the documentation."""
    lines = [
        f"{report['machine']}, {report['threads']} threads.",
        "",
        "| records | file | reading and tokenising | first step | a step | private memory: largest "
        "while reading | while training | mapped from disk |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for part in report["parts"]:
        seconds, private = part["seconds"], part["private_bytes"]
        lines.append(
            f"| {part['records']:,} | {_mega(part['file_bytes'])} | {seconds[READING]:.1f} s | "
            f"{1e3 * seconds['first_step']:.0f} ms | {1e3 * seconds['step']:.0f} ms | "
            f"{_mega(private[READING])} | {_mega(private[TRAINING])} | "
            f"{_mega(part['mapped_bytes'])} |"
        )
    lines.append("")
    for small, large in zip(report["parts"], report["parts"][1:], strict=False):
        more = large["records"] - small["records"]
        grown = [
            (large["private_bytes"][stage] - small["private_bytes"][stage]) / more
            for stage in (READING, TRAINING)
        ]
        mapped = (large["mapped_bytes"] - small["mapped_bytes"]) / more
        lines.append(
            f"From {small['records']:,} to {large['records']:,}: {grown[0]:.0f} bytes a record of "
            f"private memory while reading, {grown[1]:.0f} while training; {mapped:.0f} mapped."
        )
    return "\n".join(lines) + "\n"


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _config(arguments: argparse.Namespace, train_file: Path, save_dir: Path) -> Config:
    model = {"model_name": arguments.model} if arguments.model else {}
    return configuration(
        train_file, arguments.data / "dev", save_dir, batch_size=arguments.batch_size,
        max_length=arguments.max_length, threads=arguments.threads, device="cpu", **model,
    )  # fmt: skip


if __name__ == "__main__":
    main()
