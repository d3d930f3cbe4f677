"""Running `manyheads` in a process of its own, or some Python."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Run = Callable[..., SimpleNamespace]
"""The fixture `run`: takes the arguments of a command line; returns `status`, `out` and `err`."""
Give = Callable[[bytes], None]
"""The fixture `stdin`: takes what comes on standard input."""


def python(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own.

    Args:
        script: its text, which may be indented.
        arguments: its arguments.
        options: those of `subprocess.run`; by default there is no input, and output is captured.
    """
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if "input" not in options:
        streams["stdin"] = subprocess.DEVNULL
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        encoding="utf-8", timeout=600, check=False, **{**streams, **options},
    )  # fmt: skip
