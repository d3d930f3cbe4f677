"""The Ray cluster: an existing one, or a temporary one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import ray
from ray.data import DataContext

from manyheads.config import available_cores
from manyheads.errors import RequestError, counted, option

# The size of a block of rows. It is small, since a block is repeated when its worker dies, and
# since texts take long for their size.
_BLOCK_BYTES = 8 * 2**20


@contextmanager
def joined(address: str | None, workers: int | None, threads: int, progress: bool) -> Iterator[int]:
    """Join a cluster, or start one on this machine that ends with the body.

    Nothing is sent to others: Ray's statistics and its dashboard are off.

    Args:
        address: the cluster's address; None starts one.
        workers: the number of workers; None for as many as fit.
        threads: processor threads of each worker.
        progress: whether to show Ray's progress bars.

    Yields:
        The number of workers.

    Raises:
        RequestError: there is no such cluster, or it is too small.
    """
    if ray.is_initialized():
        with _context(progress):
            yield _room(workers, threads)
        return
    with _environment(_settings(address is None)):
        if address:
            _join(address)
        else:
            _start(workers or max(1, available_cores() // threads), threads)
        try:
            with _context(progress):
                yield _room(workers, threads)
        finally:
            ray.shutdown()


def _settings(own: bool) -> dict[str, str]:
    """Return the environment variables that Ray runs with.

    Args:
        own: whether this process starts the cluster.
    """
    settings = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "RAY_BACKEND_LOG_LEVEL" not in os.environ:
        # Otherwise every start of restartable workers is logged as an error.
        settings["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    if own and not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        # Ray keeps others out by a token, which it would leave in the home folder.
        settings["RAY_AUTH_TOKEN"] = _token()
    return settings


@cache
def _token() -> str:
    # The same for all clusters of this process, since Ray reads it once.
    return secrets.token_hex(32)


def _start(workers: int, threads: int) -> None:
    with _own_signal_handlers(), _quiet("ray"):
        ray.init(
            # A cluster of its own, whatever else runs on this machine.
            address="local",
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
            fix=f"Start one with `ray start --head`, or leave {option('--ray-address')} out.",
        ) from error


def _room(workers: int | None, threads: int) -> int:
    """Return the number of workers that fit beside one processor that reads and writes."""
    cpus = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    fitting = (cpus - 1) // threads
    if fitting < 1 or (workers or 1) > fitting:
        raise RequestError(
            f"the cluster has {counted(cpus, 'processor')}",
            expected=f"{(workers or 1) * threads + 1}: {threads} for each of "
            f"{counted(workers or 1, 'worker')}, and one to read and write",
            fix=f"Use fewer {option('--workers')} or {option('--threads')}.",
        )
    return workers or fitting


@contextmanager
def _context(progress: bool) -> Iterator[None]:
    """Set how Ray Data works within the body."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    context.read_op_min_num_blocks = 1  # else 200 files of a few rows
    context.enable_progress_bars = progress
    context.print_on_execution_start = False
    # The newer reader of Parquet starts 32 processes to look at the files before it begins.
    context.use_datasource_v2 = False
    context.execution_options.preserve_order = True
    with DataContext.current(context), _quiet("ray.data"):
        yield


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger: Ray logs errors that are raised anyway, and advice about its settings."""
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
    """Keep this process's signal handlers; Ray's own exit at once and leave folders behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
