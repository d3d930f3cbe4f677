"""HTTP: several models behind one address, with limits, metrics and a page to try them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyheads.errors import RequestError, install
from manyheads.server.scheduling import LaneLost, QueueFull, Scheduler, TextTimeout
from manyheads.server.settings import ServerSettings

if TYPE_CHECKING:
    from manyheads.server.app import create_app
    from manyheads.server.client import Client, ServerAnswer
    from manyheads.server.registry import model_names
    from manyheads.server.running import serve

__all__ = [
    "Client",
    "LaneLost",
    "QueueFull",
    "Scheduler",
    "ServerAnswer",
    "ServerSettings",
    "TextTimeout",
    "create_app",
    "model_names",
    "serve",
]

# What needs the extra `serve` is imported when it is first used.
_HOMES = {
    "Client": "client",
    "ServerAnswer": "client",
    "create_app": "app",
    "model_names": "registry",
    "serve": "running",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("manyheads"):
            raise
        raise RequestError(
            f"the server needs the package {error.name}", fix=install("serve")
        ) from error
