"""Rasa's `nlu.yml`: intents with their examples, entities written into the sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.head import Head
from manyheads.data.readers.rasa import rasa_example
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at, shorten

_TRAINING_DATA = "Rasa's training data, with `nlu:` and intents"
_INTENT = re.compile(r"^\s*-\s+intent:", re.MULTILINE)


def is_rasa_yaml(head: Head) -> bool:
    """Return whether YAML has an `nlu` list of intents."""
    return re.search(r"^nlu:", head.text, re.MULTILINE) is not None and (
        _INTENT.search(head.text) is not None
    )


def read_rasa_yaml(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Synonyms, lookups, regular expressions and lines without `-` are counted as unread. The file is
    held in memory; it may be as large as a record, since people write such files by hand.
    """
    for section in _sections(source):
        values = {key.value: value for key, value in section.value}
        intent = values.get("intent")
        if intent is None:
            source.pass_over(
                f"sections `{section.value[0][0].value}`" if section.value else "empty"
            )
            continue
        if "examples" not in values:
            continue
        for line, text in _examples(values["examples"], source):
            row = Row(source.name, line, "line", {})
            yield from source.attempt(row, rasa_example, text, str(intent.value), source, row.where)


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
    top = root.value if isinstance(root, yaml.MappingNode) else ()
    listed = next((value for key, value in top if key.value == "nlu"), None)
    if not isinstance(listed, yaml.SequenceNode):
        raise DataError(
            "there is no list `nlu`",
            where=source.name,
            expected=_TRAINING_DATA,
        )
    for section in listed.value:
        if isinstance(section, yaml.MappingNode):
            yield section


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


def _examples(node: Any, source: Source) -> Iterator[tuple[int, str]]:
    """Yield the examples with their lines: of a block of `- ...` lines, or a list of `text`."""
    if isinstance(node.value, str):
        # A block begins on the line after its key.
        first = node.start_mark.line + 1 + (node.style in ("|", ">"))
        for number, line in enumerate(node.value.split("\n"), first):
            text = line.strip()
            if not text.startswith("-"):
                source.pass_over("lines of examples without `-`", bool(text))
            elif text[1:].strip():
                yield number, text[1:].strip()
        return
    for item in node.value:
        values = dict(_pairs(item))
        text_node = values.get("text")
        if text_node is not None and isinstance(text_node.value, str):
            text = text_node.value.strip().removeprefix("- ").strip()
            if text:
                yield text_node.start_mark.line + 1, text


def _pairs(node: Any) -> Iterator[tuple[str, Any]]:
    if node.id == "mapping":
        for key, value in node.value:
            yield str(key.value), value
