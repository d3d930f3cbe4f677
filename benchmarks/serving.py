"""Speed and stability of the server. A figure and what it is compared with come from one run.

    python benchmarks/serving.py MODEL --data SNIPS_FOLDER [--only SECTION ...] [--threads N]

MODEL is an exported model with a classification and a tagging task; SNIPS_FOLDER holds `test`. The
load comes from another process, and its latency counts from the scheduled time. Sections:

    speed      lists of 32 and single texts at saturation, against the predictor's offline
               rate; one client at a time, against its own latency; the time to start
    rivals     the highest rate with 99 % of the answers within 50 ms, against FastAPI around the
               predictor, and against a FastAPI service for each of the usual pipelines
    overload   ten times the capacity for --overload seconds, between phases at 80 %
    soak       a low rate for --soak seconds, with a reload every --reload-every seconds
    stops      --stops times SIGTERM and SIGKILL under load

Writes serving.json, one entry for each figure with its target.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from manyheads.config import available_cores
from manyheads.inference import ONNX_INT8, Predictor, Runtime, load_exported, load_model
from manyheads.storage import resolve_model
from serving_load import NO_ANSWER, WRONG, decided, quantiles

HERE = Path(__file__).resolve().parent
LIMIT_MS = 50.0
"""The latency that 99 % of the answers must have in `rivals`."""
_ANSWERED = 0.99
_CERTAIN = 0.8
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Setup:
    """What all sections share."""

    model: Path
    texts: list[str]
    predictor: Predictor
    options: argparse.Namespace

    @property
    def threads(self) -> int:
        """Processor threads of each system."""
        threads: int = self.options.threads
        return threads


@dataclass
class Process:
    """A server that listens."""

    process: subprocess.Popen[str]
    port: int

    def memory(self) -> float:
        """Return the resident memory in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)

    def post(self, path: str, body: object = None) -> Any:
        """Send one request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
            {"Content-Type": "application/json"}, method="POST",
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())


def start(setup: Setup, *arguments: str, port: int = 0) -> Process:
    """Start `manyheads serve`, and wait until it accepts connections."""
    process = subprocess.Popen(
        [sys.executable, "-m", "manyheads", "serve", f"model={setup.model}", "--port", str(port),
         "--threads", str(setup.threads), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("Serving"):
        raise SystemExit("the server does not start")
    return Process(process, int(line.split("127.0.0.1:")[1].split()[0]))


@contextmanager
def server(setup: Setup, *arguments: str) -> Iterator[Process]:
    """Serve the model while the context lasts."""
    running = start(setup, *arguments)
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def rival(name: str, folder: Path) -> Iterator[Process]:
    """Run a service of `serving_systems.py`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(HERE / "serving_systems.py"), name, str(folder), str(port)], text=True
    )
    try:
        end = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not start")
            time.sleep(0.1)
        yield Process(process, port)
    finally:
        process.terminate()
        process.wait()


class LoadProcess:
    """Load from another process; it begins at once."""

    def __init__(
        self,
        targets: Sequence[tuple[int, str]],
        bodies: Sequence[Sequence[object]],
        *phases: Mapping[str, float],
        expected: Sequence[Any] | None = None,
        connections: int = 256,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "serving_load.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        load = {
            "targets": targets,
            "bodies": [[json.dumps(part) for part in parts] for parts in bodies],
            "phases": phases,
            "expected": expected,
            "connections": connections,
        }
        json.dump(load, self._process.stdin)
        self._process.stdin.close()

    @property
    def running(self) -> bool:
        """Whether it still sends."""
        return self._process.poll() is None

    def summaries(self) -> list[dict[str, Any]]:
        """Wait for its end; returns a summary for each phase."""
        assert self._process.stdout is not None
        summaries: list[dict[str, Any]] = json.loads(self._process.stdout.read())
        self._process.wait()
        return summaries


def measure(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Run load of one phase."""
    return LoadProcess(*arguments, **options).summaries()[-1]


def figure(name: str, value: float, target: str, holds: bool, **details: Any) -> dict[str, Any]:
    """Print and return a figure."""
    print(f"{'ok  ' if holds else 'MISS'} {name}: {value:.4g} ({target})  {details}", flush=True)
    return {"name": name, "value": value, "target": target, "holds": holds, **details}


def single_texts(setup: Setup, **options: Any) -> list[list[object]]:
    """Return a request for each text."""
    return [[{"texts": text, **options}] for text in setup.texts]


# ------------------------------------------------------------------------------------------- speed


def speed(setup: Setup) -> list[dict[str, Any]]:
    """Measure throughput, latency and the time to start."""
    starts = []
    for _ in range(3):
        begun = time.perf_counter()
        running = start(setup)
        starts.append(time.perf_counter() - begun)
        running.stop()
    with server(setup) as running:
        target = [(running.port, "/v1/predict")]
        lists = [[{"texts": setup.texts[i : i + 32]}] for i in range(0, len(setup.texts) - 31, 32)]
        measure(target, lists, {"seconds": 2, "clients": 8})
        offline, listed, single, own, one = [], [], [], [], []
        for _ in range(setup.options.rounds):
            offline.append(offline_rate(setup))
            listed.append(
                32 * rate(measure(target, lists, {"seconds": 3, "clients": 8, "skip": 1}))
            )
            bodies = single_texts(setup)
            single.append(rate(measure(target, bodies, {"seconds": 3, "clients": 64, "skip": 1})))
            own.append(own_latency(setup))
            found = measure(target, bodies, {"seconds": 2, "clients": 1, "skip": 0.5})
            one.append(found["milliseconds"]["200"]["p50"])
            own.append(own_latency(setup))
            offline.append(offline_rate(setup))
    base = statistics.median(offline)
    share, alone = statistics.median(listed) / base, statistics.median(single) / base
    added = statistics.median(one) - statistics.median(own)
    begun = min(starts)
    return [
        figure("start", begun, "under 1 s", begun < 1, seconds=starts),
        figure("lists of 32 / offline", share, "at least 0.8", share >= 0.8,
               offline=offline, texts_per_second=listed),
        figure("single texts / offline", alone, "at least 0.35", alone >= 0.35,
               texts_per_second=single),
        figure("one client, ms over the predictor", added, "at most 1", added <= 1,
               predictor=own, client=one),
    ]  # fmt: skip


def rate(summary: Mapping[str, Any]) -> float:
    """Return the good answers a second."""
    value: float = summary["answers_per_second"]
    return value


def offline_rate(setup: Setup) -> float:
    """Return the texts a second that the predictor computes in one call."""
    begun = time.perf_counter()
    setup.predictor.predict(setup.texts)
    return len(setup.texts) / (time.perf_counter() - begun)


def own_latency(setup: Setup) -> float:
    """Return the median milliseconds of the predictor for one text."""
    spent = []
    for text in setup.texts[:200]:
        begun = time.perf_counter()
        setup.predictor.predict([text])
        spent.append(time.perf_counter() - begun)
    return quantiles(spent)["p50"]


# ------------------------------------------------------------------------------------------ rivals


def rivals(setup: Setup) -> list[dict[str, Any]]:
    """Compare the highest rates with the latency below the limit."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(
            [sys.executable, str(HERE / "serving_systems.py"), "prepare", str(setup.model), work],
            check=True,
        )
        with ExitStack() as stack:
            ours = stack.enter_context(server(setup))
            plain = stack.enter_context(rival("plain", setup.model))
            parts = [
                stack.enter_context(rival(name, folder))
                for name, folder in (
                    ("classes", Path(work)), ("entities", Path(work)), ("vectors", setup.model)
                )
            ]  # fmt: skip
            asked = [{"text": text} for text in setup.texts]
            systems: dict[str, Callable[[float], dict[str, Any]]] = {
                "ours": partial(
                    open_loop, [(ours.port, "/v1/predict")], single_texts(setup, embed=True)
                ),
                "plain": partial(open_loop, [(plain.port, "/")], [[one] for one in asked]),
                "three": partial(
                    open_loop, [(part.port, "/") for part in parts], [[one] * 3 for one in asked]
                ),
            }
            guesses = dict.fromkeys(systems, 20.0)
            for _ in range(setup.options.rounds):
                for name, send in systems.items():
                    best = highest_rate(send, guesses[name])
                    guesses[name] = best / 1.5
                    found.setdefault(name, []).append(best)
    middle = {name: statistics.median(rates) for name, rates in found.items()}
    three, plain_ratio = middle["ours"] / middle["three"], middle["ours"] / middle["plain"]
    return [
        figure("requests a second / three services", three, "at least 8", three >= 8, rates=found),
        figure("requests a second / plain FastAPI", plain_ratio, "at least 1.5",
               plain_ratio >= 1.5),
    ]  # fmt: skip


def open_loop(
    targets: Sequence[tuple[int, str]], bodies: Sequence[Sequence[object]], per_second: float
) -> dict[str, Any]:
    """Send at a rate for two seconds and a half, the last two of which count."""
    return measure(targets, bodies, {"seconds": 2.5, "rate": per_second, "skip": 0.5})


def highest_rate(send: Callable[[float], dict[str, Any]], guess: float) -> float:
    """Find the highest rate at which 99 % of all requests are answered within the limit."""

    def good(per_second: float) -> bool:
        summary = send(per_second)
        answers = summary["statuses"].get("200", 0) / sum(summary["statuses"].values())
        return bool(answers >= _ANSWERED and summary["milliseconds"]["200"]["p99"] < LIMIT_MS)

    low = guess
    while not good(low):
        low /= 1.5
        if low < 0.5:
            return low
    high = low * 1.5
    while good(high):
        low, high = high, high * 1.5
    while high / low > 1.1:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


# ---------------------------------------------------------------------------------------- overload


def overload(setup: Setup) -> list[dict[str, Any]]:
    """Send ten times the server's capacity.

    The requests are lists: two cores cannot refuse fourteen thousand requests a second.
    """
    _, found = stable(setup)
    seconds, size = setup.options.overload, setup.options.overload_texts
    starts = range(0, len(found) - size + 1, size)
    bodies = [[{"texts": [text for text, *_ in found[i : i + size]]}] for i in starts]
    expected = [found[i] for i in starts]
    with server(setup) as running:
        target = [(running.port, "/v1/predict")]
        top = rate(measure(target, bodies, {"seconds": 8, "clients": 8, "skip": 2}))
    with server(setup, "--max-queue", str(setup.options.overload_queue)) as running:
        target = [(running.port, "/v1/predict")]
        usual = {"seconds": max(10, seconds / 10), "rate": 0.8 * top, "skip": 1.0}
        phases = [usual, {"seconds": seconds, "rate": 10 * top, "skip": 0.5}, usual]
        load = LoadProcess(target, bodies, *phases, expected=expected)
        time.sleep(usual["seconds"] - 2)
        # What the allocator keeps from the first seconds of the overload is not a leak.
        time.sleep(min(15, seconds / 3))
        memory = [running.memory()]
        time.sleep(max(0, seconds - 10 - min(15, seconds / 3)))
        memory.append(running.memory())
        before, during, after = load.summaries()
    accepted, normal = during["milliseconds"]["200"], before["milliseconds"]["200"]
    statuses = during["statuses"]
    lost = sum(count for status, count in statuses.items() if status not in ("200", "429"))
    slow = accepted["p99"] / normal["p99"]
    growth = memory[1] / memory[0] - 1
    back = after["milliseconds"]["200"]["p99"] / normal["p99"]
    refused = during["milliseconds"].get("429", {"p50": 0.0, "p99": 0.0})
    return [
        figure("overload, requests not answered 200 or 429", lost, "0",
               not lost and not after["unanswered"], capacity=top, seconds=seconds,
               statuses=statuses, answers_per_second=rate(during)),
        figure("overload, p99 of the accepted / at 80 %", slow, "at most 2", slow <= 2,
               accepted=accepted, at_80_percent=normal),
        figure("overload, ms to refuse (p99)", refused["p99"], "at once", refused["p99"] < 50,
               refused=refused),
        figure("overload, growth of the memory", growth, "at most 0.05", growth <= 0.05,
               megabytes=memory),
        figure("a second after the overload, p99 / before", back, "at most 1.5", back <= 1.5,
               after=after["milliseconds"]["200"], statuses=after["statuses"]),
    ]  # fmt: skip


def stable(setup: Setup) -> tuple[list[list[object]], list[Any]]:
    """Return requests whose classes do not depend on the batch, with the output of `decided`.

    Int8 rounds by batch, so a text near a boundary may get another class in another batch.
    """
    order = random.Random(1)
    seen: dict[str, list[Any]] = {text: [] for text in setup.texts}
    for size in (1, 2, 4, 8, 16, 32, 64):
        texts = list(seen)
        order.shuffle(texts)
        for i in range(0, len(texts), size):
            for prediction in setup.predictor.predict(texts[i : i + size]):
                record = prediction.to_json()
                scores = [x.get("score", 1.0) for x in record.values() if isinstance(x, dict)]
                certain = min(scores) > _CERTAIN
                seen[prediction.text].append(decided(record) if certain else None)
    same = {
        text: found[0]
        for text, found in seen.items()
        if found[0] is not None and all(x == found[0] for x in found)
    }
    return [[{"texts": text}] for text in same], list(same.values())


# -------------------------------------------------------------------------------------------- soak


def soak(setup: Setup) -> list[dict[str, Any]]:
    """Serve for a long time, with reloads."""
    bodies, expected = stable(setup)
    options = setup.options
    with server(setup) as running:
        load = LoadProcess(
            [(running.port, "/v1/predict")], bodies,
            {"seconds": options.soak, "rate": options.soak_rate}, expected=expected,
        )  # fmt: skip
        memory, reloads = [], 0
        while load.running:
            time.sleep(options.reload_every)
            if load.running:
                # By now, the version before the last reload has been freed.
                memory.append(running.memory())
                running.post("/v1/models/model:reload")
                reloads += 1
        [summary] = load.summaries()
    errors = sum(count for status, count in summary["statuses"].items() if status != "200")
    # The first reloads fill the allocator's pools.
    settled = memory[min(5, len(memory) // 3) :]
    growth = max(settled) / settled[0] - 1
    return [
        figure("soak, errors", errors, "0", not errors, seconds=options.soak, reloads=reloads,
               statuses=summary["statuses"], milliseconds=summary["milliseconds"]["200"]),
        figure("soak, growth of the memory", growth, "at most 0.05", growth <= 0.05,
               megabytes=memory),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- stops


def stops(setup: Setup) -> list[dict[str, Any]]:
    """Stop and kill the server under load, and start it again at the same port."""
    bodies, expected = stable(setup)
    report = []
    for how in (signal.SIGTERM, signal.SIGKILL):
        running = start(setup)
        load = LoadProcess(
            [(running.port, "/v1/predict")], bodies,
            {"seconds": 3.0 * setup.options.stops, "clients": 16}, expected=expected,
        )  # fmt: skip
        times, statuses = [], []
        for _ in range(setup.options.stops):
            time.sleep(1)
            begun = time.perf_counter()
            statuses.append(running.stop(how))
            times.append(time.perf_counter() - begun)
            running = start(setup, port=running.port)
        [summary] = load.summaries()
        running.stop()
        wrong = summary["statuses"].get(str(WRONG), 0)
        report.append(
            figure(f"{how.name} x {setup.options.stops}, wrong answers", wrong, "0", not wrong,
                   statuses=summary["statuses"], exit_statuses=sorted(set(statuses)),
                   lost=summary["statuses"].get(str(NO_ANSWER), 0), examples=summary["wrong"],
                   seconds_to_stop=max(times))
        )  # fmt: skip
    return report


SECTIONS: dict[str, Callable[[Setup], list[dict[str, Any]]]] = {
    "speed": speed, "rivals": rivals, "overload": overload, "soak": soak, "stops": stops,
}  # fmt: skip


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload", type=float, default=600.0, help="seconds")
    parser.add_argument("--overload-texts", type=int, default=16, help="texts of a request")
    parser.add_argument("--overload-queue", type=int, default=1, help="max_queue of the server")
    parser.add_argument("--soak", type=float, default=3600.0, help="seconds")
    parser.add_argument("--soak-rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--reload-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--stops", type=int, default=20, help="stops of each kind")
    options = parser.parse_args()
    model = resolve_model(options.model)
    lines = (options.data / "test" / "seq.in").read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    predictor = load_model(model, Runtime(threads=options.threads)).predictor
    if predictor.backend.name != load_exported(model, Runtime(ONNX_INT8, threads=1)).backend.name:
        raise SystemExit(f"{model} has no int8 graph: run manyheads export")
    setup = Setup(model, texts, predictor, options)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "serving.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name in options.only:
        report[name] = {
            "load_average": os.getloadavg()[0],
            "threads": options.threads,
            "figures": SECTIONS[name](setup),
        }
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Saved {path}")


if __name__ == "__main__":
    main()
