"""The Ray cluster: one of this machine alone for as long as it is needed, or one to join."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import ray
from ray.data import DataContext

from manyheads.config import available_cores
from manyheads.errors import RequestError

# Rows travel in blocks of at most so many bytes: small, since a block is what a worker's death
# makes somebody do again, and since texts take long for their size.
BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is to compute with."""

    workers: int
    threads: int
    """Processor threads of each worker."""


@contextmanager
def joined(
    address: str | None, workers: int | None, threads: int, progress: bool
) -> Iterator[Cluster]:
    """Join a cluster, or start one on this machine that ends with the body.

    Nothing is sent to anybody outside it: Ray's statistics and its dashboard are off.

    Raises:
        RequestError: there is no such cluster, or it has no room.
    """
    if ray.is_initialized():
        with _context(progress):
            yield Cluster(_room(workers, threads), threads)
        return
    with _environment(_settings(address is None)):
        if address:
            _join(address)
        else:
            _start(workers or max(1, available_cores() // threads), threads)
        try:
            with _context(progress):
                yield Cluster(_room(workers, threads), threads)
        finally:
            ray.shutdown()


def _settings(own: bool) -> dict[str, str]:
    """Return what the environment has to say while Ray runs.

    Args:
        own: whether the cluster is this process's own.
    """
    settings = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "RAY_BACKEND_LOG_LEVEL" not in os.environ:
        # Else every start of workers that may be restarted is called an error.
        settings["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    if own and not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        # Ray lets nobody else in, by a token that it would leave in the home folder.
        settings["RAY_AUTH_TOKEN"] = _token()
    return settings


@cache
def _token() -> str:
    # One for all clusters of this process, as Ray does not look at it a second time.
    return secrets.token_hex(32)


def _start(workers: int, threads: int) -> None:
    with _own_signal_handlers(), _quiet("ray"):
        ray.init(
            # One more than the workers use, for reading and writing.
            num_cpus=workers * threads + 1,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _join(address: str) -> None:
    try:
        with _own_signal_handlers(), _quiet("ray"):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RequestError(
            f"the cluster cannot be joined ({error})",
            where=address,
            expected="the address of a Ray cluster, HOST:PORT, or auto for this machine's",
            fix="Start one with `ray start --head`, or leave --ray-address out.",
        ) from error


def _room(workers: int | None, threads: int) -> int:
    """Return how many workers there will be, with a processor left to read and write."""
    cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    fitting = (cpus - 1) // threads
    if fitting < 1 or (workers or 1) > fitting:
        raise RequestError(
            f"the cluster has {cpus} processors",
            expected=f"{(workers or 1) * threads + 1}: {threads} for each of {workers or 1} "
            "workers, and one to read and write",
            fix="Use fewer --workers or --threads.",
        )
    return workers or fitting


@contextmanager
def _context(progress: bool) -> Iterator[None]:
    """Set how Ray Data works here, and for nobody else."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = progress
    context.print_on_execution_start = False
    # The newer reader of Parquet starts 32 processes to look at the files before it begins.
    context.use_datasource_v2 = False
    context.execution_options.preserve_order = True
    with DataContext.current(context), _quiet("ray.data"):
        yield


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger: Ray logs errors that are told anyway, and advice on its own settings."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    # Ray adds its own when it starts: whether tokens are used.
    before = {name: os.environ.get(name) for name in (*settings, "RAY_AUTH_MODE")}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Keep the handlers that this process has; Ray's exit at once, and leave folders behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
