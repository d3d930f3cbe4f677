"""The server process: socket, signals and log."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from manyheads.errors import ManyheadsError, RequestError
from manyheads.server.answering import Service
from manyheads.server.app import create_app
from manyheads.server.connections import BACKLOG, Server, make_server
from manyheads.server.hangups import Hangups
from manyheads.server.memory import return_large_blocks
from manyheads.server.protection import LogFormatter, logger
from manyheads.server.registry import model_names
from manyheads.server.settings import ServerSettings, make_settings
from manyheads.storage import StrPath

_SWITCH_SECONDS = 0.0005
"""The event loop waits this long for the interpreter lock when a lane holds it. Python's default of
5 ms would be most of an answer's time."""


def serve(*models: StrPath, report: Callable[[str], None] = print, **settings: Any) -> None:
    """Serve models until SIGTERM or Ctrl-C, then finish the accepted requests.

    SIGHUP reads the file of keys and loads every model's files again, side by side; while the
    server starts, it does so once the models are loaded.

    In a notebook, interrupt the kernel to stop the server.

    Args:
        models: model folders, checkpoints or run folders, each as PATH or NAME=PATH. The first is
            the default of requests. Default: `saved_model`.
        report: called with a line that has the server's address.
        settings: the fields of `ServerSettings`, such as `port`.

    Raises:
        ModelError: a model cannot be loaded.
        StorageError: the file of keys cannot be read.
        RequestError: a setting is invalid, the address is not available, or the file has no key.
    """
    named, chosen = model_names(models or ["saved_model"]), make_settings(**settings)
    _set_up_log(chosen)
    return_large_blocks()
    with bind_socket(chosen) as listening, Hangups() as hangups:
        app = create_app(named, chosen)
        service: Service = app.state.service
        # Withdrawn keys do not wait for models, which may take long to load.
        hangups.start(lambda: read_keys(service))
        hangups.start(lambda: reload_models(service))
        try:
            # From here on, clients can connect; the first requests wait until the loop runs.
            with _explained(chosen):
                listening.listen(BACKLOG)
        except RequestError:
            # Another process listens to the port since this one was bound to it.
            service.registry.close(0)
            raise
        address = _address(*listening.getsockname()[:2])
        report(f"Serving {', '.join(service.registry.names)} at http://{address} (API: /docs).")
        sys.setswitchinterval(_SWITCH_SECONDS)
        _run(make_server(app, chosen), listening)


def _run(server: Server, listening: socket.socket) -> None:
    """Run a server until it is stopped, on another thread if this one has an event loop.

    A notebook has one, in which the server's cannot run.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        server.run([listening])
        return
    thread = threading.Thread(target=server.run, args=([listening],), name="manyheads-server")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join()


def read_keys(service: Service) -> None:
    """Read the file of keys again, if there is one, and log the outcome."""
    if (file := service.keys.file) is not None:
        try:
            service.keys.read_again()
        except ManyheadsError as error:
            logger.error("keys not read", extra={"fields": {"error": str(error)}})
        else:
            fields = {"file": str(file), "keys": len(service.keys)}
            logger.info("keys read", extra={"fields": fields})


def reload_models(service: Service) -> None:
    """Load all models again, and log the outcome."""
    for name in service.registry.names:
        of_model = {"model": name}
        try:
            version = service.reload(name).version
        except ManyheadsError as error:
            logger.error("reload failed", extra={"fields": {**of_model, "error": str(error)}})
        except Exception:
            logger.exception("reload failed", extra={"fields": of_model})
        else:
            logger.info("reloaded", extra={"fields": {**of_model, "version": version}})


def bind_socket(settings: ServerSettings) -> socket.socket:
    """Return a socket that is bound to the server's address, and does not listen yet.

    Raises:
        RequestError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is stated; without it, answers take 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        with _explained(settings):
            listening.bind((settings.host, settings.port))
    except RequestError:
        listening.close()
        raise
    return listening


@contextmanager
def _explained(settings: ServerSettings) -> Iterator[None]:
    """Convert the system's errors in the body to errors about the server's address."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"cannot listen on {_address(settings.host, settings.port)} ({error.strerror})",
            expected="an address of this machine and a free port",
            fix="Choose another port with --port; 0 selects a free one.",
        ) from error


def _address(host: str, port: int) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_up_log(settings: ServerSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(settings.log_format))
    for name, level in (("manyheads.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
