"""CoNLL columns: a token a line, a blank line between sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at, shorten
from manyheads.tasks import OUTSIDE, is_prefixed

_DOCUMENT = "-DOCSTART-"
_FIX = "Separate token and tag by a tab, sentences by a blank line; begin comments with `# `."


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file separates its columns, and how many it has."""

    tabs: bool
    columns: int

    def cells(self, line: str) -> list[str]:
        """Split a line into its cells."""
        return [c.strip(" ") for c in line.split("\t")] if self.tabs else line.split()


def read_conll(source: Source) -> Iterator[Row]:
    """Yield a row for each sentence: `tokens`, `ner` (the last column), and `col2`, `col3`...

    Columns are separated by tabs, or by any white space where the first token's line has no tab.
    `-DOCSTART-` lines separate documents. A comment is `#` or `# ...` before the first token of
    a sentence, without the columns of a token: a token may itself be `#`.
    """
    layout = _find_layout(source)
    sentence: list[list[str]] = []
    first, size, broken = 0, 0, False
    for number, line in enumerate(chain(read_lines(source), ("",)), 1):
        if isinstance(line, str) and _is_border(line):
            if sentence and not broken:
                yield Row(source.name, first, "line", _fields(sentence))
            sentence, size, broken = [], 0, False
            continue
        if broken:
            continue
        try:
            if isinstance(line, DataError):
                raise line
            cells = layout.cells(line)
            is_odd = len(cells) != layout.columns or line[0] == "#"
            if is_odd and _is_comment(
                line, cells, layout, at(source.name, number), begins=not sentence
            ):
                continue
            first = first if sentence else number
            size += len(line)
            if size > source.limit:
                raise source.too_large(first)
            sentence.append(cells)
        except DataError as error:
            source.refuse(error)
            broken = True


def looks_like_columns(lines: Iterable[str]) -> bool:
    """Tell whether all lines but comments have the same columns, the last of them entity tags."""
    layout: Layout | None = None
    # Lines that may be comments come last, when the columns are known.
    for line in sorted(lines, key=lambda line: line.startswith("#")):
        if _is_border(line):
            continue
        if layout is None:
            layout = _layout(line)
        cells = layout.cells(line)
        is_token = 2 <= len(cells) == layout.columns and _is_entity_tag(cells[-1])
        if not is_token and not _has_comment_sign(line):
            return False
    return layout is not None


def _find_layout(source: Source) -> Layout:
    """Tell a file's layout by its first line that cannot be a comment, or else any token's."""
    found: tuple[int, str] | None = None
    for number, line in enumerate(read_lines(source), 1):
        if isinstance(line, DataError) or _is_border(line):
            continue
        if not line.startswith("#"):
            found = number, line
            break
        if found is None and _layout(line).columns >= 2:
            found = number, line
    if found is None:
        raise DataError(
            "there is no token in the file",
            where=source.name,
            expected="lines of a token and its tag",
            fix=_FIX,
        )
    number, line = found
    layout = _layout(line)
    if layout.columns < 2:
        raise DataError(
            f"the line has one column: {shorten(line)}",
            where=at(source.name, number),
            expected="a token and its tag, at least",
            fix=_FIX,
        )
    return layout


def _layout(line: str) -> Layout:
    tabs = "\t" in line
    return Layout(tabs, len(Layout(tabs, 0).cells(line)))


def _is_comment(line: str, cells: list[str], layout: Layout, where: str, begins: bool) -> bool:
    """Tell whether a line that may be odd is a comment; they stand where a sentence begins.

    Raises:
        DataError: it is neither a comment nor a token, or could be both.
    """
    may_be_comment = begins and _has_comment_sign(line)
    if len(cells) == layout.columns:
        if may_be_comment and not layout.tabs and not _is_entity_tag(cells[-1]):
            raise DataError(
                f"{shorten(line)} may be a comment or the token '#'",
                where=where,
                expected="columns separated by tabs where comments and such tokens occur",
                fix="Separate the columns by tabs.",
            )
        return False
    if may_be_comment:
        return True
    raise DataError(
        f"the line has {len(cells)} column{'s' * (len(cells) != 1)}: {shorten(line)}",
        where=where,
        expected=f"{layout.columns}, separated by {'tabs' if layout.tabs else 'white space'}, "
        "as the lines before it",
        fix=_FIX,
    )


def _fields(sentence: list[list[str]]) -> dict[str, list[str]]:
    columns = [list(column) for column in zip(*sentence, strict=True)]
    between = {f"col{i}": column for i, column in enumerate(columns[1:-1], 2)}
    return {"tokens": columns[0], **between, "ner": columns[-1]}


def _is_border(line: str) -> bool:
    """Tell whether a line stands between sentences: a blank one, or a document's beginning."""
    return not line or line.isspace() or line.startswith(_DOCUMENT)


def _is_entity_tag(cell: str) -> bool:
    return cell == OUTSIDE or is_prefixed(cell)


def _has_comment_sign(line: str) -> bool:
    return line == "#" or line.startswith("# ")
