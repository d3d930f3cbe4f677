"""Tagging: a tag for every word, for entities, slots or parts of speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, ModelError, counted, shorten
from manyheads.tasks.class_labels import Names
from manyheads.tasks.decisions import INVENTED, MISSED, WRONG_CLASS, Decision, entity_decisions
from manyheads.tasks.decoding import Scored, decode_tags, softmax
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.kinds.base import Kind
from manyheads.tasks.kinds.hooks import Rates
from manyheads.tasks.kinds.registry import register_kind
from manyheads.tasks.kinds.tag_calibration import TagCalibration
from manyheads.tasks.kinds.tag_checks import TagChecks
from manyheads.tasks.kinds.tag_results import judgeable, tagging_result, token_tags
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
    LABEL_OPTIONS,
    UNLABELLED,
    Columns,
    Label,
    Lengths,
    RawRecord,
    ReadLabel,
    ReadParameter,
    ReadText,
    Settings,
    Targets,
)
from manyheads.tasks.label_values import IndexedTags, NamedTags, read_tags
from manyheads.tasks.labels import (
    OUTSIDE,
    LabelSet,
    Scheme,
    Span,
    Stretches,
    TagSet,
    WordSpan,
    borders_of,
    inside_words,
    tags_of,
    unlabelled_words,
)
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.metrics.tags import TaggedText, entity_counts, tagging_metrics
from manyheads.tasks.results import Result, TaggingResult
from manyheads.tasks.soft_targets import (
    Spans,
    columns_of,
    continued,
    read_entities,
    read_word_classes,
    word_of_each,
)
from manyheads.tasks.tag_labels import FoundTags, TagReader, decide_tags, index_order, word_tags
from manyheads.tasks.tag_sequences import Floats, Transitions, marginals
from manyheads.text import Units, segment

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec

_FIELDS: dict[str, Columns] = {
    "text": str, "label": str, "start": int, "end": int, "score": float
}  # fmt: skip
_MANY = 3000
"""The number of records from which the usual rates suffice (docs/experiments.md)."""
_TOKEN: Columns = {"text": str, "tag": str, "id": int, "start": int, "end": int}


@register_kind
class Tagging(TagCalibration, TagChecks, Kind):
    """A tag for every word."""

    name = "tagging"
    fields = ("ner", "entities")
    head = "manyheads.modeling.heads.tagging:TaggingHead"
    options = (
        *LABEL_OPTIONS,
        *HEAD_OPTIONS,
        "scheme",
        "decoder",
        "neck",
        "neck_size",
        "neck_layers",
        "word_features",
    )
    spec_fields = ("scheme", "decoder")
    optional_fields = ("units", "stages", "word_features")
    named_labels = True
    metrics = ("precision", "recall", "f1", "f1_macro", "token_accuracy")
    main_metric = "f1"
    per_word = True
    teaches = True
    in_words = (
        "{recall:.0%} of the entities are found, and {precision:.0%} of those found are right "
        "(F1 {f1:.4f})"
    )
    can_be_empty = True
    measured_in = "tags"
    table_columns: ClassVar[Mapping[str, str]] = {
        "accuracy": "token_accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1 macro": "f1_macro",
        "f1 micro": "f1",
    }
    table_note = (
        "strict entities, or tokens where tags are plain classes; precision and recall micro; "
        "accuracy of tokens"
    )
    sought_as = "ner"
    starting: ClassVar[Mapping[str, Any]] = {"decoder": "crf", "neck": "bilstm"}
    """The head that tags best after few records."""
    card_tag = "token-classification"

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values are spans, or a tag for each word."""
        tags = values.per_word == values.records and (
            values.has_outside or bool(values.repeating) or values.lists == values.records
        )
        # CoNLL files fill unused columns with one mark.
        tags = tags and (values.name in self.fields or len(values.distinct) > 1)
        empty = values.lists - values.filled
        return tags or bool(values.spans and values.spans + empty == values.records)

    def starting_rates(self, values: FieldValues) -> Rates:
        """Return higher rates for few records: a CRF and a BiLSTM start from random weights."""
        return Rates(2e-4, 5e-3) if values.records < _MANY else Rates()

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of tags and spans (see `Kind.reader`)."""
        order = index_order(settings.labels, settings.num_labels, known, settings.scheme)
        names = Names(task, known, keeps_unseen)
        tags = known if isinstance(known, TagSet) else None
        return TagReader(names, tags, order, settings.scheme).read

    def found(self, task: str, fields: str) -> FoundTags:
        """Start collecting tags and spans."""
        return FoundTags(task, fields)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a record's tags, or the types of its spans."""
        where = record.where
        raw = read_tags(
            record.fields[field], field, record.text, record.tokens, where, settings.scheme
        )
        if isinstance(raw, NamedTags):
            found.note(found.names, raw.tags, where)
        elif isinstance(raw, IndexedTags):
            found.note(found.indices, raw.tags, where)
            found.index_field = found.index_field or field
        else:
            found.note(found.types, (span.label for span in raw), where)
            if raw and isinstance(found, FoundTags):
                starts, ends = segment(record.text).T.tolist()
                found.entities += len(raw)
                found.inside_words += inside_words(raw, set(starts), set(ends))

    def missing(self, found: Found, labelled: int) -> str:
        """Report that no record has an entity."""
        some = found.types or found.indices or found.names.keys() - {OUTSIDE}
        return "" if some else f"no entity in {counted(labelled, 'record')}"

    def decide(self, settings: Settings, found: Found, refuse: Refuse) -> TagSet:
        """Decide the tags (see `Kind.decide`)."""
        tags = decide_tags(
            found.task, settings.labels, settings.num_labels, found, refuse, settings.scheme
        )
        return replace(tags, units=found.units) if isinstance(found, FoundTags) else tags

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the index of the tag of each word."""
        return [UNLABELLED] * len(words) if label is None else word_tags(label, words, labels)

    def collate(self, targets: Targets, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Return [B, W] int64."""
        return targets.values.padded(rows, UNLABELLED, width)

    def label_set(self, spec: TaskSpec) -> TagSet:
        """Return the task's tags."""
        return TagSet(spec.labels, _scheme(spec), _units(spec), _stages(spec))

    def learned(self, spec: TaskSpec, read: ReadParameter) -> Transitions | None:
        """Return a CRF's transitions."""
        if spec.decoder != "crf":
            return None
        size = len(spec.labels)
        return Transitions(
            read("crf.start", (size,)), read("crf.end", (size,)), read("crf.pairwise", (size, size))
        )

    def decode(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Transitions | None
    ) -> list[Scored]:
        """Find the best sequence of tags for each sentence.

        Raises:
            ModelError: the CRF's transitions are missing, or present and not used.
        """
        if (spec.decoder == "crf") != (learned is not None):
            state = "missing" if learned is None else "there, and its decoder is linear"
            raise ModelError(
                f"the transitions of task {shorten(spec.name)} are {state}",
                expected="transitions exactly when the decoder is crf",
                fix="The model's files are damaged or were edited.",
            )
        if lengths is None:
            raise ValueError("tagging logits cannot be decoded without the sentences' lengths")
        return decode_tags(logits, lengths, spec.labels, _scheme(spec), learned, _stages(spec))

    def soft(
        self, spec: TaskSpec, outputs: Floats, lengths: Lengths | None, learned: Any
    ) -> Floats:
        """Return each word's probability of every tag; with a CRF, given the whole sentence."""
        if learned is None:
            return softmax(outputs)
        counts = np.asarray(lengths, np.int64)
        found = marginals(outputs, counts, spec.labels, _scheme(spec), learned)
        return np.asarray(found, np.float32)

    def adopted(
        self, teacher: TaskSpec, soft: Floats, labels: LabelSet, read: Spans, words: Spans
    ) -> Floats:
        """Return the tags' probabilities for the student's words, whose borders may differ.

        A word that begins inside one of the teacher's words continues its entities. If the teacher
        does not read one of the words, the targets of the whole sentence are unknown.
        """
        numbers, continues = word_of_each(words, read)
        if (numbers < 0).any():
            return np.full((len(words), len(labels)), np.nan, np.float32)
        found: Floats = soft[numbers][:, columns_of(teacher.labels, labels)]
        if continues.any() and _scheme(teacher) is not Scheme.PLAIN:
            found[continues] = continued(found[continues], labels.names)
        return found

    def read_soft(
        self, value: Any, labels: LabelSet, text: str, words: Spans, where: str
    ) -> Floats:
        """Read entities with their probabilities, or tokens with their classes."""
        plain = isinstance(labels, TagSet) and labels.scheme is Scheme.PLAIN
        return (read_word_classes if plain else read_entities)(value, labels, text, words, where)

    def results(
        self, spec: TaskSpec, texts: Sequence[ReadText], decoded: Sequence[Scored]
    ) -> list[Result]:
        """Turn the tags of words into entities and into the tags of the user's tokens."""
        labels, scheme, units = spec.labels, _scheme(spec), _units(spec)
        return [
            tagging_result(labels, scheme, units, *pair)
            for pair in zip(texts, decoded, strict=True)
        ]

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Return a result without entities."""
        return TaggingResult(
            (), tuple(token_tags(spec.labels, text, [OUTSIDE] * len(text.tokens or ())))
        )

    def columns(self, spec: TaskSpec) -> Columns:
        """Return a list of entities; of tokens where tags are plain classes."""
        return [_TOKEN if spec.scheme is Scheme.PLAIN else _FIELDS]

    def cell(self, spec: TaskSpec, result: TaggingResult) -> Any:
        """Return the entities, or the tokens."""
        if spec.scheme is Scheme.PLAIN:
            return [token._asdict() for token in result.tokens]
        return [{name: getattr(e, name) for name in _FIELDS} for e in result.entities]

    def outcome(
        self,
        spec: TaskSpec,
        label: Label,
        tokens: Sequence[WordSpan] | None,
        result: TaggingResult,
    ) -> tuple[TaggedText, TaggedText]:
        """Return the entities of the record and of the prediction, by characters.

        Their tags are those of the record's own tokens, or else of the result's.
        """
        scheme = _scheme(spec)
        unlabelled = unlabelled_words(label)
        gaps = Stretches(unlabelled)
        places = list(tokens or [(token.start, token.end) for token in result.tokens])
        if scheme is Scheme.PLAIN:
            # The words that were read are not always the record's tokens: `can't` is several.
            classes = [Span(token.start, token.end, token.tag) for token in result.tokens]
            places = [place for place in places if not gaps.touch(*place)]
            gold, predicted = (tags_of(spans, places, scheme) for spans in (label, classes))
            return TaggedText(tuple(gold)), TaggedText(tuple(predicted))
        found = tuple(Span(e.start, e.end, e.label) for e in result.entities)
        if unlabelled:
            # An entity that reaches into unlabelled words may be right or wrong, so entities of the
            # record that it overlaps cannot be counted as missed.
            doubtful = [place for place in borders_of(found) if gaps.touch(*place)]
            unsure, left_out = Stretches(doubtful), Stretches([*unlabelled, *doubtful])
            found = tuple(s for s in found if not gaps.touch(s.start, s.end))
            label = tuple(s for s in label if not unsure.touch(s.start, s.end))
            places = [place for place in places if not left_out.touch(*place)]
        return (
            TaggedText(tuple(tags_of(label, places, scheme)), frozenset(label)),
            TaggedText(tuple(tags_of(found, places, scheme)), frozenset(found)),
        )

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Compute the metrics of entities, or of tags that are plain classes."""
        return tagging_metrics(gold, predicted, _scheme(spec))

    def metric_of(self, spec: TaskSpec) -> str:
        """Return `f1` of entities, or the accuracy of plain classes."""
        return "token_accuracy" if spec.scheme is Scheme.PLAIN else self.main_metric

    def ratio(self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]) -> Ratio:
        """Write the main metric as a ratio: the F1 of entities, or right tokens over all."""
        if spec.scheme is not Scheme.PLAIN:
            return Ratio.f1(entity_counts(gold, predicted))
        pairs = [(one.tags, other.tags) for one, other in zip(gold, predicted, strict=True)]
        right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairs]
        return Ratio(np.array(right, np.float64), np.array([len(t) for t, _ in pairs], np.float64))

    def sentence(self, spec: TaskSpec) -> str:
        """Return the sentence about entities, or about words that have plain classes."""
        if spec.scheme is Scheme.PLAIN:
            return "{token_accuracy:.0%} of the words get the right class"
        return self.in_words

    def shown(self, spec: TaskSpec, value: TaggedText) -> Any:
        """Return the entities, or the tags that are plain classes."""
        if value.entities is None:
            return " ".join(value.tags)
        return [{"start": s.start, "end": s.end, "label": s.label} for s in sorted(value.entities)]

    def compares(self, label: Label, text: str, tokens: Sequence[WordSpan] | None) -> bool:
        """Return whether any word has a label."""
        unlabelled = unlabelled_words(label)
        if label or not unlabelled:
            return True
        gaps = Stretches(unlabelled)
        words = segment(text).tolist() if tokens is None else tokens
        return not all(gaps.touch(*place) for place in words)

    def answer_scores(self, label: Label, result: TaggingResult) -> tuple[float, ...]:
        """Return the scores of the entities that reach into no word without a label."""
        return tuple(e.score for e in judgeable(result.entities, label))

    def decisions(
        self, spec: TaskSpec, gold: TaggedText, predicted: TaggedText, scores: Sequence[float]
    ) -> tuple[Decision, ...]:
        """Compare the entities by characters, or the tokens by their classes."""
        if gold.entities is not None and predicted.entities is not None:
            return entity_decisions(gold.entities, predicted.entities, scores)
        pairs = zip(gold.tags, predicted.tags, strict=True)
        return tuple(_class_decision(*pair) for pair in pairs if pair != (OUTSIDE, OUTSIDE))


def _class_decision(gold: str, predicted: str) -> Decision:
    """Compare the classes of a token; `O` means no class."""
    if gold == OUTSIDE:
        return Decision(None, predicted, INVENTED)
    if predicted == OUTSIDE:
        return Decision(gold, None, MISSED)
    return Decision(gold, predicted, "" if gold == predicted else WRONG_CLASS)


def _units(spec: TaskSpec) -> Units:
    stored = spec.details.get("units", Units.WORDS.value)
    try:
        return Units(stored)
    except ValueError:
        found = f"units are {shorten(stored)}"
        raise DataError(found, expected='"words" or "pieces"') from None


def _stages(spec: TaskSpec) -> tuple[int, ...]:
    stored = spec.details.get("stages", [])
    if not isinstance(stored, list) or not all(type(size) is int for size in stored):
        raise DataError(f"stages are {shorten(stored)}", expected="a list of numbers of tags")
    return tuple(stored)


def _scheme(spec: TaskSpec) -> Scheme:
    return cast(Scheme, spec.scheme)
