"""One file of a data check: every record by itself.

Axes: B the records of a chunk, W all their words.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manyheads.config import TaskConfig
from manyheads.data.check.report import Findings, Kind
from manyheads.data.check.tag_starts import TagStarts
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records import (
    LabelCollector,
    Record,
    RecordParser,
    Unread,
    label_names,
    labelled_field,
)
from manyheads.errors import DataError, counted, listing, shorten
from manyheads.sampling import StreamSample
from manyheads.tasks import LabelSet, Span, kind_of
from manyheads.tasks.label_values import usual_form, without_unlabelled
from manyheads.tasks.labels import with_dashes
from manyheads.tasks.tag_labels import FoundTags, index_order
from manyheads.text import (
    SCRIPT_SAMPLE,
    Encoding,
    Positions,
    TextTokenizer,
    Units,
    code_points,
    scripts_message,
    truncate,
    unknown_scripts,
    word_borders,
)

# A chunk of records that is checked at once: bounds the memory for very long texts.
_CHUNK_RECORDS = 512
_MOST_FIELDS = 1000
_MOST_CUTS = 10_000
_CHUNK_CHARACTERS = 2**20


@dataclass
class TaskCounts:
    """The labels of one task in a file, counted so far."""

    labelled: int = 0
    with_label: int = 0
    labels: Counter[str] = field(default_factory=Counter)


class FileCheck:
    """Checks one file's records and counts what is in them.

    Args:
        path: the file, opened at once.
        tasks: the tasks it has labels for.
        tokenizer: the encoder's; without one, words are counted but no sub-tokens.
        max_length: sub-tokens that training reads.
        findings: receives the findings.
        places: how many places of a finding are remembered.
        layout: the layout of the file, as far as the user states it.
        named: fields that no task reads, which are reported already.

    Raises:
        DataError: the file is missing, empty, or of no known format.
    """

    def __init__(
        self,
        path: str,
        tasks: Mapping[str, TaskConfig],
        tokenizer: TextTokenizer | None,
        max_length: int,
        findings: Findings,
        places: int,
        layout: Layout | None = None,
        named: Collection[str] = (),
    ) -> None:
        self.path, self.tasks = path, tasks
        self.counts = {name: TaskCounts() for name in tasks}
        self.words, self.tokens = array("q"), array("q")
        self.complete = True
        self.truncated = self.words_lost = self.labels_lost = 0
        self.duplicates = self.leaks = 0
        self.has_tokenizer = tokenizer is not None
        self.unit = "line"
        self._tokenizer, self._max_length, self._findings = tokenizer, max_length, findings
        self._starts = {
            name: TagStarts(places) for name, task in tasks.items() if kind_of(task.kind).per_word
        }
        self._orders = {
            name: index_order(task.labels, task.num_labels)
            for name, task in tasks.items()
            if name in self._starts
        }
        self._unusual: dict[str, list[Any]] = {}
        self._entities: Counter[str] = Counter()
        self._cut_entities: Counter[str] = Counter()
        self._cuts: dict[str, list[tuple[str, str, str]]] = {}
        self._sample = StreamSample[str](SCRIPT_SAMPLE)
        self._parse = _lenient_parser(tasks)
        self.fields: Counter[str] = Counter()
        self.unread = Unread(tasks, named)
        layout = (layout or Layout()).reading(tasks)
        self._input = read_rows(
            path, layout=layout, on_error=self._broken_record, on_unread=self.unread.passed_over
        )

    def records(self, collectors: Mapping[str, LabelCollector]) -> Iterator[tuple[Row, Record]]:
        """Check the records, and yield the valid ones.

        Args:
            collectors: receive the labels, by task.
        """
        chunk: list[Record] = []
        characters = 0
        for row in self._rows():
            try:
                record = self._parse(row)
                for name in self.tasks:
                    collectors[name].add(row, record.text, record.tokens)
            except DataError as error:
                self._broken_record(error)
                continue
            self.unit = row.unit
            if len(self.fields) < _MOST_FIELDS:
                self.fields.update(k for k, value in row.fields.items() if value is not None)
            self.unread.add(row, record)
            self._count_labels(record)
            self._watch_tags(row, record.where)
            chunk.append(record)
            characters += len(record.text)
            if len(chunk) == _CHUNK_RECORDS or characters > _CHUNK_CHARACTERS:
                self._check_words(chunk)
                chunk, characters = [], 0
            yield row, record
        if chunk:
            self._check_words(chunk)
        self._judge_tags()
        self._judge_words()

    def _rows(self) -> Iterator[Row]:
        try:
            yield from self._input
        except DataError as error:
            self.complete = False
            self._add_error(Kind.BROKEN_FILE, error)

    def _broken_record(self, error: DataError) -> None:
        self._add_error(Kind.BROKEN_RECORD, error)

    def _add_error(self, kind: Kind, error: DataError) -> None:
        message = f"{error.found}; expected {error.expected}" if error.expected else error.found
        self._findings.add(self.path, kind, error.where, message, error.fix)

    def _add(self, kind: Kind, where: str, message: str, fix: str) -> None:
        self._findings.add(self.path, kind, where, message, fix)

    def _count_labels(self, record: Record) -> None:
        for name, label in record.labels.items():
            names = label_names(label)
            counts = self.counts[name]
            counts.labelled += 1
            counts.with_label += bool(names) or not kind_of(self.tasks[name].kind).can_be_empty
            counts.labels.update(names)
        if self.tasks and not record.labels:
            fields = [field for task in self.tasks.values() for field in task.fields]
            self._add(
                Kind.UNLABELLED, record.where, "the record has no label for any task",
                f"Fill one of {listing(fields)}, or remove the record.",
            )  # fmt: skip

    def _watch_tags(self, row: Row, where: str) -> None:
        for name, starts in self._starts.items():
            field = labelled_field(row, name, self.tasks[name])
            value = None if field is None else row.fields[field]
            tags: list[Any] = value.split() if isinstance(value, str) else value or []
            if not tags or isinstance(tags[0], dict):
                self._watch_spans(name, tags, where)
                continue
            if self.tasks[name].scheme != "auto":
                continue  # The tags are types or classes, whatever they begin with.
            tags, _, _ = without_unlabelled(tags, tags)
            tags = [usual_form(tag) if isinstance(tag, str) else tag for tag in tags]
            if tags and isinstance(tags[0], int):
                tags = [self._orders[name][index] for index in tags]
            marked = with_dashes(tags)
            if marked is not tags and marked != tags:
                self._unusual.setdefault(name, tags)
            starts.add(marked, where)

    def _watch_spans(self, name: str, spans: Sequence[Any], where: str) -> None:
        """Report entities that a record has twice; they count once."""
        distinct = {(span["start"], span["end"], span["label"]) for span in spans}
        if len(distinct) < len(spans):
            self._add(
                Kind.REPEATED, where,
                f"the task {name!r} has {len(spans)} entities, of which {len(distinct)} differ", "",
            )  # fmt: skip

    def _judge_tags(self) -> None:
        for name, starts in self._starts.items():
            if name in self._unusual:
                self._add(
                    Kind.SCHEME, self.path,
                    f"the tags of the task {name!r} are not of the form B-TYPE: "
                    f"{listing(dict.fromkeys(self._unusual[name]))}; they are read as "
                    f"{listing(dict.fromkeys(with_dashes(self._unusual[name])))}", "",
                )  # fmt: skip
            if starts.scheme != "BIO":
                self._add(
                    Kind.SCHEME, self.path,
                    f"the tags of the task {name!r} are {starts.scheme}; they are read as BIO", "",
                )  # fmt: skip
            if starts.inside_count and starts.scheme != "IOB1":
                for where, tag in starts.inside:
                    self._add(
                        Kind.INSIDE_START, where, f"{tag} begins an entity",
                        "Write B- for the first tag of an entity; it is read as one.",
                    )  # fmt: skip
                rest = starts.inside_count - len(starts.inside)
                self._findings.add_unlisted(self.path, Kind.INSIDE_START, rest)

    def _check_words(self, records: Sequence[Record]) -> None:
        """Compare a chunk's entities with the words that the model will see."""
        texts = [record.text for record in records]
        self._sample.extend(texts)
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        text_starts = np.cumsum(sizes + 1) - (sizes + 1)
        if self._tokenizer is None:
            starts, ends = word_borders(code_points("\n".join(texts)))
        else:
            encodings = self._tokenizer.encode_batch(texts)
            counts = [len(encoding.word_spans) for encoding in encodings]
            words = np.concatenate([encoding.word_spans for encoding in encodings])
            starts, ends = (words + np.repeat(text_starts, counts)[:, None]).T
            self.tokens.extend(len(encoding.ids) for encoding in encodings)
            for record, encoding in zip(records, encodings, strict=True):
                self._check_length(record, encoding)
        borders = np.append(np.searchsorted(starts, text_starts), len(starts))
        self.words.extend(np.diff(borders).tolist())
        self._check_spans(records, text_starts, starts, ends)

    def _check_spans(
        self, records: Sequence[Record], text_starts: Positions, starts: Positions, ends: Positions
    ) -> None:
        """Report entities without a word, and remember those with a border inside a word.

        Args:
            records: the records.
            text_starts: [B] where the texts begin, laid end to end.
            starts: [W] where the words begin there.
            ends: [W] where they end.
        """
        spans = [(i, *item) for i, record in enumerate(records) for item in _spans(record)]
        if not spans:
            return
        bases = text_starts[[i for i, _, _ in spans]]
        begins = bases + np.array([span.start for _, _, span in spans])
        stops = bases + np.array([span.end for _, _, span in spans])
        # The words at the borders: the first that ends after each.
        firsts, lasts = ends.searchsorted(begins, "right"), ends.searchsorted(stops, "right")
        starts = np.append(starts, np.iinfo(np.int64).max)
        has_word = starts[firsts] < stops
        cuts_first = has_word & (starts[firsts] < begins)
        cuts_last = has_word & (starts[lasts] < stops) & ~(cuts_first & (firsts == lasts))
        for number, (i, task, span) in enumerate(spans):
            record = records[i]
            self._check_span(record, task, span, bool(has_word[number]))
            self._entities[task] += 1
            self._cut_entities[task] += int(cuts_first[number] | cuts_last[number])
            for cuts, words in ((cuts_first, firsts), (cuts_last, lasts)):
                if cuts[number]:
                    word = words[number]
                    start, end = starts[word] - bases[number], ends[word] - bases[number]
                    self._remember_cut(record, task, span, int(start), int(end))

    def _check_span(self, record: Record, task: str, span: Span, has_word: bool) -> None:
        covered = record.text[span.start : span.end]
        if covered != covered.strip():
            self._add(
                Kind.WHITE_SPACE, record.where,
                f"{_entity(task, span, record.text)} begins or ends with white space",
                "Move its border to the word's.",
            )  # fmt: skip
        if not has_word:
            self._add(
                Kind.NO_WORD, record.where,
                f"{_entity(task, span, record.text)} has no word that the model sees",
                "Remove it: none of its characters is part of a token.",
            )  # fmt: skip

    def _remember_cut(self, record: Record, task: str, span: Span, start: int, end: int) -> None:
        """Remember an entity that cuts the word between `start` and `end` of its text."""
        places = self._cuts.setdefault(task, [])
        if len(places) < _MOST_CUTS:
            places.append(
                (
                    record.where,
                    f"{_entity(task, span, record.text)} cuts the word "
                    f"{shorten(record.text[start:end], 40)}",
                    f"Move its border to the word's, {start} or {end}: the model labels whole "
                    "words.",
                )
            )

    def _judge_words(self) -> None:
        """Report borders inside words, unless there are so many that tags go on pieces of words."""
        for task, cuts in self._cuts.items():
            entities, cut = self._entities[task], self._cut_entities[task]
            if FoundTags(entities=entities, inside_words=cut).units is Units.PIECES:
                self._add(
                    Kind.PIECES, self.path,
                    f"{cut} of {entities} entities of the task {task!r} begin or end inside "
                    "a word; training puts tags on pieces of words", "",
                )  # fmt: skip
                continue
            for where, message, fix in cuts:
                self._add(Kind.CUT_WORD, where, message, fix)
        if self._tokenizer is not None and (
            message := scripts_message(unknown_scripts(self._sample.items, self._tokenizer))
        ):
            self._add(Kind.UNKNOWN_SCRIPT, self.path, message, "")

    def _check_length(self, record: Record, encoding: Encoding) -> None:
        kept, words_lost = truncate(encoding, self._max_length)
        length = len(encoding.ids)
        if len(kept.ids) == length:
            return
        self.truncated += 1
        self.words_lost += words_lost
        lost: list[Span] = []
        if words_lost:
            border = int(encoding.word_spans[len(kept.word_spans), 0])
            lost = [span for _, span in _spans(record) if span.end > border]
        self.labels_lost += len(lost)
        message = f"{length} sub-tokens, of which training reads {self._max_length}"
        fix = f"Set `max_length` to {length} or more, or split the record."
        if lost:
            names = listing((_describe(span, record.text) for span in lost), 3)
            self._add(Kind.LOST_LABEL, record.where, f"{message}: it loses {names}", fix)
        else:
            self._add(
                Kind.TRUNCATED, record.where,
                f"{message}: it loses {counted(words_lost, 'word')}, and no tag or entity", fix,
            )  # fmt: skip


def _lenient_parser(tasks: Mapping[str, TaskConfig]) -> RecordParser:
    """Make a parser that names indices where possible and keeps unknown names.

    The labels of all records together are judged later, each wrong one once.
    """
    known = {
        name: LabelSet(task.labels)
        for name, task in tasks.items()
        if task.labels is not None and not kind_of(task.kind).per_word
    }
    open_tasks = {
        name: task.model_copy(update={"labels": None}) if name in known else task
        for name, task in tasks.items()
    }
    return RecordParser(open_tasks, known, allow_unseen=True)


def _spans(record: Record) -> list[tuple[str, Span]]:
    return [
        (task, item)
        for task, label in record.labels.items()
        if isinstance(label, tuple)
        for item in label
        if isinstance(item, Span)
    ]


def _entity(task: str, span: Span, text: str) -> str:
    return f"the {task!r} entity {_describe(span, text)}"


def _describe(span: Span, text: str) -> str:
    words = shorten(text[span.start : span.end], 40)
    return f"{words} ({shorten(span.label, 40)[1:-1]}, {span.start} to {span.end})"
