"""Processes that start at once: forks of a server that has imported what training needs.

The server (`multiprocessing`'s forkserver) has done nothing else, so a fork is like a new process,
in a fraction of a second and of the processor time. Each process of tests has one such server.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PATIENCE = 600.0
"""Seconds after which a process counts as hung."""


def _work(
    folder: str, environment: Mapping[str, str], function: Callable[..., Any], *arguments: Any
) -> None:
    # A process in the background is born to ignore Ctrl-C, and one under nohup to ignore SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.update(environment)
    for descriptor, name in ((1, "output"), (2, "messages")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    if Path("input").exists():
        sys.stdin = os.fdopen(os.open("input", os.O_RDONLY), encoding="utf-8")
    sys.exit(function(*arguments))


def start(
    folder: Path, function: Callable[..., int | None], *arguments: Any, **environment: str
) -> ForkServerProcess:
    """Call a function in another process.

    Args:
        folder: the process's folder; its files `output` and `messages` get what it prints, and
            `input`, if there is one, is its standard input.
        function: called by its name; returns the exit status, None for 0.
        arguments: of the function.
        environment: variables besides those with which the server was started.
    """
    (folder / "output").unlink(missing_ok=True)
    process = _server().Process(
        target=_work, args=(str(folder), environment, function, *arguments), daemon=True
    )
    with _import_path():
        process.start()
    return process


def status_of(process: ForkServerProcess) -> int | None:
    """Wait for a process; return its exit status, negative for the signal that killed it."""
    process.join(PATIENCE)
    return process.exitcode


def run(folder: Path, function: Callable[..., int | None], *arguments: Any) -> str:
    """Call a function in another process (see `start`), and return what it printed.

    Raises:
        AssertionError: it failed, with its messages.
    """
    assert status_of(start(folder, function, *arguments)) == 0, messages(folder)
    return (folder / "output").read_text(encoding="utf-8")


def run_script(path: str, *arguments: str) -> None:
    """Run a Python file as `python FILE ARGUMENTS` would."""
    sys.argv[:] = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def messages(folder: Path) -> str:
    """Return what the process in a folder wrote to standard error, in one line."""
    return " ".join((folder / "messages").read_text(encoding="utf-8").split())


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fork_imports"])
    return context


@contextmanager
def _import_path() -> Iterator[None]:
    """Let the server, which the first process starts, import what this process can."""
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if path is not None:
            os.environ["PYTHONPATH"] = path
