"""Types that readers share: sources, layouts and rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manyheads.config import Config, TaskConfig
from manyheads.errors import ConfigError, DataError, at, counted, listing
from manyheads.tasks import kind_of

MAX_RECORD_BYTES = 16 * 2**20
"""The largest record that is read. Python objects take up to about forty times the bytes that they
are read from, so this limits memory to several hundred megabytes, whatever a file holds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it is in its file: fields by name, not yet validated.

    `line` is its first line, or its number if the format has no lines (`unit` says which);
    `record` is its number if it has both.
    """

    source: str
    line: int
    unit: str
    fields: Mapping[str, Any]
    record: int | None = None

    @property
    def where(self) -> str:
        """The row's place, for messages."""
        place = at(self.source, self.line, self.unit)
        return place if self.record is None else f"{place} (record {self.record})"


@dataclass(frozen=True, slots=True)
class Layout:
    """How files are laid out, as far as the user states it."""

    format: str | None = None
    """A name from `FORMATS`; by default the file's content and ending decide."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Fields or columns of the file, each with the field that it is read as. Columns of a table
    without a header are named by their numbers, from 1."""
    separator: str | None = None
    """The separator of several labels in a cell of a table's `labels` column."""
    role_separator: str | None = None
    """What joins an entity's type with its role and group; None: these are not read."""

    own: Mapping[str, Layout] = field(default_factory=dict)
    """The layouts of files that differ, by path."""
    lists: frozenset[str] = frozenset()
    """Fields, by the names that they are read as, in which a tool's lists of classes stay lists in
    a file where no text has several classes (see `one_or_many`)."""

    @classmethod
    def of(cls, config: Config) -> Layout:
        """Return the layout of a configuration's data files.

        Raises:
            ConfigError: two fields are read as one, one as two, or one file in two ways.
        """
        fields = _common_names(config)
        common = cls(config.format, fields, config.label_separator, config.role_separator)
        layouts: dict[str | None, tuple[str, Layout]] = {}
        for path in (config.train_file, config.valid_file):
            layouts[path] = "the common options", common
        for name, task in config.tasks.items():
            names = common.names
            if task.map is not None:
                names = _distinct(task.map.items(), f"`tasks.{name}.map`")
            separator = task.label_separator or common.separator
            roles = task.role_separator or common.role_separator
            layout = cls(task.format or common.format, names, separator, roles)
            for path in (task.train_file, task.valid_file):
                other, known = layouts.setdefault(path, (f"task {name!r}", layout))
                if path is not None and known != layout:
                    raise ConfigError(
                        f"{path} has one layout by the options of task {name!r}, and another by "
                        f"{other}",
                        expected="one layout for each file",
                        fix="Give all tasks of a file the same `format`, `map`, "
                        "`label_separator` and `role_separator`.",
                    )
        own = {
            path: layout
            for path, (_, layout) in layouts.items()
            if path is not None and layout != common
        }
        return replace(common, own=own)

    def reading(self, tasks: Mapping[str, TaskConfig]) -> Layout:
        """Return the layout for some tasks: lists stay lists where these read lists alone."""
        read = {field for task in tasks.values() for field in task.fields}
        several, single = (self.names.get(name, name) for name in ("labels", "label"))
        lists = {
            field
            for task in tasks.values()
            for field in task.fields
            if field == several or "labels" in kind_of(task.kind).fields
        }
        if single in read:
            lists.discard(several)
        own = {path: layout.reading(tasks) for path, layout in self.own.items()}
        return replace(self, own=own, lists=self.lists | lists)

    def keeps_lists(self, name: str) -> bool:
        """Return whether lists of classes stay lists in a field of the file (see `lists`)."""
        return self.names.get(name, name) in self.lists

    def theirs(self, name: str) -> str:
        """Return the file's own name of a field that is read as `name`."""
        return next((theirs for theirs, ours in self.names.items() if ours == name), name)

    def settings(self) -> dict[str, Any]:
        """Return what is stated as settings of a configuration or a task."""
        names = dict(self.names)
        stated = {
            "format": self.format, "map": names, "label_separator": self.separator,
            "role_separator": self.role_separator,
        }  # fmt: skip
        return {name: value for name, value in stated.items() if value}

    def of_file(self, path: str) -> Layout:
        """Return the layout of one file."""
        return self.own.get(path, self)

    @property
    def numbered(self) -> bool:
        """Whether columns are named by number, which means that tables have no header."""
        return any(name.isdecimal() for name in self.names)

    def header(self, names: Sequence[str], where: str) -> list[str]:
        """Rename the columns of a table; a column whose name another one takes is not read.

        Raises:
            DataError: a column that the user names is not there.
        """
        given = [*map(str, range(1, len(names) + 1))] if self.numbered else list(names)
        for name in self.names:
            if name not in given:
                shown = (
                    counted(len(names), "column")
                    if self.numbered
                    else f"the columns {listing(names)}"
                )
                raise DataError(
                    f"there is no column {name!r}, only {shown}",
                    where=where,
                    expected="the columns that the options name",
                    fix="Name columns as in the header, or by number if there is none.",
                )
        taken = set(self.names.values())
        return [
            self.names.get(number, f"{name} (replaced)" if name in taken else name)
            for number, name in zip(given, names, strict=True)
        ]

    def renamed(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rename the fields of one record."""
        if not self.names:
            return fields
        mapped = {new: fields[old] for old, new in self.names.items() if old in fields}
        rest = {k: v for k, v in fields.items() if k not in self.names and k not in mapped}
        return mapped | rest


def _common_names(config: Config) -> dict[str, str]:
    single = {"text": config.text_field, "text2": config.text2_field, "tokens": config.tokens_field}
    fields = [(theirs, ours) for ours, theirs in single.items() if theirs is not None]
    options = "`text_field`, `text2_field`, `tokens_field` or `map`"
    return _distinct([*fields, *config.map.items()], options)


def _distinct(fields: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """Return what each field is read as, from pairs of names.

    Raises:
        ConfigError: two fields are read as one, or one as two.
    """
    names: dict[str, str] = {}
    for theirs, ours in fields:
        if theirs in names or ours in names.values():
            raise ConfigError(
                f"the field {theirs!r} is to be read as {ours!r}, but "
                + (f"also as {names[theirs]!r}" if theirs in names else "so is another"),
                expected="one field for each name, and one name for each field",
                fix=f"Correct {option}.",
            )
        names[theirs] = ours
    return names


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read, and how to handle records that cannot be read."""

    path: Path
    name: str
    """The path as the user wrote it."""
    limit: int = MAX_RECORD_BYTES
    on_error: Callable[[DataError], None] | None = None
    layout: Layout = field(default_factory=Layout)
    split: str | None = None
    """The part of the file to read, for formats that keep several splits in one file."""
    legacy_encoding: str | None = None
    """The encoding of lines that are not UTF-8, if a format is known to use one."""
    unread: Counter[str] = field(default_factory=Counter)
    """The counts of contents that the reader passed over, by kind."""
    needs_labels: bool = True
    """Whether records are passed over or refused for their labels; predictions need the texts."""
    keeps_empty_rows: bool = False
    """Whether a row of a table without any value is a record too, so that every row is answered."""

    def refuse(self, error: DataError) -> None:
        """Report the error of one record if the others can still be read.

        Raises:
            DataError: the error, if no callback takes it.
        """
        if self.on_error is None:
            raise error
        self.on_error(error)

    def attempt(
        self, place: Row, fields: Callable[..., Mapping[str, Any]], *arguments: object
    ) -> Iterator[Row]:
        """Yield a row with the fields that a function returns, or refuse it if the function fails.

        Args:
            place: the row's place; its own fields are not used.
            fields: the function, which raises `DataError` for a broken record.
            *arguments: what it is called with.
        """
        try:
            found = fields(*arguments)
        except DataError as error:
            self.refuse(error)
        else:
            yield Row(place.source, place.line, place.unit, found, place.record)

    def quiet(self) -> Source:
        """Return the source for a first pass, whose errors and counts are discarded."""
        return replace(self, on_error=lambda error: None, unread=Counter())

    def pass_over(self, what: str, count: int = 1) -> None:
        """Count content that is not read, such as `records whose answer is "ignore"`."""
        if count:
            self.unread[what] += count

    def too_large(self, line: int) -> DataError:
        """Make the error for a record beyond the limit."""
        return DataError(
            f"a record of more than {self.limit:,} bytes begins here",
            where=at(self.name, line),
            expected="a sentence and its labels",
            fix="Look for a missing line break, quote or bracket, or split the record.",
        )
