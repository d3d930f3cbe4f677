"""Several processes that train one model, as `torchrun` and `accelerate launch` start them.

Each process has the whole model and all data. Of a step's records each takes its share; then their
gradients and losses are added up, so that all make the same change to the same weights. What is
drawn is the same as with one process. The first process alone writes, evaluates and reports.

Large tensors are exchanged where they are (NCCL on GPUs, gloo on processors), the few numbers that
are to be agreed on through gloo, so that no GPU is waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from manyheads.config import available_cores
from manyheads.errors import ManyheadsError, RequestError, listing
from manyheads.training.data.batching import Rows
from manyheads.training.signals import Interrupted, StopRequest

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others to come to the same place: no part of a run that all wait
for, such as reading the data, may take longer."""

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_NONE, _DENSE = 0, -1
_GONE_AFTER = 2.0
"""Seconds in which a process whose connections are closed is seen to be gone."""

Result = TypeVar("Result")


class ProcessLost(ManyheadsError):
    """A process of the run that is gone, or does not answer."""


class ProcessFailed(ManyheadsError):
    """A process of the run that cannot go on, and said why."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them; by default it is alone."""

    rank: int = 0
    """This one's number."""
    count: int = 1
    local_rank: int = 0
    """This one's number on its machine."""
    local_count: int = 1
    """How many there are on its machine."""
    members: tuple[tuple[str, int], ...] = ()
    """Each one's machine and process number there."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes, evaluates and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Turn the configured device into this process's own.

        Raises:
            RequestError: it is one that not every process can have.
        """
        if self.count == 1 or name == "cpu":
            return name
        if name not in ("auto", "cuda"):
            raise RequestError(
                f"`device` is {name}, and there are {self.count} processes",
                expected="auto, cpu or cuda: each process then takes the GPU of its own number",
            )
        return f"cuda:{self.local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"

    def threads(self, configured: int | None) -> int | None:
        """Return how many threads this process has: its part of the cores, unless configured."""
        if self.count == 1 or configured is not None:
            return configured
        return max(1, available_cores() // self.local_count)

    def share(self, rows: Rows) -> Rows:
        """Return this process's part of a batch's rows, which may be none.

        Every n-th of them: the rows are sorted by length, and all should have as much to do.
        """
        return rows[self.rank :: self.count]

    def exchange(self, value: Any) -> list[Any]:
        """Tell all a value of JSON, and learn what each says, in the order of their numbers.

        Raises:
            ProcessFailed: one of them cannot go on.
            ProcessLost: one of them is gone.
        """
        if self.count == 1:
            return [value]
        said = self._gathered({"value": value})
        for rank, one in enumerate(said):
            if "failed" in one:
                raise ProcessFailed(f"process {rank} of {self.count} cannot go on: {one['failed']}")
        return [one["value"] for one in said]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Let the others know, at their next exchange, if the body fails here."""
        try:
            yield
        except (ProcessFailed, ProcessLost):
            raise
        except ManyheadsError as error:
            if self.count > 1:
                with suppress(ManyheadsError):
                    self._gathered({"failed": str(error)})
            raise

    def agree(self, *numbers: int) -> list[int]:
        """Return the largest of what all say, number by number.

        Raises:
            ProcessLost: one of them is gone.
        """
        if self.count == 1:
            return list(numbers)
        said = torch.tensor(numbers)
        with self._reached():
            distributed.all_reduce(said, distributed.ReduceOp.MAX)
        return said.tolist()

    def hears(self, stop: StopRequest) -> bool:
        """Tell whether any process was asked to stop; all hear the same."""
        return self._heard(stop, 0)[0]

    def led(self, work: Callable[[Callable[[], None]], Result], stop: StopRequest) -> Result:
        """Let the first process do something, and return its result, of JSON, in all.

        The others wait step by step, so that it may take as long as it likes.

        Args:
            work: calls its argument often: that raises `Interrupted` if there is a signal.
            stop: where this process's signals arrive.

        Raises:
            Interrupted: in all processes, if any was asked to stop.
            ProcessLost: one of them is gone.
        """
        if self.count == 1:
            return work(stop.check)
        if not self.is_first:
            done = False
            while not done:
                stopped, done = self._heard(stop, 0)
                if stopped and not done:
                    raise Interrupted
            result: Result = self.exchange(None)[0]
            return result

        def check() -> None:
            if self._heard(stop, 0)[0]:
                raise Interrupted

        found = work(check)
        self._heard(stop, 1)
        self.exchange(found)
        return found

    def _heard(self, stop: StopRequest, done: int) -> tuple[bool, bool]:
        """Agree on the signal, if there is one, and on whether the first process is done."""
        number, is_done = self.agree(stop.signal_number or 0, done)
        if number:
            stop.signal_number = number
        return bool(number), bool(is_done)

    def add_up(
        self, parameters: Sequence[nn.Parameter], losses: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Give all the sum of their gradients, and return the sum of their losses.

        A parameter without a gradient in any of them has none afterwards. Sparse gradients stay
        so: of the rows that any of them has.

        Args:
            parameters: the same ones in all, in the same order.
            losses: float32 scalars, by the same names in the same order.

        Raises:
            ProcessLost: one of them is gone.
        """
        if self.count == 1:
            return dict(losses)
        kinds = self._kinds(parameters)
        dense = [p for p, kind in zip(parameters, kinds.T, strict=True) if (kind == _DENSE).any()]
        for parameter, kind in zip(parameters, kinds.T, strict=True):
            if (kind > 0).any() and not (kind == _DENSE).any():
                parameter.grad = self._added_rows(parameter, kind - 1)
        flat = torch.cat([*(_dense(p).flatten() for p in dense), torch.stack([*losses.values()])])
        with self._reached():
            distributed.all_reduce(flat)
        *sums, total = torch.split(flat, [*(p.numel() for p in dense), len(losses)])
        for parameter, values in zip(dense, sums, strict=True):
            parameter.grad = values.view_as(parameter)
        return dict(zip(losses, total.unbind(), strict=True))

    def _kinds(self, parameters: Sequence[nn.Parameter]) -> NDArray[np.int64]:
        """Learn what gradients each process has: by parameter none, dense, or 1 + rows."""
        mine = []
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is not None and gradient.is_sparse:
                parameter.grad = gradient = gradient.coalesce()
                mine.append(1 + gradient.indices().shape[1])
            else:
                mine.append(_NONE if gradient is None else _DENSE)
        kinds: NDArray[np.int64] = torch.stack(self._all(torch.tensor(mine))).numpy()
        return kinds

    def _added_rows(self, parameter: nn.Parameter, counts: NDArray[np.int64]) -> Tensor:
        """Add up the sparse gradients of all.

        Args:
            parameter: a table.
            counts: how many rows each process's gradient has; below 1 where it has none.
        """
        most = int(counts.max())
        rows = torch.zeros(most, dtype=torch.int64, device=parameter.device)
        values = parameter.new_zeros((most, *parameter.shape[1:]))
        if parameter.grad is not None:
            own = int(counts[self.rank])
            rows[:own], values[:own] = parameter.grad.indices()[0], parameter.grad.values()
        found = [
            (r[:count], v[:count])
            for r, v, count in zip(self._all(rows), self._all(values), counts.clip(0), strict=True)
        ]
        indices = torch.cat([r for r, _ in found])[None]
        added = torch.sparse_coo_tensor(
            indices, torch.cat([v for _, v in found]), parameter.shape, check_invariants=False
        )
        return added.coalesce()

    def _all(self, tensor: Tensor) -> list[Tensor]:
        """Return each process's tensor; all have one shape."""
        tensor = tensor.detach()
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        with self._reached():
            distributed.all_gather(found, tensor)
        return found

    def _gathered(self, value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [int(n) for n in self._all(torch.tensor([len(data)]))]
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        found = self._all(padded)
        return [json.loads(bytes(d[:n].tolist())) for d, n in zip(found, lengths, strict=True)]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Explain what the library reports when a process cannot be reached."""
        try:
            yield
        except RuntimeError as error:
            who = self._missing()
            raise ProcessLost(
                f"{who} of the run's {self.count} is gone or does not answer",
                fix="What it said last is the reason; without a word, it was killed, perhaps for "
                "want of memory. Run again with --resume, with any number of processes.",
            ) from error

    def _missing(self) -> str:
        """Name the processes that are known to be gone, or all that may be."""
        here = socket.gethostname()
        others = [(rank, *one) for rank, one in enumerate(self.members) if rank != self.rank]
        end = time.monotonic() + _GONE_AFTER
        gone: list[tuple[int, str, int]] = []
        while not gone and time.monotonic() < end:
            gone = [one for one in others if one[1] == here and _is_gone(one[2])]
            time.sleep(0.02)
        named = gone or others
        told = listing(f"{rank} (process number {pid} on {host})" for rank, host, pid in named)
        return f"process {told}" if len(named) == 1 else f"at least one of the processes {told}"


ALONE = Processes()


def is_first_process() -> bool:
    """Tell whether this process is the one that writes and reports, before it has joined others."""
    return os.environ.get("RANK", "0") == "0" or not _launched()


def refuse_several(what: str) -> None:
    """Refuse what only one process can do.

    Raises:
        RequestError: there are several.
    """
    if _launched():
        raise RequestError(
            f"{what} was started in {os.environ['WORLD_SIZE']} processes",
            expected="one", fix="Start it without torchrun or accelerate launch.",
        )  # fmt: skip


def _launched() -> bool:
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that were started with this one, if there are any.

    Args:
        device: as configured: decides how tensors are exchanged.

    Raises:
        RequestError: what started them does not say enough, or they do not find each other.
    """
    if not _launched():
        yield ALONE
        return
    processes = _placed()
    name = processes.device(device)
    if name != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(name)
    try:
        distributed.init_process_group(
            "gloo" if name == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RequestError(
            f"the {processes.count} processes did not find each other at {address} "
            f"({str(error).splitlines()[0]})",
            fix="Start all of them with torchrun or accelerate launch, with the address and port "
            "of the first machine.",
        ) from error
    try:
        own = [socket.gethostname(), os.getpid()]
        members = tuple((str(host), int(pid)) for host, pid in processes.exchange(own))
        yield replace(processes, members=members)
    finally:
        distributed.destroy_process_group()


def _placed() -> Processes:
    """Read what torchrun and accelerate say of a process.

    Raises:
        RequestError: something is missing or not a number.
    """
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing:
        raise RequestError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {listing(missing)} is not set",
            expected="the variables that torchrun and accelerate launch set",
            fix="Start all processes with one of them, or unset WORLD_SIZE to train in one.",
        )
    values = {}
    for name, default in (
        ("RANK", ""), ("WORLD_SIZE", ""), ("LOCAL_RANK", os.environ["RANK"]),
        ("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]),
    ):  # fmt: skip
        value = os.environ.get(name) or default
        if not value.isdecimal():
            raise RequestError(f"the variable {name} is {value!r}", expected="a number")
        values[name] = int(value)
    if values["RANK"] >= values["WORLD_SIZE"]:
        raise RequestError(
            f"the variable RANK is {values['RANK']}",
            expected=f"less than WORLD_SIZE, {values['WORLD_SIZE']}",
        )
    return Processes(
        values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"], values["LOCAL_WORLD_SIZE"]
    )


def _dense(parameter: nn.Parameter) -> Tensor:
    """Return a gradient, or zeros where there is none."""
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient.to_dense() if gradient.is_sparse else gradient


def _is_gone(pid: int) -> bool:
    """Tell whether a process of this machine has ended, also if nobody has taken note of it."""
    if os.name != "posix":
        return False  # there, signal 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2]
    except OSError:
        return False
    return status.split()[:1] in (["Z"], ["X"])
