"""CoNLL columns: a token a line, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines, words_of
from manyheads.errors import DataError, at, counted, listing, option, shorten
from manyheads.tasks import OUTSIDE, is_prefixed

_DOCUMENT = "-DOCSTART-"
_FIX = "Separate token and tag by a tab, sentences by a blank line; begin comments with `# `."
_NO_TABS = "Remove the tabs at the ends of the lines."
_NAMES = "# global.columns ="
"""The start of a comment that names the columns, as in CoNLL-U Plus."""
_SAMPLE = 2000
_SAMPLE_SIZE = 2**20
"""Tokens, and their characters, by which the columns are recognised."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How a file separates its columns, and their names."""

    tabs: bool
    names: tuple[str, ...]
    has_index: bool = False
    """Whether the first column counts the tokens."""

    def cells(self, line: str) -> list[str]:
        """Split a line into its cells."""
        return _split(line, self.tabs)


def read_conll(source: Source) -> Iterator[Row]:
    """Yield a row for each sentence: `tokens`, `ner` (the last column), and `col2`, `col3`...

    Columns are separated by tabs, or by spaces and tabs if the first token's line has no tab. The
    layout or a `# global.columns = ...` line may name them. A first column that numbers the tokens
    is left out, and one of tags before a column of words is `ner`. `-DOCSTART-` lines separate
    documents. A comment is `#` or `# ...` before the first token of a sentence, with another number
    of columns than a token: a token may itself be `#`.
    """
    columns = _find_columns(source)
    sentence: list[list[str]] = []
    first, size, broken = 0, 0, False
    for number, line in enumerate(chain(read_lines(source), ("",)), 1):
        if isinstance(line, str) and _is_border(line):
            if sentence and not broken:
                try:
                    yield Row(source.name, first, "line", _fields(sentence, columns, source, first))
                except DataError as error:
                    source.refuse(error)
            sentence, size, broken = [], 0, False
            continue
        if broken:
            continue
        try:
            if isinstance(line, DataError):
                raise line
            cells = columns.cells(line)
            is_odd = len(cells) != len(columns.names) or line[0] == "#"
            where = at(source.name, number)
            if is_odd and _is_comment(line, cells, columns, where, begins=not sentence):
                continue
            if "\r" in line:
                raise DataError(
                    f"a carriage return within the line: {shorten(line)}",
                    where=where,
                    expected="lines that end at LF or CR LF",
                )
            first = first if sentence else number
            size += len(line)
            if size > source.limit:
                raise source.too_large(first)
            sentence.append(cells)
        except DataError as error:
            source.refuse(error)
            broken = True


def looks_like_columns(lines: Iterable[str]) -> bool:
    """Return whether all lines except comments have as many columns, the first or last of tags."""
    tabs: bool | None = None
    width = 0
    first_are_tags = last_are_tags = True
    begins_entity = False
    # Lines that may be comments come last, when the columns are known.
    for line in sorted(lines, key=lambda line: line.startswith("#")):
        if _is_border(line):
            continue
        if tabs is None:
            tabs = "\t" in line
            width = len(_split(line, tabs))
        cells = _split(line, tabs)
        if not 2 <= len(cells) == width:
            if _has_comment_sign(line) or line.startswith("#\t"):
                continue
            return False
        if not line.startswith("#") or is_entity_tag(cells[-1]):
            first_are_tags = first_are_tags and is_entity_tag(cells[0])
            last_are_tags = last_are_tags and is_entity_tag(cells[-1])
            begins_entity = begins_entity or cells[0] != OUTSIDE
        if not first_are_tags and not last_are_tags:
            return False
    return tabs is not None and (last_are_tags or (first_are_tags and begins_entity))


def is_entity_tag(cell: str) -> bool:
    """Return whether a cell is `O` or a tag such as `B-PER` or `B_PER`."""
    return cell == OUTSIDE or is_prefixed(cell) or (cell[1:2] == "_" and is_prefixed(_dashed(cell)))


def _dashed(tag: str) -> str:
    return f"{tag[:1]}-{tag[2:]}"


def _split(line: str, tabs: bool) -> list[str]:
    if tabs:
        return [cell.strip(" ") for cell in line.split("\t")]
    return words_of(line)


def _find_columns(source: Source) -> Columns:
    """Recognise a file's columns by its first lines."""
    tabs: bool | None = None
    sample: list[list[str]] = []
    starts: list[int] = []
    named: list[str] | None = None
    doubtful: tuple[int, str] | None = None
    begins = True
    size = 0
    for number, line in enumerate(read_lines(source), 1):
        if len(sample) >= _SAMPLE or size > _SAMPLE_SIZE:
            break
        size += len(line) if isinstance(line, str) else 0
        if isinstance(line, DataError) or _is_border(line):
            begins = True
            continue
        if line.startswith(_NAMES) and not sample:
            named = line[len(_NAMES) :].lower().split()
            continue
        if line.startswith("#"):
            if doubtful is None and "\t" not in line[:2] and len(_split(line, "\t" in line)) >= 2:
                doubtful = number, line
            continue
        tabs = "\t" in line if tabs is None else tabs
        if not sample:
            _check_first(line, tabs, at(source.name, number))
        if begins:
            starts.append(len(sample))
        begins = False
        sample.append(_split(line, tabs))
    if not sample and doubtful is not None:
        tabs = "\t" in doubtful[1]
        starts, sample = [0], [_split(doubtful[1], tabs)]
    if not sample or tabs is None:
        raise DataError(
            "there is no token in the file",
            where=source.name,
            expected="lines of a token and its tag",
            fix=_FIX,
        )
    names = _names(sample, starts, named, source)
    return Columns(tabs, tuple(names), names[0] == "index")


def _check_first(line: str, tabs: bool, where: str) -> None:
    cells = _split(line, tabs)
    if len(cells) < 2:
        raise DataError(
            f"the line has one column: {shorten(line)}",
            where=where,
            expected="a token and its tag, at least",
            fix=_FIX,
        )
    if not cells[-1]:
        raise DataError(
            f"the line ends in a tab: {shorten(line)}",
            where=where,
            expected="the last column to be the tag",
            fix=_NO_TABS,
        )


def _names(
    sample: Sequence[Sequence[str]], starts: Sequence[int], named: list[str] | None, source: Source
) -> list[str]:
    """Name the columns of a file: as the file or the layout does, or else by their content."""
    width = len(sample[0])
    has_index = width > 2 and _counts(sample, starts)
    if named is not None:
        if len(named) != width:
            raise DataError(
                f"`{_NAMES}` names {counted(len(named), 'column')}, {listing(named)}; "
                f"the tokens have {width}",
                where=source.name,
                expected="a name for each column",
            )
        names = ["tokens" if name == "form" else name for name in named]
    else:
        names = [f"col{i}" for i in range(1, width + 1)]
        if has_index:
            names[0] = "index"
        if not source.layout.numbered:
            words, tags = _words_and_tags(sample, int(has_index))
            names[words], names[tags] = "tokens", "ner"
    if source.layout.names:
        names = source.layout.header(names, source.name)
    if "tokens" not in names:
        raise DataError(
            f"no column of {width} is the tokens', only: {listing(names)}",
            where=source.name,
            expected="the column of the tokens by number or name",
            fix="Name it: "
            + option(
                "--tokens-field 2 --map 4=ner", '`layout=Layout(names={"2": "tokens", "4": "ner"})`'
            )
            + ", counted from 1.",
        )
    return names


def _words_and_tags(sample: Sequence[Sequence[str]], first: int) -> tuple[int, int]:
    """Return the columns of the words and of the tags: the first and the last, or the reverse."""
    last = len(sample[0]) - 1
    rows = [cells for cells in sample if len(cells) == last + 1]
    firsts, lasts = ({cells[i] for cells in rows} for i in (first, last))
    if (
        firsts - {OUTSIDE}
        and all(map(is_entity_tag, firsts))
        and not all(map(is_entity_tag, lasts))
    ):
        return last, first
    # GermEval 2014 has nested entities in a column of their own after the outer ones.
    if first == 1 and last == 3 and all(is_entity_tag(cells[2]) for cells in rows):
        return 1, 2
    return first, last


def _counts(sample: Sequence[Sequence[str]], starts: Sequence[int]) -> bool:
    """Return whether the first column holds only numbers, and numbers the tokens somewhere."""
    begun = set(starts)
    counts = False
    for i, cells in enumerate(sample):
        if not cells[0].isdecimal():
            return False
        if i and i not in begun:
            counts = counts or int(cells[0]) == int(sample[i - 1][0]) + 1
    return counts


def _is_comment(line: str, cells: list[str], columns: Columns, where: str, begins: bool) -> bool:
    """Return whether an unusual line is a comment; comments stand before a sentence.

    Raises:
        DataError: it is neither a comment nor a token, or could be both.
    """
    has_sign = _has_comment_sign(line) or (columns.has_index and line.startswith("#\t"))
    may_be_comment = begins and has_sign
    width = len(columns.names)
    if len(cells) == width:
        if may_be_comment and not columns.tabs and not is_entity_tag(cells[-1]):
            raise DataError(
                f"{shorten(line)} may be a comment or the token '#'",
                where=where,
                expected="columns separated by tabs where comments and such tokens occur",
                fix="Separate the columns by tabs.",
            )
        return columns.has_index and line[0] == "#"
    if may_be_comment:
        return True
    is_trailing = columns.tabs and len(cells) > width and not any(cells[width:])
    raise DataError(
        f"the line ends in a tab: {shorten(line)}"
        if is_trailing
        else f"the line has {len(cells)} column{'s' * (len(cells) != 1)}: {shorten(line)}",
        where=where,
        expected=f"{width}, separated by {'tabs' if columns.tabs else 'spaces or tabs'}, "
        "as the lines before it",
        fix=_NO_TABS if is_trailing else _FIX,
    )


def _fields(
    sentence: list[list[str]], columns: Columns, source: Source, line: int
) -> dict[str, list[str]]:
    table = {
        name: list(column)
        for name, column in zip(columns.names, zip(*sentence, strict=True), strict=True)
    }
    if columns.has_index:
        index = table.pop("index")
        odd = next((cell for cell in index if not cell.isdecimal()), None)
        if odd is not None:
            raise DataError(
                f"the first column has {shorten(odd)}",
                where=at(source.name, line),
                expected="numbers that count the tokens, as before",
                fix="For CoNLL-U, with ranges such as 1-2: "
                + option("--format conllu", '`layout=Layout(format="conllu")`')
                + ".",
            )
    if not columns.has_index and not source.layout.names:
        # The token first, then the other columns in their order.
        return {"tokens": table.pop("tokens"), **table}
    return table


def _is_border(line: str) -> bool:
    """Return whether a line separates sentences: a blank one, or the start of a document."""
    return not line or line.isspace() or line.startswith(_DOCUMENT)


def _has_comment_sign(line: str) -> bool:
    return line == "#" or line.startswith("# ")
