"""A part of the labelled records held out for validation, in files of the run.

The choice depends on the records' content and a seed alone. Copies and near copies of a text are on
one side: texts that differ only in case, punctuation, white space or digits.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category, normalize

from manyheads.config import Config, TaskConfig, fields_where, stored_config
from manyheads.data.json_lines import json_line
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
from manyheads.errors import ConfigError, DataError, counted, listing, option
from manyheads.storage import atomic_file, explained

FOLDER = "data"
"""The folder in `save_dir` with both parts."""
TRAIN, VALID = "train.jsonl", "valid.jsonl"

LEAST = 2
"""Records of a label that are held out at least, where it has `ENOUGH` records; one of `ONE_OF`."""
ENOUGH = 10
ONE_OF = 4
MOST = 2000
"""The most records to hold out, apart from those that rare labels need: more are slow to score."""

Labels = frozenset[tuple[str, str]]
"""The labels of a record: tasks with a class or entity type."""


@dataclass(frozen=True)
class Split:
    """Training files of which a part is held out, and the files of both parts."""

    files: tuple[str, ...]
    """Read as one."""
    tasks: tuple[str, ...]
    """The tasks that learn from them."""
    validated: tuple[str, ...]
    """Those of the tasks that are validated on the part that is held out."""
    train: Path
    valid: Path
    valid_file: str | None = None
    """Validation records that are copied to `valid`; then nothing is held out."""

    @property
    def is_written(self) -> bool:
        """Whether both parts are there."""
        return self.train.exists() and self.valid.exists()


@dataclass(frozen=True)
class Parts:
    """How many records both parts of a split have."""

    split: Split
    training: int
    held_out: int


def holding_out(config: Config) -> Config:
    """Return a configuration that holds out validation data where it names training data alone.

    Its `train_file` then stands in `files`. Files of single tasks are left as they are.
    """
    own = (task.train_file or task.valid_file for task in config.tasks.values())
    if config.train_file is None or config.valid_file is not None or any(own):
        return config
    values = config.model_dump(exclude_unset=True, exclude={"train_file"})
    return stored_config({**values, "files": [config.train_file]})


def splits_of(config: Config) -> tuple[Split, ...]:
    """Return the files to split: `files`, or training files of tasks without validation data.

    Raises:
        ConfigError: a task has no training file, or settings of `LAYOUT` are for files of which
            only some are split.
    """
    folder, files = Path(config.save_dir) / FOLDER, config.files
    if files is not None:
        tasks = tuple(config.tasks)
        return (
            Split(files, tasks, tasks, folder / TRAIN, folder / VALID, config.valid_file),
        )  # fmt: skip
    unvalidated = config.unvalidated_tasks
    if not unvalidated:
        return ()
    training = config.train_files()
    splits = tuple(
        Split(
            (path,), names, mine, folder / f"{names[0]}.{TRAIN}", folder / f"{names[0]}.{VALID}"
        )
        for path, names in training.items()
        if (mine := tuple(name for name in names if name in unvalidated))
    )  # fmt: skip
    layout = [name for name in LAYOUT if getattr(config, name)]
    if layout and (len(splits) < len(training) or len(unvalidated) < len(config.tasks)):
        raise ConfigError(
            f"`{layout[0]}` is set, and {listing(unvalidated)} has no validation data while other "
            "tasks have some",
            expected="validation data for every task, or for none: the parts of a file that is "
            "split are written in the standard layout",
            fix=f"Set `tasks.{unvalidated[0]}.valid_file`.",
        )
    for split in splits:
        for name in split.tasks:
            if name not in split.validated and _own_layout(config.tasks[name]):
                raise ConfigError(
                    f"`tasks.{name}.{_own_layout(config.tasks[name])[0]}` is set, and "
                    f"{listing(split.validated)} has no validation data, but learns from the same "
                    "file",
                    expected="validation data for every task of the file, or for none",
                    fix=f"Set `tasks.{split.validated[0]}.valid_file`.",
                )
    return splits


def with_parts(config: Config) -> Config:
    """Return the configuration that reads the parts in place of the files that are split.

    The parts are JSON lines in the standard layout, so the settings of `LAYOUT` are dropped.
    """
    splits = splits_of(config)
    if not splits:
        return config
    replaced = {"files", "hold_out", "hold_out_seed", *LAYOUT}
    values = config.model_dump(exclude_unset=True, exclude=replaced)
    if config.files is not None:
        (split,) = splits
        common = {"train_file": str(split.train), "valid_file": str(split.valid)}
        return stored_config({**values, **common})
    for split in splits:
        if config.train_file in split.files:
            del values["train_file"]
        for name in split.tasks:
            task = values["tasks"][name]
            values["tasks"][name] = {k: v for k, v in task.items() if k not in LAYOUT} | {
                "train_file": str(split.train)
            }
        for name in split.validated:
            values["tasks"][name] |= {"valid_file": str(split.valid)}
    return stored_config(values)


def _own_layout(task: TaskConfig) -> list[str]:
    return [name for name in LAYOUT if getattr(task, name, None) is not None]


LAYOUT = fields_where(Config, lambda setting: setting.layout)
"""The settings that state how files are laid out."""


def write_parts(config: Config, split: Split) -> Parts:
    """Read the files of a split, and write both parts to `save_dir`.

    Raises:
        DataError: a record cannot be read or does not fit its tasks, or there are too few.
        StorageError: the parts cannot be written.
    """
    tasks = {name: config.tasks[name] for name in split.tasks}
    layout = Layout.of(config).reading(tasks)
    keys, labels = _keys_and_labels(split, tasks, layout)
    held: set[int] = set()
    if split.valid_file is None:
        held = hold_out(keys, labels, config.hold_out, config.hold_out_seed)
        if not held or len(held) == len(keys):
            raise _too_few(split, keys, config.hold_out)
    with explained(split.train.parent):
        split.train.parent.mkdir(parents=True, exist_ok=True)
    wanted = wanted_fields(tasks)
    rows = enumerate(rows_of(split.files, layout))
    write_rows(split.train, (row for i, row in rows if i not in held), wanted)
    if split.valid_file is None:
        rows = enumerate(rows_of(split.files, layout))
        count = write_rows(split.valid, (row for i, row in rows if i in held), wanted)
    else:
        count = write_rows(split.valid, rows_of([split.valid_file], layout), wanted)
    return Parts(split, len(keys) - len(held), count)


def are_parts(
    files: Sequence[str],
    train: Path,
    valid: Path,
    tasks: Mapping[str, TaskConfig],
    layout: Layout | None,
) -> bool:
    """Return whether files have the records of written parts, of both or of the training part.

    Args:
        files: the files, read as one.
        train: the training part.
        valid: the validation part.
        tasks: the tasks that learn from them.
        layout: how the files are laid out.

    Raises:
        DataError: a record cannot be read.
    """
    wanted = wanted_fields(tasks)
    layout = (layout or Layout()).reading(tasks)
    found = Counter(hash(_line(row, wanted)) for row in rows_of(files, layout))
    first, second = map(_hashes, (train, valid))
    return found in (first, first + second)


def _hashes(path: Path) -> Counter[int]:
    with explained(path, "read"), path.open("rb") as file:
        return Counter(map(hash, file))


def _keys_and_labels(
    split: Split, tasks: Mapping[str, TaskConfig], layout: Layout | None
) -> tuple[list[str], list[Labels]]:
    """Read the records of a split; return the key that copies of each share, and its labels."""
    parse = RecordParser(tasks, discover_labels(tasks, split.files, layout))
    keys: list[str] = []
    labels: list[Labels] = []
    for row in rows_of(split.files, layout):
        record = parse(row)
        keys.append(text_key(record))
        labels.append(labels_of(record))
    return keys, labels


def _too_few(split: Split, keys: Sequence[str], share: float) -> DataError:
    own = f"`tasks.{split.validated[0]}.valid_file`"
    whole = split.validated == split.tasks
    named = option("--valid-file FILE") if whole else own
    # A label never loses its only record.
    least = next(total for total in range(2, ONE_OF + 1) if _to_hold_out(total, share))
    return DataError(
        f"{counted(len(keys), 'record')} with {counted(len(set(keys)), 'different text')}, "
        "of which none can be held out for validation",
        where=listing(split.files),
        expected=f"a label with at least {least} records, whose texts differ in more than case, "
        "punctuation, white space or digits",
        fix=f"Add records, or name others for validation: {named}.",
    )


def hold_out(
    keys: Sequence[str], labels: Sequence[Labels], share: float, seed: int = 0
) -> set[int]:
    """Choose the records to hold out; records with the same key stay together.

    Labels are processed from the rarest to the most frequent, so that each gets its share (the
    greedy form of Sechidis et al. 2011, "On the stratification of multi-label data"), and none
    loses all of its records.

    Args:
        keys: of each record, the key that copies of it share.
        labels: of each record.
        share: the share to hold out.
        seed: determines which records are chosen.
    """
    share = min(share, MOST / max(1, len(keys)))
    groups: dict[str, list[int]] = defaultdict(list)
    for number, key in enumerate(keys):
        groups[key].append(number)
    totals = Counter(label for mine in labels for label in mine)
    counts = {key: Counter(x for i in mine for x in labels[i]) for key, mine in groups.items()}
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    # Ordered by a hash: random, and independent of the order of the records.
    for key in sorted(groups, key=lambda key: _order(key, seed)):
        for label in counts[key]:
            holders[label].append(key)
    taken: Counter[tuple[str, str]] = Counter()
    chosen: set[str] = set()
    for label in sorted(holders, key=lambda one: (totals[one], one)):
        wanted = _to_hold_out(totals[label], share)
        for key in holders[label]:
            if taken[label] >= wanted:
                break
            mine = counts[key]
            if key in chosen or any(taken[x] + n >= totals[x] for x, n in mine.items()):
                continue
            # A text with many copies would exceed a label's share.
            if taken[label] + mine[label] > max(wanted, 1) and mine[label] > 1:
                continue
            chosen.add(key)
            taken.update(mine)
    return {number for key in chosen for number in groups[key]}


def _to_hold_out(total: int, share: float) -> int:
    """Return how many records are to be held out of a label that has `total`."""
    least = LEAST if total >= ENOUGH else int(total >= ONE_OF)
    return max(least, round(share * total))


def text_key(record: Record) -> str:
    """Return a key that near copies of a text share: its words in lower case, all digits alike."""
    texts = "\n".join(record.texts)
    folded = normalize("NFKC", texts).casefold()
    words = re.sub(r"[^\w\s]|_", _of_word, folded)
    return " ".join(re.sub(r"\d+", "0", words).split()) or texts


def _of_word(found: re.Match[str]) -> str:
    """Return a vowel sign or another mark of a letter, and a space for any other sign."""
    sign = found[0]
    # Variation selectors are marks too, but of symbols.
    is_mark = category(sign) in ("Mn", "Mc") and not "\ufe00" <= sign <= "\ufe0f"
    return sign if is_mark else " "


def labels_of(record: Record) -> Labels:
    """Return a record's labels, with an empty name for one without a name, such as a number."""
    return frozenset(
        (task, name)
        for task, label in record.labels.items()
        for name in (label_names(label) or [""])
    )


def _order(key: str, seed: int) -> bytes:
    drawn = f"{seed}\n{key}" if seed else key
    return hashlib.sha256(drawn.encode(errors="surrogatepass")).digest()


def rows_of(files: Iterable[str], layout: Layout | None) -> Iterator[Row]:
    """Yield the rows of files, read as one."""
    for path in files:
        yield from read_rows(path, layout=layout)


def wanted_fields(tasks: Mapping[str, TaskConfig]) -> set[str]:
    """Return the fields that written records keep: those of texts and of the tasks' labels."""
    labels = (field for task in tasks.items() for field in label_fields(*task))
    return {*TEXT_FIELDS, SECOND_TEXT, *labels}


def write_rows(path: Path, rows: Iterable[Row], wanted: set[str]) -> int:
    """Write the wanted fields of rows as JSON lines, and return the number of rows.

    Raises:
        StorageError: the file cannot be written.
    """
    count = 0
    with atomic_file(path) as file:
        for row in rows:
            file.write(_line(row, wanted))
            count += 1
    return count


def _line(row: Row, wanted: set[str]) -> bytes:
    fields = {k: v for k, v in row.fields.items() if k in wanted and v is not None}
    return json_line(fields, row.where)
