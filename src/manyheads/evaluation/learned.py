"""Records that a model is to be scored on, and that it has learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from manyheads.data.own_files import training_records
from manyheads.data.records import Record
from manyheads.errors import DataError, ManyheadsError, counted, option
from manyheads.inference import LoadedModel

_MOST = 200_000
"""The training records that are read at most."""

_FEW = 0.05
"""The share of learned records from which scores are misleading."""

_MANY = 2 / 3
"""The share from which records are taken for those of the training; some texts are frequent."""


def count_learned(
    loaded: LoadedModel, sets: Sequence[tuple[Sequence[Record], Sequence[str]]]
) -> int:
    """Return how many records have a text, or a pair of texts, and a task that the model learned.

    None count where the training data are gone or may not be opened unasked; nor do the data of
    tasks that are carried, and the examples of `add-label`. Of more than 200,000 training records,
    the first are compared.

    Args:
        loaded: the model.
        sets: the records, each set with the tasks that it is scored on.
    """
    tasks = {name for _, names in sets for name in names}
    label_sets = {s.name: s.label_set() for s in loaded.predictor.specs if s.name in tasks}
    wanted = Counter((r.texts, task) for records, _ in sets for r in records for task in r.labels)
    found = set()
    with suppress(ManyheadsError, OSError):  # as far as they can be read
        records = training_records(loaded.config, label_sets, loaded.path)
        for record in islice(records, _MOST):
            found |= wanted.keys() & {(record.texts, task) for task in record.labels}
            if len(found) == len(wanted):
                break
    return sum(
        any((record.texts, task) in found for task in record.labels)
        for records, _ in sets
        for record in records
    )


def note_learned(
    loaded: LoadedModel,
    sets: Sequence[tuple[Sequence[Record], Sequence[str]]],
    note: Callable[[str], None],
) -> None:
    """Say how many of the records the model was trained on, if they are one in twenty or more."""
    learned, total = count_learned(loaded, sets), sum(len(records) for records, _ in sets)
    if learned and learned >= _FEW * total:
        note(f"{_found(learned, total)}, whose answers say little about those for new texts")


def refuse_trained_on(
    loaded: LoadedModel,
    sets: Sequence[tuple[Sequence[Record], Sequence[str]]],
    where: str,
    warn: Callable[[str], None],
) -> None:
    """Refuse records of which the model has learned two thirds or more, and note fewer.

    Raises:
        DataError: it has.
    """
    learned, total = count_learned(loaded, sets), sum(len(records) for records, _ in sets)
    if learned >= _MANY * total:
        validation = " to use the validation data of the run"
        leave_out = ", or leave out " + option("--file", "`data`") + validation
        raise DataError(
            _found(learned, total),
            where=where,
            expected="records that it has not learned from: on others its scores are too high",
            fix=f"Name other records{'' if loaded.config.refit else leave_out}.",
        )
    if learned >= max(1, _FEW * total):
        warn(f"{_found(learned, total)}, whose scores are too high")


def _found(learned: int, total: int) -> str:
    return f"the model was trained on the texts of {learned:,} of the {counted(total, 'record')}"
