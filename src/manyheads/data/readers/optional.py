"""Packages that only some formats need: imported on use, with a command to install them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from manyheads.errors import DataError


def optional_module(module: str, what: str, where: str) -> Any:
    """Import a module of a package that may be absent.

    Args:
        module: the module; its first part is the package's name.
        what: the action that needs it, for the message.
        where: the file being read, for the message.

    Raises:
        DataError: the package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise DataError(
            f"{what} needs {package}, which cannot be imported ({error})",
            where=where,
            fix=f"Run: pip install {package}",
        ) from error
