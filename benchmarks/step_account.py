"""The time of a training step by stage and by operator.

    python benchmarks/step_account.py --data SNIPS_FOLDER [--records N] [--threads N]

The stages are functions of Manyheads, timed from outside while `train` runs as usual. The time of
an inner function counts for the inner one only. On a CPU a call returns when its work is done, so
timing the calls is valid; on a GPU it would not be.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import manyheads.training.loop as training_module
import manyheads.training.step as step_module
from manyheads.config import Config, available_cores
from manyheads.modeling import Encoder, MultiTaskModel, keep_freed_memory
from manyheads.modeling.heads import head_class
from manyheads.tasks import known_kinds
from manyheads.training import Reporter, StepReport, train
from manyheads.training.data import Dataset, InTurn, TaskTargets
from snips import configuration, first_records

AROUND = "Python around"
OUTSIDE = "outside"

# The stages and the functions whose time they are. `OUTSIDE` is not part of a step. The rest of the
# loop's time is Python overhead.
STAGES: tuple[tuple[str, Any, str], ...] = (
    (AROUND, training_module, "train_loop"),
    (OUTSIDE, training_module, "finish_epoch"),
    ("data", training_module, "plan_epoch"),
    ("data", InTurn, "item"),
    ("data", Dataset, "inputs"),
    ("data", TaskTargets, "collate"),
    ("forward: encoder", Encoder, "forward"),
    ("forward: heads", MultiTaskModel, "forward"),
    *(("loss", head, "loss") for head in map(head_class, known_kinds())),
    ("backward", torch.Tensor, "backward"),
    ("clipping", step_module, "clip"),
    ("optimiser", torch.optim.Optimizer, "zero_grad"),
    ("logging", training_module, "count"),
    ("logging", training_module, "log_step"),
)


@dataclass
class Account:
    """Seconds by stage. Stages nest: only the innermost one's clock runs."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _stack: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage's clock in place of that of the enclosing stage."""
        if name != AROUND and (not self._stack or OUTSIDE in self._stack):
            yield
            return
        self._turn()
        self._stack.append(name)
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, owner: Any, name: str, stage: str) -> Iterator[None]:
        """Add the time of a function or method to a stage."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(stage):
                return function(*arguments, **options)

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, function)


@dataclass
class Counter(Reporter):
    """A reporter that counts steps and real sub-tokens, and can call a function at each step."""

    at_step: Callable[[int], None] = lambda step: None
    steps: int = 0
    tokens: int = 0
    precision: str = ""

    def message(self, text: str) -> None:
        """Record the chosen precision."""
        if found := re.search(r"threads? in (\w+)", text):
            self.precision = found[1]

    def step(self, report: StepReport) -> None:
        """Count a step and its sentences once, even if it trains several tasks."""
        self.tokens += 0 if report.shared else report.tokens
        if report.steps:
            self.steps += 1
            self.at_step(self.steps)


def account(config: Config, *, whole: bool = False, skip: int = 0) -> dict[str, Any]:
    """Train, and return the milliseconds of a step by stage.

    Args:
        config: the run.
        whole: time the loop as a whole, for the speed only.
        skip: steps at the start that do not count. The first takes ten times as long as the others,
            because it allocates memory and prepares products.
    """
    watch, counter = Account(), Counter()

    def at_step(step: int) -> None:
        if step == skip:
            watch.seconds.clear()
            counter.tokens = counter.steps = 0
            counter.at_step = lambda step: None

    counter.at_step = at_step
    with ExitStack() as stack:
        for stage, owner, name in STAGES:
            if not whole or stage in (AROUND, OUTSIDE):
                stack.enter_context(watch.watching(owner, name, stage))
        # The optimiser class itself: torch wraps its step on construction, for hooks and profiling.
        for owner in () if whole else _optimizers():
            stack.enter_context(watch.watching(owner, "step", "optimiser"))
        keep_freed_memory()
        result = train(config, overwrite=True, reporter=counter)
    seconds = {name: value for name, value in watch.seconds.items() if name != OUTSIDE}
    total = sum(seconds.values())
    return {
        "steps": counter.steps,
        "tokens": counter.tokens,
        "seconds": total,
        "tokens_per_second": counter.tokens / total,
        "ms_per_step": 1e3 * total / counter.steps,
        "stages_ms": {n: 1e3 * value / counter.steps for n, value in seconds.items()},
        "precision": counter.precision,
        "history": result.history,
    }


def _optimizers() -> list[type[torch.optim.Optimizer]]:
    """Return every optimiser class that defines a step."""
    found, waiting = [], [torch.optim.Optimizer]
    while waiting:
        for one in waiting.pop().__subclasses__():
            waiting.append(one)
            if "step" in vars(one):
                found.append(one)
    return found


def operators(config: Config, first: int, last: int, top: int = 25) -> list[dict[str, Any]]:
    """Profile the steps after `first` up to `last`, and return the slowest operators."""
    profiler = profile(activities=[ProfilerActivity.CPU])

    def at_step(step: int) -> None:
        if step == first:
            profiler.start()
        elif step == last:
            profiler.stop()

    keep_freed_memory()
    train(config, overwrite=True, reporter=Counter(at_step=at_step))
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    steps = last - first
    return [
        {
            "operator": event.key,
            "ms_per_step": event.self_cpu_time_total / 1e3 / steps,
            "calls_per_step": event.count / steps,
        }
        for event in events[:top]
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """Format the account as two tables."""
    total = report["ms_per_step"]
    lines = [
        f"{report['steps']:,} steps of {report['tokens'] / report['steps']:.0f} real sub-tokens, "
        f"{total:.1f} ms a step, {report['tokens_per_second']:,.0f} real sub-tokens a second.",
        "",
        "| stage | ms a step | share |",
        "|---|---:|---:|",
    ]
    stages = sorted(report["stages_ms"].items(), key=lambda pair: -pair[1])
    lines += [f"| {name} | {ms:.2f} | {100 * ms / total:.1f} % |" for name, ms in stages]
    lines += ["", "| operator | ms a step | calls a step |", "|---|---:|---:|"]
    lines += [
        f"| `{row['operator']}` | {row['ms_per_step']:.2f} | {row['calls_per_step']:.0f} |"
        for row in report["operators"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure on SNIPS and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)

        def config(records: int) -> Config:
            return configuration(
                first_records(arguments.data / "train", records, folder),
                first_records(arguments.data / "dev", 50, folder),
                folder / "saved",
                num_epochs=1, batch_size=arguments.batch_size, threads=arguments.threads,
                precision=arguments.precision, log_every=10,
            )  # fmt: skip

        skip = min(10, arguments.records // arguments.batch_size // 4)
        report = account(config(arguments.records), skip=skip)
        size = arguments.batch_size
        report["operators"] = operators(config(20 * size), first=5, last=18)
    del report["history"]
    print(markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
