"""HTTP/1.1 load for `serving.py`, from one cheap process: raw bytes over asyncio.

    python benchmarks/serving_load.py < load.json > summary.json

Open loop: requests start at fixed times, whether or not earlier ones were answered, and a latency
counts from the scheduled time. Closed loop: each client sends its next request after an answer.
Uses the standard library alone, and uvloop where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

NO_ANSWER = 0
"""The status of a request whose connection was lost."""

REFUSED = -2
"""The status of a request for which no connection could be opened."""

WRONG = -1
"""The status of an answer that is not the expected one."""

_RETRY_SECONDS = 0.02
_IDLE_SECONDS = 20.0
"""Idle connections are not used after this time: the server may be closing them. Clients do so
after 5 (httpx) to 60 seconds."""
_PATIENCE = 60.0

Done = Callable[[int, bytes], None]


@dataclass
class Phase:
    """Load of one kind, and the results that count."""

    seconds: float
    rate: float = 0.0
    """Requests a second in open loop; 0 for closed loop."""
    clients: int = 1
    """Clients of the closed loop."""
    skip: float = 0.0
    """Seconds at the beginning that do not count."""


@dataclass
class Load:
    """What to send."""

    phases: list[Phase]
    targets: list[tuple[int, str]]
    """A port and path for each part of a request; all parts are sent at once."""
    bodies: list[list[str]]
    """By request, the body of each part. Requests are drawn from these in random order."""
    expected: list[Any] | None = None
    """By request, the value that `decisions` reads from the first part's answer."""
    connections: int = 256
    """Connections to each target at most."""
    seed: int = 1


@dataclass
class _Results:
    """The answers of a phase."""

    latencies: dict[int, list[float]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.latencies.setdefault(status, []).append(seconds)

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return counts and latencies in milliseconds by status, and the rate of good answers."""
        good = self.statuses[200]
        return {
            "seconds": seconds,
            "answers_per_second": good / seconds,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "milliseconds": {
                str(status): quantiles(found) for status, found in sorted(self.latencies.items())
            },
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 99th and 100th percentile in milliseconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {f"p{q}": 1e3 * ordered[round(q / 100 * last)] for q in (50, 99, 100)}


def decisions(answer: bytes) -> Any:
    """Read the text and the decisions of the first prediction of `/v1/predict`."""
    return decided(json.loads(answer)["predictions"][0])


def decided(prediction: dict[str, Any]) -> list[Any]:
    """Return a prediction's text, its classes, and entities that are not of this text.

    Which entities are found may depend on the batch, because int8 rounds by batch.
    """
    text = prediction["text"]
    found = [text]
    for result in prediction.values():
        if isinstance(result, dict):
            found += [result["label"]] if "label" in result else []
            entities = result.get("entities", ())
            found += [e["text"] for e in entities if e["text"] != text[e["start"] : e["end"]]]
    return found


class _Connection(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._done: Done | None = None
        self._buffer = b""
        self._status, self._wanted = 0, -1

    @property
    def closed(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes, done: Done) -> None:
        self._done, self._buffer, self._wanted = done, b"", -1
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            self._status = int(head[9:12])
            start = head.index(b"content-length:") + 15
            self._wanted = end + 4 + int(head[start:].split(b"\r", 1)[0])
            self._body = end + 4
            self._last = b"connection: close" in head
        if len(self._buffer) >= self._wanted:
            if self._last:
                self.transport.close()
            self._finish(self._status, self._buffer[self._body : self._wanted])

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(NO_ANSWER, b"")

    def _finish(self, status: int, body: bytes) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status, body)


class _Target:
    """The connections to one port."""

    def __init__(self, port: int, path: str, limit: int) -> None:
        self._port, self._limit = port, limit
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "Content-Length: "
        ).encode()
        self._free: list[tuple[_Connection, float]] = []
        """Each with the time since which it has been idle."""
        self._waiting: deque[tuple[bytes, Done]] = deque()
        self._open = 0
        self._opening: set[asyncio.Task[None]] = set()

    def send(self, body: bytes, done: Done) -> None:
        """Send on a free connection, a new one, or the next that becomes free."""
        request = self._head + str(len(body)).encode() + b"\r\n\r\n" + body
        while self._free:
            connection, since = self._free.pop()
            if not connection.closed and time.perf_counter() - since < _IDLE_SECONDS:
                self._send(connection, request, done)
                return
            connection.transport.close()
            self._open -= 1
        self._waiting.append((request, done))
        if self._open < self._limit:
            self._open += 1
            task = asyncio.ensure_future(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        except OSError:
            self._open -= 1
            if self._waiting:
                self._waiting.popleft()[1](REFUSED, b"")
            return
        self._release(connection)

    def _send(self, connection: _Connection, request: bytes, done: Done) -> None:
        def finished(status: int, body: bytes) -> None:
            if connection.closed:
                self._open -= 1
            else:
                self._release(connection)
            done(status, body)

        connection.send(request, finished)

    def _release(self, connection: _Connection) -> None:
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
        else:
            self._free.append((connection, time.perf_counter()))


class _Sender:
    """Sends whole requests: all parts of one at once."""

    def __init__(self, load: Load) -> None:
        self._targets = [_Target(port, path, load.connections) for port, path in load.targets]
        self._bodies = [[part.encode() for part in parts] for parts in load.bodies]
        self._expected = load.expected
        self._random = random.Random(load.seed)
        self.under_way = 0
        self.wrong: list[Any] = []

    def start(self, done: Callable[[int], None]) -> None:
        """Send a request, and call a function with the worst status of its parts."""
        number = self._random.randrange(len(self._bodies))
        left = len(self._targets)
        worst = 200
        self.under_way += 1

        def finished(part: int, status: int, body: bytes) -> None:
            nonlocal left, worst
            if status == 200 and part == 0 and self._expected is not None:
                found = decisions(body)
                if found != self._expected[number]:
                    status = WRONG
                    self.wrong.append([found, self._expected[number]])
            if status != 200:
                worst = status
            left -= 1
            if not left:
                self.under_way -= 1
                done(worst)

        for part, (target, body) in enumerate(
            zip(self._targets, self._bodies[number], strict=True)
        ):
            target.send(body, partial(finished, part))


async def _open_loop(sender: _Sender, phase: Phase) -> _Results:
    results = _Results()
    begun = time.perf_counter()

    def send(scheduled: float) -> None:
        def done(status: int) -> None:
            if scheduled >= begun + phase.skip:
                results.add(status, time.perf_counter() - scheduled)

        sender.start(done)

    for number in range(int(phase.rate * phase.seconds)):
        scheduled = begun + number / phase.rate
        wait = scheduled - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            # Answers are read also while sending lags behind.
            await asyncio.sleep(0)
        send(scheduled)
    return results


async def _closed_loop(sender: _Sender, phase: Phase) -> _Results:
    results = _Results()
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    end = begun + phase.seconds

    def send() -> None:
        sent = time.perf_counter()

        def done(status: int) -> None:
            now = time.perf_counter()
            if sent >= begun + phase.skip:
                results.add(status, now - sent)
            if now < end:
                # A refused client waits before its next request.
                loop.call_later(0 if status == 200 else _RETRY_SECONDS, send)

        sender.start(done)

    for _ in range(phase.clients):
        send()
    await asyncio.sleep(phase.seconds)
    return results


async def run(load: Load) -> list[dict[str, Any]]:
    """Send the load; returns a summary for each phase.

    Requests that are under way at the end of a phase count, too. They may overlap with those of the
    next phase.
    """
    sender = _Sender(load)
    found = []
    for phase in load.phases:
        found.append(await (_open_loop if phase.rate else _closed_loop)(sender, phase))
    end = time.perf_counter() + _PATIENCE
    while sender.under_way and time.perf_counter() < end:
        await asyncio.sleep(0.01)
    summaries = [
        results.summary(phase.seconds - phase.skip)
        for results, phase in zip(found, load.phases, strict=True)
    ]
    summaries[-1]["unanswered"] = sender.under_way
    summaries[-1]["wrong"] = sender.wrong[:10]
    return summaries


def main() -> None:
    """Read the load from standard input, and write the summaries."""
    with suppress(ImportError):
        import_module("uvloop").install()
    given = json.load(sys.stdin)
    load = Load(**{**given, "phases": [Phase(**phase) for phase in given["phases"]]})
    json.dump(asyncio.run(run(load)), sys.stdout)


if __name__ == "__main__":
    main()
