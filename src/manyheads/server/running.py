"""The server as a process: its socket, its signals and its log."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from manyheads.errors import ManyheadsError, RequestError
from manyheads.server.app import create_app
from manyheads.server.protection import LogFormatter, logger
from manyheads.server.registry import Registry
from manyheads.server.settings import ServerSettings


def serve(
    models: Mapping[str, Path], settings: ServerSettings, report: Callable[[str], None] = print
) -> None:
    """Serve models until SIGTERM or Ctrl-C; what was accepted by then is finished first.

    SIGHUP loads every model's files again.

    Args:
        models: each model's folder by name; the first one is the default.
        settings: limits, keys and logs.
        report: takes the line that says where the server is.

    Raises:
        ModelError: a model cannot be loaded.
        RequestError: the address cannot be listened on.
    """
    _set_up_log(settings)
    listening = _listen(settings)
    app = create_app(models, settings)
    registry: Registry = app.state.service.registry
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.timeout) + 1, lifespan="on",
    )  # fmt: skip
    signal.signal(signal.SIGHUP, lambda *_: _reload_all(registry))
    host, port = listening.getsockname()[:2]
    report(f"Serving {', '.join(registry.names)} at http://{host}:{port} (API: /docs).")
    uvicorn.Server(config).run([listening])


def _reload_all(registry: Registry) -> None:
    """Reload on a thread of its own: a signal's handler must not take long."""

    def work() -> None:
        for name in registry.names:
            try:
                version = registry.reload(name).version
            except ManyheadsError as error:
                told = {"model": name, "error": str(error)}
                logger.error("reload refused", extra={"fields": told})
            else:
                logger.info("reloaded", extra={"fields": {"model": name, "version": version}})

    threading.Thread(target=work, name="manyheads-reload", daemon=True).start()


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise RequestError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror})",
            expected="an address of this machine and a free port",
            fix="Choose another one with --port; 0 takes a free one.",
        ) from error
    return listening


def _set_up_log(settings: ServerSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter(settings.log_format))
    for name, level in (("manyheads.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        log = logging.getLogger(name)
        log.handlers, log.propagate = [handler], False
        log.setLevel(level)
