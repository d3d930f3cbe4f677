"""A part of the labelled records held out for validation, in files of the run.

What is held out depends on the records' content and a seed alone. Copies and near copies of a text
are on one side: texts that differ in case, punctuation, white space or digits alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from manyheads.config import Config, make_config
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records import (
    SECOND_TEXT,
    TEXT_FIELDS,
    Record,
    RecordParser,
    discover_labels,
    label_fields,
    label_names,
)
from manyheads.errors import DataError, counted, listing
from manyheads.storage import atomic_file, explained

FOLDER = "data"
"""The folder in `save_dir` with both parts."""
TRAIN, VALID = "train.jsonl", "valid.jsonl"

LEAST = 2
"""Records of a label that are held out at least, where it has `ENOUGH` records; one of four."""
ENOUGH = 10
MOST = 2000
"""Records that are held out at most, beside those that rare labels need: more are slow to score."""

Labels = frozenset[tuple[str, str]]
"""The labels of a record: tasks with a class or entity type."""


@dataclass(frozen=True)
class Parts:
    """The files of both parts, and how many records they have."""

    train: Path
    valid: Path
    training: int
    held_out: int


def holding_out(config: Config) -> Config:
    """Return a configuration that holds out validation data where it names training data alone.

    Its `train_file` then stands in `files`. Tasks with files of their own are left as they are.
    """
    own = (task.train_file or task.valid_file for task in config.tasks.values())
    if config.train_file is None or config.valid_file is not None or any(own):
        return config
    values = config.model_dump(exclude_unset=True, exclude={"train_file"})
    return make_config({**values, "files": [config.train_file]})


def with_parts(config: Config) -> Config:
    """Return the configuration that reads the parts in place of `files`.

    The parts are JSON lines of our own, so how the files are laid out no longer matters.
    """
    if config.files is None:
        return config
    train_file, valid_file = parts_of(config)
    replaced = {"files", "hold_out", "hold_out_seed", *LAYOUT}
    values = config.model_dump(exclude_unset=True, exclude=replaced)
    return make_config({**values, "train_file": str(train_file), "valid_file": str(valid_file)})


def parts_of(config: Config) -> tuple[Path, Path]:
    """Return the files of a run's training and validation data, where it has `files`."""
    folder = Path(config.save_dir) / FOLDER
    return folder / TRAIN, folder / VALID


LAYOUT = ("format", "text_field", "text2_field", "tokens_field", "map", "label_separator")
"""The settings that state how files are laid out."""


def write_parts(config: Config) -> Parts:
    """Read the files of a configuration, and write both parts to `save_dir`.

    With `valid_file`, all of `files` is for training.

    Raises:
        DataError: a record cannot be read or does not fit its tasks, or there are too few.
        StorageError: the parts cannot be written.
    """
    files = config.files or ()
    layout = Layout.of(config)
    label_sets = discover_labels(config.tasks, files, layout)
    parse = RecordParser(config.tasks, label_sets)
    keys: list[str] = []
    labels: list[Labels] = []
    for row in _rows(files, layout):
        record = parse(row)
        keys.append(text_key(record))
        labels.append(labels_of(record))
    held: set[int] = set()
    if config.valid_file is None:
        held = hold_out(keys, labels, config.hold_out, config.hold_out_seed)
        if not held or len(held) == len(keys):
            raise DataError(
                f"{counted(len(keys), 'record')} with {counted(len(set(keys)), 'different text')}, "
                "of which none can be held out for validation",
                where=listing(files),
                expected="at least two texts for each label that differ in more than case, "
                "punctuation, white space or digits",
                fix="Add records, or name others for validation: --valid-file FILE.",
            )
    train_file, valid_file = parts_of(config)
    with explained(train_file.parent):
        train_file.parent.mkdir(parents=True, exist_ok=True)
    wanted = {*TEXT_FIELDS, SECOND_TEXT}
    wanted.update(field for task in config.tasks.items() for field in label_fields(*task))
    _write(train_file, (r for i, r in enumerate(_rows(files, layout)) if i not in held), wanted)
    if config.valid_file is None:
        held_out = (row for i, row in enumerate(_rows(files, layout)) if i in held)
        count = _write(valid_file, held_out, wanted)
    else:
        count = _write(valid_file, _rows([config.valid_file], layout), wanted)
    return Parts(train_file, valid_file, len(keys) - len(held), count)


def hold_out(
    keys: Sequence[str], labels: Sequence[Labels], share: float, seed: int = 0
) -> set[int]:
    """Choose the records to hold out; all of the same key are on one side.

    Labels are served from the rarest to the most frequent, so that each has its share (the greedy
    form of Sechidis et al. 2011, "On the stratification of multi-label data"), and none loses all
    of its records.

    Args:
        keys: of each record, what copies of it share.
        labels: of each record.
        share: the share to hold out.
        seed: which of the records are taken.
    """
    share = min(share, MOST / max(1, len(keys)))
    groups: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key].append(number)
    totals = Counter(label for mine in labels for label in mine)
    counts = {key: Counter(x for i in mine for x in labels[i]) for key, mine in groups.items()}
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    # The order of a hash: as good as drawn, and the same however the records are ordered.
    for key in sorted(groups, key=lambda key: _order(key, seed)):
        for label in counts[key]:
            holders[label].append(key)
    taken: Counter[tuple[str, str]] = Counter()
    chosen: set[str] = set()
    for label in sorted(holders, key=lambda one: (totals[one], one)):
        total = totals[label]
        least = LEAST if total >= ENOUGH else int(total >= 4)
        wanted = max(least, round(share * total))
        for key in holders[label]:
            if taken[label] >= wanted:
                break
            mine = counts[key]
            if key in chosen or any(taken[x] + n >= totals[x] for x, n in mine.items()):
                continue
            # A text with many copies would take more than a label's share.
            if taken[label] + mine[label] > max(wanted, 1) and mine[label] > 1:
                continue
            chosen.add(key)
            taken.update(mine)
    return {number for key in chosen for number in groups[key]}


def text_key(record: Record) -> str:
    """Return what near copies of a text have in common: its words in lower case, digits as one."""
    texts = "\n".join(record.texts)
    folded = normalize("NFKC", texts).casefold()
    key = " ".join(re.sub(r"\d+", "0", re.sub(r"[^\w\n]|_", " ", folded)).split())
    return key or texts


def labels_of(record: Record) -> Labels:
    """Return a record's labels; of a task without a name for it, such as a number, an empty one."""
    return frozenset(
        (task, name)
        for task, label in record.labels.items()
        for name in (label_names(label) or [""])
    )


def _order(key: str, seed: int) -> bytes:
    drawn = f"{seed}\n{key}" if seed else key
    return hashlib.sha256(drawn.encode(errors="surrogatepass")).digest()


def _rows(files: Sequence[str], layout: Layout | None) -> Iterator[Row]:
    for path in files:
        yield from read_rows(path, layout=layout)


def _write(path: Path, rows: Iterator[Row], wanted: set[str]) -> int:
    count = 0
    with atomic_file(path) as file:
        for row in rows:
            fields = {k: v for k, v in row.fields.items() if k in wanted and v is not None}
            file.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count
