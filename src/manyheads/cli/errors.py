"""Exceptions turned into one message on standard error and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

import typer
from pydantic import ValidationError

from manyheads.errors import ManyheadsError, install, shorten, worded_for_command
from manyheads.training import STOPPING, Stopped, is_ignored

BUG = 70
"""The status of an error that is not the user's (EX_SOFTWARE of sysexits.h)."""

TRACEBACK = "MANYHEADS_TRACEBACK"

_NO_MEMORY = (
    "there is not enough memory. Use smaller batches (--batch-tokens; in training --batch-size), "
    "or train on shorter sentences (--max-length)."
)

# Packages of the extra `train`, which the base install does without.
_TRAIN_PACKAGES = ("torch", "transformers")


class _Terminated(BaseException):
    """SIGTERM or SIGHUP was received by a command that has no handler of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def catching(run: Callable[[], int]) -> int:
    """Run a command and return its status; an exception becomes one message.

    SIGTERM and SIGHUP unwind the command, so that no temporary file stays behind.
    """
    # A process may be started without them; the substitutes stay open until it ends.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Finished work does not fail for a path that cannot be shown; a notebook's streams can.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with worded_for_command(), _unwound_by_signals():
            status = run()
            sys.stdout.flush()
            return status
    except BaseException as error:
        if os.environ.get(TRACEBACK) and not isinstance(error, typer.Exit | SystemExit):
            traceback.print_exc()
        return _status_of(_interruption(error) or error)


def _status_of(error: BaseException) -> int:
    match error:
        case typer.Exit():
            return error.exit_code
        case ManyheadsError():
            tell("error", str(error))
            return error.exit_status
        case Stopped():
            # Of several processes, only one has a message.
            if str(error):
                tell("stopped", str(error))
            return error.exit_status
        case typer.TyperException():
            tell("error", _usage(error))
            return 2
        case KeyboardInterrupt():
            _tell_stopped("Ctrl-C")
            return 128 + signal.SIGINT
        case _Terminated():
            _tell_stopped(signal.Signals(error.number).name)
            return 128 + error.number
        case BrokenPipeError():
            _discard_output()
            return 128 + 13
        case SystemExit():
            raise error
        case MemoryError():
            tell("error", _NO_MEMORY)
            return 2
        case RuntimeError() if _is_out_of_memory(error):
            tell("error", _NO_MEMORY)
            return 2
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in _TRAIN_PACKAGES:
            tell(
                "error",
                f"this needs the package {error.name}, which is not installed. {install('train')}",
            )
            return 2
        case OSError():
            # Errors of files that we write are `StorageError`s; these are all others, such as a
            # full disk behind standard output.
            found, fix = error.strerror or str(error), ""
            if error.filename is not None:
                found = f"{os.fsdecode(error.filename)}: {found}"
            elif error.errno in (errno.ENOSPC, errno.EDQUOT):
                found = "standard output: cannot be written: the disk is full"
                fix = ". Free some space, or write to another place."
            tell("error", found + fix)
            _discard_output()
            return 2
    tell(
        "error",
        f"{type(error).__name__}: {error}\nThis is a bug of Manyheads, not of your input. "
        f"To see where it happened, and to report it, set {TRACEBACK}=1 and run again.",
    )
    return BUG


def _interruption(error: BaseException) -> BaseException | None:
    """Return the interruption that an error followed from, such as an import that it broke.

    Errors that the user has to know of, such as a full disk, stay what they are.
    """
    is_told = not isinstance(error, Exception) or isinstance(error, ManyheadsError | OSError)
    found: BaseException | None = None if is_told else error
    while found is not None and not isinstance(found, KeyboardInterrupt | _Terminated):
        found = found.__context__
    return found


def _tell_stopped(by: str) -> None:
    """Write what stopped the command to standard error.

    Nothing is imported: the interruption may have broken an import of the same packages, and
    NumPy cannot be loaded a second time.
    """
    with suppress(OSError, ValueError):
        print(f"stopped: by {by}", file=sys.stderr, flush=True)


def tell(kind: str, message: str) -> None:
    """Write `kind: message` to standard error, the kind in red on a terminal."""
    from manyheads.display.tables import is_terminal, printable

    text = "\n".join(printable(line) for line in message.splitlines())
    if is_terminal(sys.stderr) and "NO_COLOR" not in os.environ:
        kind = f"\x1b[1;31m{kind}:\x1b[0m"
    else:
        kind = f"{kind}:"
    # The reader may be gone.
    with suppress(OSError, ValueError):
        print(kind, text, file=sys.stderr, flush=True)


def _usage(error: typer.TyperException) -> str:
    """Return what is wrong with the arguments, and where they are explained."""
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
    """Return in our form what pydantic found wrong with an option's value."""
    problem = cause.errors()[0]
    value = problem["input"]
    expected = problem["msg"].removeprefix("Value error, ").removeprefix(f"{value!r} ")
    expected = expected.removeprefix("Input should be ").removeprefix("is not ").rstrip(".")
    option = error.param.opts[0] if error.param else "a value"
    return f"{option} is {shorten(value)}; expected {expected}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch could not allocate memory, of the processor or of a GPU."""
    return "can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: FrameType | None) -> None:
        # A second signal does not wait, nor does one in a program that is profiled.
        if (importing := _outermost_import(frame)) is None or sys.getprofile() is not None:
            raise _Terminated(number)

        def profile(frame: FrameType, event: str, arg: object) -> None:
            if frame is importing and event == "return":
                sys.setprofile(None)
                raise _Terminated(number)

        sys.setprofile(profile)

    numbers = [number for number in STOPPING if number != signal.SIGINT and not is_ignored(number)]
    previous = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _outermost_import(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the import that a command is in, if any.

    Inside of it, packages could take an exception for a dependency that is missing, and go on
    without, or print it; so the command is unwound when the import ends.
    """
    found = None
    while frame is not None and frame.f_code is not catching.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            found = frame
        frame = frame.f_back
    return found


def _discard_output() -> None:
    """Discard what would be flushed at exit, since its reader is gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
