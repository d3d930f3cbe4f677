"""What becomes of an exception: one message on standard error, and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import typer
from pydantic import ValidationError

from manyheads.errors import ManyheadsError, shorten
from manyheads.training import Stopped

BUG = 70
"""The status of an error that is not the user's (EX_SOFTWARE of sysexits.h)."""

TRACEBACK = "MANYHEADS_TRACEBACK"

# Packages of the extra `train`, which the base install does without.
_TRAIN_PACKAGES = ("torch", "transformers")


class _Terminated(BaseException):
    """SIGTERM came while a command without a way of its own to stop was at work."""


def catching(run: Callable[[], int]) -> int:
    """Run a command and return its status; an exception is told in one message.

    SIGTERM unwinds the command, so that no temporary file stays behind.
    """
    # A process may be started without them; what takes their place lives as long as it does.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    try:
        with _unwound_by_sigterm():
            status = run()
            sys.stdout.flush()
            return status
    except BaseException as error:
        if os.environ.get(TRACEBACK) and not isinstance(error, typer.Exit | SystemExit):
            traceback.print_exc()
        return _status_of(error)


def _status_of(error: BaseException) -> int:
    match error:
        case typer.Exit():
            return error.exit_code
        case ManyheadsError():
            tell("error", str(error))
            return error.exit_status
        case Stopped():
            # Of several processes one alone has something to say.
            if str(error):
                tell("stopped", str(error))
            return error.exit_status
        case typer.TyperException():
            tell("error", _usage(error))
            return 2
        case KeyboardInterrupt():
            tell("stopped", "by Ctrl-C")
            return 128 + signal.SIGINT
        case _Terminated():
            tell("stopped", "by SIGTERM")
            return 128 + signal.SIGTERM
        case BrokenPipeError():
            _discard_output()
            return 128 + 13
        case SystemExit():
            raise error
        case MemoryError():
            tell("error", "there is not enough memory. Use smaller batches or shorter sentences.")
            return 2
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in _TRAIN_PACKAGES:
            tell(
                "error",
                f"this needs the package {error.name}, which is not installed. "
                "Run: pip install 'manyheads[train]'",
            )
            return 2
        case OSError():
            # Those of files that we write say more (`StorageError`); here are all others, such
            # as a full disk behind standard output.
            where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            tell("error", f"{where}{error.strerror or error}")
            _discard_output()
            return 2
    tell(
        "error",
        f"{type(error).__name__}: {error}\nThis is a bug of Manyheads, not of your input. "
        f"To see where it happened, and to report it, set {TRACEBACK}=1 and run again.",
    )
    return BUG


def tell(kind: str, message: str) -> None:
    """Write `kind: message` to standard error, the kind in red on a terminal."""
    from manyheads.cli.report.tables import is_terminal, printable

    text = "\n".join(printable(line) for line in message.splitlines())
    if is_terminal(sys.stderr) and "NO_COLOR" not in os.environ:
        kind = f"\x1b[1;31m{kind}:\x1b[0m"
    else:
        kind = f"{kind}:"
    # Nobody may be there to read it.
    with suppress(OSError, ValueError):
        print(kind, text, file=sys.stderr, flush=True)


def _usage(error: typer.TyperException) -> str:
    """Say what is wrong with the arguments, and where they are explained."""
    name = getattr(error, "option_name", None)
    near = getattr(error, "possibilities", None)
    if name and error.format_message().startswith("No such option"):
        message = f"there is no option {name}"
        if near:
            message += f" (did you mean {near[0]}?)"
    elif isinstance(error, typer.BadParameter) and isinstance(error.__cause__, ValidationError):
        message = _wrong_value(error, error.__cause__)
    else:
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}. See `{context.command_path} --help`." if context else f"{message}."


def _wrong_value(error: typer.BadParameter, cause: ValidationError) -> str:
    """Say in our form what pydantic found wrong with an option's value."""
    problem = cause.errors()[0]
    value = problem["input"]
    expected = problem["msg"].removeprefix("Value error, ").removeprefix(f"{value!r} ")
    expected = expected.removeprefix("Input should be ").removeprefix("is not ").rstrip(".")
    option = error.param.opts[0] if error.param else "a value"
    return f"{option} is {shorten(value)}; expected {expected}"


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _discard_output() -> None:
    """Let what is still to be flushed at exit go nowhere, since nobody reads it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
