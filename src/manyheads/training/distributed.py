"""Data-parallel training in several processes, from the perspective of one of them.

Each process has the whole model and all data, and takes its share of a step's records. Gradients
and losses are then summed over the processes, so that all make the same update to the same weights.
The batches are the same as with one process. Only the first process writes, evaluates and reports.

Large tensors are exchanged on their device (NCCL on GPUs, gloo on CPUs); the few numbers to agree
on go through gloo, so that no GPU has to be waited for.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from manyheads.config import available_cores
from manyheads.errors import ManyheadsError, RequestError, listing, option
from manyheads.training.data.batching import Rows
from manyheads.training.signals import Interrupted, StopRequest

_NONE, _DENSE = 0, -1
_GONE_AFTER = 2.0
"""Seconds within which a process with closed connections is known to be gone."""

Result = TypeVar("Result")


class ProcessLost(ManyheadsError):
    """A process of the run is gone or does not answer."""


class ProcessFailed(ManyheadsError):
    """A process of the run cannot continue, and reported why."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, from the perspective of one of them; by default it is alone."""

    rank: int = 0
    """This process's rank."""
    count: int = 1
    local_rank: int = 0
    """Its rank on its machine."""
    local_count: int = 1
    """The number of processes on its machine."""
    members: tuple[tuple[str, int], ...] = ()
    """Each process's host and process ID."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes, evaluates and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return this process's device for the configured one.

        Raises:
            RequestError: not every process can have such a device.
        """
        if self.count == 1 or name == "cpu":
            return name
        if name not in ("auto", "cuda"):
            raise RequestError(
                f"`device` is {name}, and there are {self.count} processes",
                expected="auto, cpu or cuda: each process then takes the GPU of its local rank",
            )
        return f"cuda:{self.local_rank}" if name == "cuda" or torch.cuda.is_available() else "cpu"

    def threads(self, configured: int | None) -> int | None:
        """Return this process's number of threads: its share of the cores, unless configured."""
        if self.count == 1 or configured is not None:
            return configured
        return max(1, available_cores() // self.local_count)

    def share(self, rows: Rows) -> Rows:
        """Return this process's part of a batch's rows, which may be none.

        It takes every n-th row: rows are sorted by length, and this balances the work.
        """
        return rows[self.rank :: self.count]

    def exchange(self, value: Any) -> list[Any]:
        """Send a JSON value to all processes, and return each process's value by rank.

        Raises:
            ProcessFailed: a process cannot continue.
            ProcessLost: a process is gone.
        """
        if self.count == 1:
            return [value]
        received = self._gathered({"value": value})
        for rank, one in enumerate(received):
            if "failed" in one:
                raise ProcessFailed(
                    f"process {rank} of {self.count} cannot continue: {one['failed']}"
                )
        return [one["value"] for one in received]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Make the others fail at their next exchange if the body fails here."""
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
        """Return the maximum over all processes of each number.

        Raises:
            ProcessLost: a process is gone.
        """
        if self.count == 1:
            return list(numbers)
        largest = torch.tensor(numbers)
        with self._reached():
            distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return largest.tolist()

    def hears(self, stop: StopRequest) -> bool:
        """Return whether any process was asked to stop; the same in all processes."""
        return self._heard(stop, 0)[0]

    def led(self, work: Callable[[Callable[[], None]], Result], stop: StopRequest) -> Result:
        """Do some work in the first process, and return its JSON result in all processes.

        The others keep waiting in short steps, so that the work may take any time.

        Args:
            work: calls its argument regularly, which raises `Interrupted` after a signal.
            stop: receives this process's signals.

        Raises:
            Interrupted: in all processes, if any was asked to stop.
            ProcessLost: a process is gone.
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
        """Share a signal, if there is one, and whether the first process is done."""
        number, is_done = self.agree(stop.signal_number or 0, done)
        if number:
            stop.signal_number = number
        return bool(number), bool(is_done)

    def add_up(
        self, parameters: Sequence[nn.Parameter], losses: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Sum the gradients over all processes in place, and return the sums of the losses.

        A parameter without a gradient in any process has none afterwards. Sparse gradients stay
        sparse, with the union of the processes' rows.

        Args:
            parameters: the same ones in the same order in all processes.
            losses: float32 scalars, by the same names in the same order.

        Raises:
            ProcessLost: a process is gone.
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
        """Return the kind of each process's gradients by parameter: none, dense, or 1 + rows."""
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
        """Return the sum of all processes' sparse gradients.

        Args:
            parameter: a table.
            counts: the rows of each process's gradient; below 1 if it has none.
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
        """Return each process's tensor; all have the same shape."""
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
        """Turn the library's error for a process that cannot be reached into ours."""
        try:
            yield
        except RuntimeError as error:
            who = self._missing()
            raise ProcessLost(
                f"{who} of the run's {self.count} is gone or does not answer",
                fix="Its last message is the reason; without one it was killed, perhaps because "
                f"memory ran out. Run again with {option('--resume')}, with any number of "
                "processes.",
            ) from error

    def _missing(self) -> str:
        """Name the processes that are known to be gone; otherwise, all that may be."""
        here = socket.gethostname()
        others = [(rank, *one) for rank, one in enumerate(self.members) if rank != self.rank]
        end = time.monotonic() + _GONE_AFTER
        gone: list[tuple[int, str, int]] = []
        while not gone and time.monotonic() < end:
            gone = [one for one in others if one[1] == here and _is_gone(one[2])]
            time.sleep(0.02)
        named = gone or others
        names = listing(f"{rank} (process number {pid} on {host})" for rank, host, pid in named)
        return f"process {names}" if len(named) == 1 else f"at least one of the processes {names}"


ALONE = Processes()


def _dense(parameter: nn.Parameter) -> Tensor:
    """Return a gradient, or zeros if there is none."""
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(parameter)
    return gradient.to_dense() if gradient.is_sparse else gradient


def _is_gone(pid: int) -> bool:
    """Return whether a process of this machine has ended, including zombies."""
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
