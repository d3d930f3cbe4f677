"""Predictions of a whole file, written so that a killed run can continue where it stopped.

Results go to `OUTPUT.partial`. Every few seconds they are flushed to disk, and then a record beside
them, `OUTPUT.partial.json`, states the model, the input and the number of texts. At the end the
file is renamed in one step. `OUTPUT` is therefore complete or absent, and a continued run repeats
at most a few seconds of work. Memory is constant for inputs of any length.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from manyheads.errors import DataError, RequestError, option
from manyheads.storage import (
    BEST,
    LAYOUT,
    StrPath,
    explained,
    is_same,
    open_locked,
    read_json,
    sha256_file,
    sync_folder,
    write_json,
)
from manyheads.tasks import Prediction

SYNC_SECONDS = 5.0
"""The most work that is lost when a run is killed."""

T = TypeVar("T")
"""An input: a text, or a text with other fields of its record."""

Predict = Callable[[Iterable[T]], Iterator[Prediction | None]]
"""Predicts for texts in order; None for a text that the output leaves out."""
Show = Callable[[Prediction, bool], bytes]
"""Turns a prediction into bytes of the output; also takes whether it is the first of the file."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run."""

    texts: int = 0
    size: int = 0
    """Bytes of the partial file that hold their results."""
    complete: bool = False


def partial_path(output: StrPath) -> Path:
    """Return the path of the results until all are written."""
    target = Path(os.path.realpath(output))
    return target.with_name(f"{target.name}.partial")


def can_continue(output: StrPath) -> bool:
    """Return whether an output is an ordinary file or missing, not a pipe or device."""
    target = Path(os.path.realpath(output))
    return target.is_file() or not target.exists()


def describe_run(model: StrPath, source: str, **options: Any) -> dict[str, Any]:
    """Describe a run, so that it is continued only with the same model, input and options.

    Args:
        model: the model folder, run folder (its best model) or checkpoint.
        source: the input file, or the name of a data set.
        options: everything else that the output depends on, as JSON values.
    """
    path = Path(model)
    manifests = [path / LAYOUT.manifest, path / BEST / LAYOUT.manifest]
    manifest = next((file for file in manifests if file.is_file()), None)
    return {
        "model": _stamp(path) if manifest is None else sha256_file(manifest),
        "input": source,
        "input_stamp": _stamp(Path(source)),
        "options": options,
    }


def write_predictions(
    output: StrPath,
    texts: Iterable[T],
    predict: Predict[T],
    show: Show,
    *,
    run: Mapping[str, Any],
    resume: bool = False,
    started: Callable[[int | None], None] = lambda done: None,
    sync_seconds: float = SYNC_SECONDS,
) -> int:
    """Predict for texts and write the results to a file.

    Args:
        output: the file, which appears when it is complete.
        texts: all texts of the input, from the first, even if a run is continued.
        predict: predicts for texts in order (see `Predict`).
        show: turns a prediction into bytes.
        run: the description by `describe_run`.
        resume: continue where a stopped run ended, or start if there was none. Otherwise the
            files of a stopped run are replaced.
        started: called with the number of texts that are done already; None if no run was stopped.
        sync_seconds: how often results are flushed to disk.

    Returns:
        the number of texts that the file has results for.

    Raises:
        RequestError: the stopped run had another model, input or options, or another process is
            writing the output.
        ManyheadsError: a text is invalid; then nothing is left behind.
        StorageError: the file cannot be written.
    """
    target = Path(os.path.realpath(output))
    partial = partial_path(output)
    record = partial.with_name(f"{partial.name}.json")
    _left_behind(partial, record)  # refuses the files of other programs before one is opened
    with _locked(partial, output) as file:
        # Read under the lock: before, another process may still have been writing.
        left = _left_behind(partial, record)
        done = _progress(left, run, record) if resume and left else Progress()
        size = _size(partial)
        if done.complete and not size and _size(target) == done.size > 0:
            # It was killed between its last two steps.
            started(done.texts)
            record.unlink()
            return done.texts
        if size < done.size:
            done = Progress()
        with explained(output):
            file.truncate(done.size)
        started(None if left is None else done.texts)

        def save(done: Progress) -> None:
            _save(file, record, run, done)

        # Before the first byte, so that what is there is never taken for another run's.
        save(done)
        try:
            lines = _lines(texts, predict, show, done)
            done = _write(file, lines, output, done, save, sync_seconds)
        except (DataError, RequestError):
            # The input is at fault. It will be another one, so nothing is left to continue. The
            # partial file is emptied first and removed last: no other process can have it before
            # the record is gone, and a record without results does not matter.
            with explained(output):
                file.truncate(0)
            record.unlink()
            raise
        save(replace(done, complete=True))
        with explained(output):
            partial.replace(target)
            sync_folder(target.parent)
            record.unlink()
    return done.texts


def _lines(texts: Iterable[T], predict: Predict[T], show: Show, done: Progress) -> Iterator[bytes]:
    """Yield the results of the texts that are not done; b"" for one that is left out."""
    is_first = not done.size
    for prediction in predict(islice(iter(texts), done.texts, None)):
        line = b"" if prediction is None else show(prediction, is_first)
        is_first = is_first and not line
        yield line


def _write(
    file: BinaryIO,
    lines: Iterable[bytes],
    output: StrPath,
    done: Progress,
    save: Callable[[Progress], None],
    sync_seconds: float,
) -> Progress:
    """Write results, saving the progress every so often; return how far they go."""
    synced = time.monotonic()
    for line in lines:
        with explained(output):
            file.write(line)
        done = Progress(done.texts + 1, done.size + len(line))
        if time.monotonic() - synced >= sync_seconds:
            save(done)
            synced = time.monotonic()
    return done


def _left_behind(partial: Path, record: Path) -> Mapping[str, Any] | None:
    """Return the record of a stopped run, or None if there is none.

    Raises:
        RequestError: one of the two files is not a stopped run's.
        StorageError: one of the two is not a file.
    """
    found, where = "no stopped run left it", partial
    if not partial.is_symlink() and (partial.is_file() or not partial.exists()):
        if not os.path.lexists(record):
            if _size(partial) == 0:
                return None
        else:
            found, where = "does not record the progress of a run", record
            values = None if record.is_symlink() else read_json(record)
            kinds = (("texts", int), ("bytes", int), ("run", dict))
            if isinstance(values, dict) and all(type(values.get(k)) is kind for k, kind in kinds):
                return values
    raise RequestError(
        found,
        expected="a file that a stopped run left, or none",
        fix=f"Remove it, or choose another {option('--output')}.",
        where=os.fspath(where),
    )


def _progress(left: Mapping[str, Any], run: Mapping[str, Any], record: Path) -> Progress:
    """Return the progress of a stopped run.

    Raises:
        RequestError: it was another run.
    """
    named = {"model": "another model", "input": "another input", "input_stamp": "an input that "
             "has changed since", "options": "other options"}  # fmt: skip
    for key, what in named.items():
        if left["run"].get(key) != run.get(key):
            raise RequestError(
                f"the stopped run had {what}",
                expected="the same model, input and options as before",
                fix=f"Run again without {option('--resume')}, which starts anew.",
                where=os.fspath(record),
            )
    return Progress(left["texts"], left["bytes"], bool(left.get("complete")))


def _save(file: BinaryIO, record: Path, run: Mapping[str, Any], done: Progress) -> None:
    """Flush results to disk, and only then record them."""
    with explained(record):
        file.flush()
        os.fsync(file.fileno())
    write_json(
        record,
        {"texts": done.texts, "bytes": done.size, "complete": done.complete, "run": dict(run)},
    )


@contextmanager
def _locked(partial: Path, output: StrPath) -> Iterator[BinaryIO]:
    """Open the partial file under a lock, to append to it.

    If it is empty at the end, it is removed: it was made by opening it, or holds no result.

    Raises:
        RequestError: another process is writing the output.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with explained(output):
        try:
            file = os.fdopen(open_locked(partial, flags, required=False), "ab")
        except BlockingIOError:
            raise _in_use(partial) from None
    try:
        _refuse_unfinished(output)
        yield file
    finally:
        # After a full disk, closing would try to write again.
        with suppress(OSError):
            if not os.fstat(file.fileno()).st_size and is_same(file.fileno(), partial):
                partial.unlink()
            file.close()


def _refuse_unfinished(output: StrPath) -> None:
    """Refuse an output whose writer has renamed it and not yet removed its record.

    Raises:
        RequestError: it is such an output.
    """
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(open_locked(Path(os.path.realpath(output)), flags, required=False))
    except BlockingIOError:
        raise _in_use(Path(output)) from None
    except OSError:  # missing, or not readable
        return


def _in_use(path: Path) -> RequestError:
    return RequestError(
        "another process is writing it",
        expected="one process for an output",
        fix=f"Wait for it, or choose another {option('--output')}.",
        where=os.fspath(path),
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _stamp(path: Path) -> list[Any] | None:
    """Return size and time of a file, or of each file of a folder; None for a data set's name."""
    try:
        status = path.stat()
        if path.is_dir():
            return [[file.name, *(_stamp(file) or ())] for file in sorted(path.iterdir())
                    if not file.is_dir()]  # fmt: skip
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]
