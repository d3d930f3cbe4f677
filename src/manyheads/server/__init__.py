"""HTTP: several models behind one address, with limits, metrics and a page to try them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyheads.errors import RequestError, install
from manyheads.lazy import loader
from manyheads.server.scheduling import (
    LaneLost,
    QueueFull,
    Scheduler,
    TextTimeout,
    wait_for_threads,
)
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
    "wait_for_threads",
]

# What needs the extra `serve` is imported when it is first used.
_load = loader(
    __name__,
    {
        "app": ("create_app",),
        "client": ("Client", "ServerAnswer"),
        "registry": ("model_names",),
        "running": ("serve",),
    },
)


def __getattr__(name: str) -> Any:
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("manyheads"):
            raise
        raise RequestError(
            f"the server needs the package {error.name}", fix=install("serve")
        ) from error
