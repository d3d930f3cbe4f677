"""Manyheads: one sentence encoder, many heads.

import manyheads

manyheads.train("config.yaml")
model = manyheads.load("saved_model")
model.predict(["John lives in Paris"])
manyheads.evaluate("saved_model")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyheads.version import __version__

if TYPE_CHECKING:
    from manyheads.api import add_head, compare, convert, evaluate, load, train
    from manyheads.config import Config, TaskConfig, load_config
    from manyheads.data.readers import Layout
    from manyheads.errors import ManyheadsError
    from manyheads.inference import Predictor
    from manyheads.server import Client, serve

__all__ = [
    "Client",
    "Config",
    "Layout",
    "ManyheadsError",
    "Predictor",
    "TaskConfig",
    "__version__",
    "add_head",
    "compare",
    "convert",
    "evaluate",
    "load",
    "load_config",
    "serve",
    "train",
]

# Imported when first used, so that the command line answers at once.
_HOMES = {
    "Client": "server",
    "Config": "config",
    "Layout": "data.readers",
    "ManyheadsError": "errors",
    "Predictor": "inference.predictor",
    "TaskConfig": "config",
    "add_head": "api",
    "compare": "api",
    "convert": "api",
    "evaluate": "api",
    "load": "api",
    "load_config": "config",
    "serve": "server",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
