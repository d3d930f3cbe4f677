"""Count entities that no tag can express because they begin or end inside a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from manyheads.data.records.record import Record
from manyheads.errors import counted
from manyheads.tasks import LabelSet, inside_words
from manyheads.text import Encoding, TextTokenizer

_CHUNK = 1024


@dataclass
class Reach:
    """Counts the entities of tagging tasks, and those that begin or end inside a word.

    Args:
        tasks: the names of the tasks.
    """

    tasks: Sequence[str]
    entities: dict[str, int] = field(default_factory=dict)
    inside: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, label_sets: Mapping[str, LabelSet]) -> Reach:
        """Count for the tasks whose tags mark entities."""
        return cls([name for name, labels in label_sets.items() if labels.marks_entities])

    def add(self, record: Record, encoding: Encoding | None) -> None:
        """Count the entities of a record.

        Args:
            record: the record.
            encoding: of its text; not needed if the record has tokens, which are whole words, and
                with which its entities begin and end.
        """
        labelled = {task: spans for task in self.tasks if (spans := record.labels.get(task))}
        if not labelled:
            return
        for task, spans in labelled.items():
            self.entities[task] = self.entities.get(task, 0) + len(spans)
        if record.tokens is not None or encoding is None:
            return
        starts, ends = (set(column) for column in encoding.word_spans.T.tolist())
        for task, spans in labelled.items():
            inside = inside_words(spans, starts, ends)
            self.inside[task] = self.inside.get(task, 0) + inside

    def add_all(self, records: Iterable[Record], tokenizer: TextTokenizer) -> Reach:
        """Count the entities of records, and return this object."""
        labelled = (r for r in records if any(r.labels.get(task) for task in self.tasks))
        while some := list(islice(labelled, _CHUNK)):
            texts = [record.text for record in some if record.tokens is None]
            encodings = iter(tokenizer.encode_batch(texts) if texts else ())
            for record in some:
                self.add(record, next(encodings) if record.tokens is None else None)
        return self

    def messages(self) -> list[str]:
        """Return a sentence for the user about each task with entities that cannot be found."""
        return [
            f"{inside:,} of {counted(self.entities[task], 'entity', 'entities')} of task {task!r} "
            f"{'begins or ends' if inside == 1 else 'begin or end'} inside a word that the model "
            "does not cut, and count as missed"
            for task, inside in self.inside.items()
            if inside
        ]
