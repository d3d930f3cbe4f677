"""Feed a million bad inputs; each must be accepted, or refused in one message.

    python tests/helpers/fuzz.py --cases 1000000 --seed 0
    python tests/helpers/fuzz.py --target readers --case 4711 --seed 0     # repeat one case

The cases are spread over the targets of `fuzz_targets`, a thousand at a time. A case is made from
random numbers that follow from the seed, the target and the case's number, so that each can be
repeated alone. The only allowed outcome of a bad input is a `ManyheadsError`. Another exception, a
broken property, a message that is too long, too much time and too much memory are findings. Prints
a JSON object that counts the cases, also when it is stopped early (Ctrl-C or SIGTERM). The exit
status is 1 if there are findings.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from fuzz_targets import MAX_MESSAGE, TARGETS, Bench, in_memory_folder
from manyheads.errors import ManyheadsError

SLOW = 20.0
"""The limit of a case in seconds of processor time: other work on the machine does not count."""
MEMORY = 2 << 30
"""The memory limit of a case in bytes, without the program itself."""


@dataclass
class Tally:
    """The outcomes of a target's cases."""

    cases: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    def found(self, case: str, what: str) -> None:
        """Record a finding and show it once."""
        if what not in {finding.split(" | ", 1)[1] for finding in self.findings}:
            print(f"finding: {case} | {what}", file=sys.stderr, flush=True)
            traceback.print_exc()
        self.findings.append(f"{case} | {what}")


def try_case(target: str, number: int, seed: int, bench: Bench, tally: Tally) -> None:
    """Run one case."""
    draw = random.Random(f"{seed}/{target}/{number}")
    case = f"--target {target} --case {number} --seed {seed}"
    begun = time.process_time()
    try:
        TARGETS[target][0](draw, bench)
    except ManyheadsError as error:
        tally.refused += 1
        if len(str(error)) > MAX_MESSAGE:
            tally.found(case, f"a message of {len(str(error))} characters")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a Rust library is not an Exception
        place = traceback.extract_tb(error.__traceback__)[-1]
        tally.found(case, f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}")
    seconds = time.process_time() - begun
    tally.seconds += seconds
    tally.cases += 1
    if seconds > SLOW:
        tally.found(case, f"took {seconds:.0f} seconds")


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Limit the address space of the process to its current size and `MEMORY` more."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    used = pages * os.sysconf("SC_PAGESIZE")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def fuzz(cases: int, seed: int, tallies: Mapping[str, Tally], bench: Bench) -> None:
    """Run the cases, each target's share of every thousand in turn."""
    total = sum(TARGETS[name][1] for name in tallies)
    rounds = max(1, cases // 1000)
    for number in range(rounds):
        for name, tally in tallies.items():
            share = -(-cases * TARGETS[name][1] // total)
            for case in range(share * number // rounds, share * (number + 1) // rounds):
                try_case(name, case, seed, bench, tally)
        if number % 50 == 49:
            done = sum(tally.cases for tally in tallies.values())
            print(f"{done:,} cases", file=sys.stderr, flush=True)


def report_of(seed: int, tallies: Mapping[str, Tally]) -> dict[str, Any]:
    """Return the counts as values of JSON."""
    return {
        "cases": sum(tally.cases for tally in tallies.values()),
        "seed": seed,
        "findings": sum(len(tally.findings) for tally in tallies.values()),
        "targets": {
            name: {
                "cases": tally.cases,
                "refused": tally.refused,
                "findings": len(tally.findings),
                "seconds": round(tally.seconds, 1),
            }
            for name, tally in tallies.items()
        },
    }


def main() -> int:
    """Run the cases and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, help="run this target only")
    parser.add_argument("--case", type=int, help="run this case of the target only")
    arguments = parser.parse_args()
    tallies = {name: Tally() for name in TARGETS if arguments.target in (None, name)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="manyheads-fuzz-", dir=in_memory_folder()) as folder:
        bench = Bench.set_up(Path(folder))
        with limited_memory(), contextlib.suppress(KeyboardInterrupt):
            if arguments.case is None:
                fuzz(arguments.cases, arguments.seed, tallies, bench)
            for name in tallies if arguments.case is not None else ():
                try_case(name, arguments.case, arguments.seed, bench, tallies[name])
    report = report_of(arguments.seed, tallies)
    print(json.dumps(report))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
