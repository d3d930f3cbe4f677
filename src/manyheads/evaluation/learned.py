"""Records that a model is to be scored on, and that it has learned from."""

from __future__ import annotations

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


def count_learned(
    loaded: LoadedModel, sets: Sequence[tuple[Sequence[Record], Sequence[str]]]
) -> int:
    """Return how many records have a text, or a pair of texts, that the model was trained on.

    None count where the training data are gone or may not be opened unasked. Of more than 200,000
    training records, the first are compared.

    Args:
        loaded: the model.
        sets: the records, each set with the tasks that it is scored on.
    """
    tasks = {name for _, names in sets for name in names}
    label_sets = {s.name: s.label_set() for s in loaded.predictor.specs if s.name in tasks}
    wanted = {record.texts for records, _ in sets for record in records}
    found = set()
    with suppress(ManyheadsError, OSError):  # as far as they can be read
        records = training_records(loaded.config, label_sets, loaded.path)
        for record in islice(records, _MOST):
            if record.texts in wanted:
                found.add(record.texts)
    return sum(record.texts in found for records, _ in sets for record in records)


def note_learned(
    loaded: LoadedModel,
    sets: Sequence[tuple[Sequence[Record], Sequence[str]]],
    note: Callable[[str], None],
) -> tuple[int, int]:
    """Say how many of the records the model was trained on, if they are one in twenty or more.

    Returns:
        their number, and that of all records.
    """
    learned, total = count_learned(loaded, sets), sum(len(records) for records, _ in sets)
    if learned and learned >= _FEW * total:
        note(
            f"the model was trained on the texts of {learned:,} of the {counted(total, 'record')}, "
            "whose answers say little about those for new texts"
        )
    return learned, total


def refuse_trained_on(
    loaded: LoadedModel,
    sets: Sequence[tuple[Sequence[Record], Sequence[str]]],
    where: str,
    warn: Callable[[str], None],
) -> None:
    """Refuse records of which the model has learned half or more, and note fewer.

    Raises:
        DataError: it has.
    """
    learned, total = note_learned(loaded, sets, warn)
    if 2 * learned >= total:
        raise DataError(
            "at least half of the records are those that the model was trained on",
            where=where,
            expected="records that it has not learned from: on others its scores are too high",
            fix="Name other records, or leave out "
            + option("--file", "`data`")
            + " to use the validation data of the run.",
        )
