"""Joining the processes of a run, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import torch
from torch import distributed

from manyheads.errors import RequestError, listing
from manyheads.training.distributed import ALONE, Processes

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others. No part of a run that all wait for, such as reading the
data, may take longer."""


_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_first_process() -> bool:
    """Return whether this process writes and reports, before it has joined the others."""
    return os.environ.get("RANK", "0") == "0" or not _launched()


def refuse_several(what: str) -> None:
    """Refuse work that needs a single process.

    Raises:
        RequestError: there are several processes.
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
    """Join the processes that were launched with this one, if there are any.

    Args:
        device: the configured device, which determines how tensors are exchanged.

    Raises:
        RequestError: the launcher's variables are incomplete, or the processes do not connect.
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
    """Read the variables that torchrun and accelerate set.

    Raises:
        RequestError: one is missing or not a number.
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
