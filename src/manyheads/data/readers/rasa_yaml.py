"""Rasa's `nlu.yml`: intents with their examples, entities written into the sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.head import Head
from manyheads.data.readers.rasa import rasa_example
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at, listing, shorten

_NULL = "tag:yaml.org,2002:null"
_TRAINING_DATA = "Rasa's training data, with `nlu:` and intents"
_INTENT = re.compile(r"^\s*-\s+intent:", re.MULTILINE)


def is_rasa_yaml(head: Head) -> bool:
    """Return whether YAML has an `nlu` list of intents."""
    return re.search(r"^nlu:", head.text, re.MULTILINE) is not None and (
        _INTENT.search(head.text) is not None
    )


def read_rasa_yaml(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Synonyms, lookups, regular expressions, intents without examples and lines without `-` are
    counted as unread. The file is held in memory; it may be as large as a record, since people
    write such files by hand.
    """
    for section in _sections(source):
        for line, text, intent in _examples(section, source):
            row = Row(source.name, line, "line", {})
            yield from source.attempt(row, rasa_example, text, intent, source, row.where)


def _sections(source: Source) -> Iterator[Any]:
    import yaml

    try:
        root = yaml.compose(_text(source), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(
            f"not YAML ({shorten(getattr(error, 'problem', None) or 'nested too deeply')})",
            where=at(source.name, mark.line + 1 if mark else None),
            expected=_TRAINING_DATA,
        ) from None
    top = _values(root, source) if isinstance(root, yaml.MappingNode) else {}
    listed = top.get("nlu")
    if not isinstance(listed, yaml.SequenceNode):
        raise DataError(
            "there is no list `nlu`",
            where=source.name,
            expected=_TRAINING_DATA,
        )
    yield from _filled(listed.value)


def _text(source: Source) -> str:
    lines, size = [], 0
    for number, line in enumerate(read_lines(source, keep_ends=True), 1):
        if isinstance(line, DataError):
            raise line
        size += len(line)
        if size > source.limit:
            raise source.too_large(number)
        lines.append(line)
    return "".join(lines)


def _examples(section: Any, source: Source) -> Iterator[tuple[int, str, str]]:
    """Yield the examples of a section with their lines and their intent.

    They are a block of `- ...` lines, or a list of texts or of mappings with a `text`. As in Rasa,
    a text in a list is one example, whatever its lines begin with.
    """
    try:
        values = _values(section, source)
        if "intent" not in values:
            source.pass_over(f"sections `{next(iter(values))}`" if values else "empty")
            return
        intent = _scalar(values["intent"], source, "the name of an intent")
    except DataError as error:
        source.refuse(error)
        return
    listed = values.get("examples")
    if listed is None or not listed.value or listed.tag == _NULL:
        source.pass_over("intents without `examples`")
        return
    items = _filled(listed.value) if listed.id == "sequence" else [listed]
    for item in items:
        try:
            found = _block(item, source) if item is listed else [_item(item, source)]
        except DataError as error:
            source.refuse(error)
        else:
            yield from ((line, text, intent) for line, text in found if text)


def _filled(nodes: list[Any]) -> list[Any]:
    """Return the items of a list without those that are null, which Rasa leaves out, too."""
    return [node for node in nodes if node.tag != _NULL]


def _item(node: Any, source: Source) -> tuple[int, str]:
    """Return the text of an example in a list, with its line.

    Raises:
        DataError: it is none, or has no `text`.
    """
    if node.id == "mapping":
        values = _values(node, source)
        if "text" not in values:
            raise _unexpected(node, source, f"keys {listing(values)}", "an example with `text`")
        node = values["text"]
        if node.tag == _NULL:
            raise _unexpected(node, source, "an example whose `text` has no value", "a text")
    return node.start_mark.line + 1, _scalar(node, source, "an example").strip()


def _block(node: Any, source: Source) -> list[tuple[int, str]]:
    """Return the examples of a block of `- ...` lines, with their lines.

    Raises:
        DataError: it is no text.
    """
    found = []
    text = _scalar(node, source, "lines that begin with `-`, or a list")
    # A block begins on the line after its key.
    first = node.start_mark.line + 1 + (node.style in ("|", ">"))
    for number, line in enumerate(text.split("\n"), first):
        example = line.strip()
        if example.startswith("-"):
            found.append((number, example[1:].strip()))
        else:
            source.pass_over("lines of examples without `-`", bool(example))
    return found


def _values(node: Any, source: Source) -> dict[str, Any]:
    """Return the values of a mapping by their keys.

    Raises:
        DataError: it is something else, or has a key twice.
    """
    if node.id != "mapping":
        raise _unexpected(node, source, f"a {node.id}", "an intent with `examples`")
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in values:
            raise _unexpected(key, source, f"the key {shorten(name)} twice", "each key once")
        values[name] = value
    return values


def _scalar(node: Any, source: Source, expected: str) -> str:
    """Return the text of a node.

    Raises:
        DataError: it is a list or a mapping.
    """
    if node.id != "scalar":
        raise _unexpected(node, source, f"a {node.id}", expected)
    return str(node.value)


def _unexpected(node: Any, source: Source, found: str, expected: str) -> DataError:
    """Make the error about a part of the file."""
    return DataError(found, where=at(source.name, node.start_mark.line + 1), expected=expected)
