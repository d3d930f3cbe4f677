"""Feed a million bad inputs; each must be accepted, or refused in one message.

    python tests/helpers/fuzz.py --cases 1000000 --seed 0
    python tests/helpers/fuzz.py --target readers --case 4711 --seed 0     # one case again

The cases are spread over the targets of `fuzz_targets`. A case is made of random numbers that
follow from the seed, the target and its number, so that any of them can be done again alone. The
one allowed outcome of a bad input is a `ManyheadsError`: another exception, a broken property, a
message that is too long, more than the time or the memory that a case may take are findings, and
the program ends with status 1. Prints a JSON object that counts the cases.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

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
    except BaseException as error:  # a panic of a library in Rust is no Exception
        place = traceback.extract_tb(error.__traceback__)[-1]
        tally.found(case, f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}")
    seconds = time.process_time() - begun
    tally.seconds += seconds
    tally.cases += 1
    if seconds > SLOW:
        tally.found(case, f"took {seconds:.0f} seconds")


def limit_memory() -> None:
    """Limit the memory of a case."""
    with contextlib.suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf(
            "SC_PAGESIZE"
        )
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))


def main() -> int:
    """Run the cases and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, help="run this target only")
    parser.add_argument("--case", type=int, help="run this case of the target only")
    arguments = parser.parse_args()
    tallies = {name: Tally() for name in TARGETS if arguments.target in (None, name)}
    total = sum(TARGETS[name][1] for name in tallies)
    with tempfile.TemporaryDirectory(prefix="manyheads-fuzz-", dir=in_memory_folder()) as folder:
        bench = Bench.set_up(Path(folder))
        limit_memory()
        for name, tally in tallies.items():
            if arguments.case is not None:
                numbers = range(arguments.case, arguments.case + 1)
            else:
                numbers = range(-(-arguments.cases * TARGETS[name][1] // total))
            for number in numbers:
                try_case(name, number, arguments.seed, bench, tally)
    findings = sum(len(tally.findings) for tally in tallies.values())
    report = {
        "cases": sum(tally.cases for tally in tallies.values()),
        "seed": arguments.seed,
        "findings": findings,
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
    print(json.dumps(report))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
