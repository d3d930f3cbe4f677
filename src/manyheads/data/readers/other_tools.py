"""Files of tools that are not read, as they are recognised, and the way to convert them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from manyheads.data.readers.head import Head
from manyheads.errors import DataError

_WRITE = "Write it as JSON lines with"
_FIELDS = "`label` (a class), `labels` (a list of classes) or `entities` (start, end and label)"


@dataclass(frozen=True, slots=True)
class _Tool:
    """A tool whose files are not read."""

    file: str
    matches: Callable[[Head], object]
    """Whether the beginning of a file is unmistakably the tool's."""
    fix: str


def _begins(pattern: str) -> Callable[[Head], object]:
    beginning = re.compile(pattern)
    return lambda head: beginning.match(head.text)


def _is_argilla(head: Head) -> bool:
    return bool(head.objects) and all(
        type(o.get("fields")) is dict and type(o.get("responses")) in (dict, list)
        for o in head.objects
    )


def _is_dataturks(head: Head) -> bool:
    # Where the user names the text, as for predictions, the texts can be read.
    is_named = "content" in head.layout.names
    keys = {"content", "annotation", "extras"}
    return bool(head.objects) and not is_named and all(o.keys() >= keys for o in head.objects)


_TOOLS = (
    _Tool(
        "WebAnno TSV, as INCEpTION writes it",
        _begins("#FORMAT=WebAnno TSV"),
        "Export it from INCEpTION as CoNLL 2002, and give the file the ending .conll.",
    ),
    _Tool(
        "the training data of spaCy 2",
        _begins(
            r'\[\s*\{\s*"id"\s*:\s*[^,]*,\s*"paragraphs"\s*:\s*'
            r'\[\s*\{\s*"(raw|sentences|cats)"\s*:'
        ),
        "Convert it: spacy convert FILE . writes a .spacy file.",
    ),
    _Tool(
        "an export of Argilla, of records with `fields` and `responses`",
        _is_argilla,
        f"{_WRITE} `text`, from `fields`, and the value of one response to each question as "
        f"{_FIELDS}; spans have these keys already.",
    ),
    _Tool(
        "an export of LightTag",
        _begins(r'\{\s*"examples"\s*:\s*\[\s*\{[^{}]*"example_id"\s*:'),
        f"{_WRITE} `text`, the `content` of an example, and {_FIELDS}: an annotation's `tag` is "
        "the entity's label, and its `value` may be the entity's `text`, which is then compared.",
    ),
    _Tool(
        "an export of Dataturks",
        _is_dataturks,
        f"{_WRITE} `text`, the `content`, and {_FIELDS}: the entity's end is the `end` of a "
        "point + 1, because Dataturks gives the last character.",
    ),
)


def refuse_other_tools(head: Head, name: str) -> None:
    """Refuse the file of a tool that is not read.

    Raises:
        DataError: the file is one; the message says how to convert it.
    """
    for tool in _TOOLS:
        if tool.matches(head):
            raise DataError(
                f"the file is {tool.file}", where=name, expected="another format", fix=tool.fix
            )
