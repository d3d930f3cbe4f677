"""Rasa's JSON: `rasa_nlu_data` with `common_examples`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from manyheads.data.readers.annotated import from_example
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.rasa import OWN_VALUES, is_own_value
from manyheads.data.readers.row import Row, Source

_ROOT = "rasa_nlu_data"
_EXAMPLES = ("common_examples", "intent_examples", "entity_examples")


def is_rasa_json(head: Head) -> bool:
    """Return whether an object has Rasa's data."""
    return head.text[:1] == "{" and f'"{_ROOT}"' in head.text[:1000]


def read_rasa_json(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Values of entities other than their texts, and other sections, are counted as unread, and so are
    roles and groups of entities unless the layout joins them to the types.
    """
    for item in read_json_values(
        source,
        lambda keys: keys in ((), (_ROOT,)) or (keys[:1] == (_ROOT,) and len(keys) == 2),
        "{",
    ):
        keys, row = item.keys, item.row
        if len(keys) != 3 or keys[1] not in _EXAMPLES:
            if len(keys) > 1:
                source.pass_over(f"entries of `{keys[1]}`")
            continue
        for example in source.attempt(
            row, from_example, item.value, source, row.where, "start", "end"
        ):
            for entity in item.value.get("entities") or ():
                # Positions that are no whole numbers are refused later.
                with suppress(TypeError):
                    words = item.value["text"][entity["start"] : entity["end"]]
                    source.pass_over(OWN_VALUES, is_own_value(entity.get("value"), words))
            yield example
