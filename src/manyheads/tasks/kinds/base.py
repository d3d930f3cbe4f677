"""What a kind of task is: everything about it that another room asks.

Axes: N records, B sentences, W words, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, ModelError, shorten
from manyheads.tasks.calibration import Calibration
from manyheads.tasks.decisions import WRONG_CLASS, Decision
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.results import Result
from manyheads.tasks.scoring import Evidence, Judged, Scoring
from manyheads.tasks.soft_targets import Spans, columns_of
from manyheads.tasks.suspicion import Is, Suspicion
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec

UNLABELLED = -100
"""The target of padding and of records without a label of the task; it never counts."""
UNKNOWN = -101
"""The target of a word without a tag in a sentence whose other words have some."""

HEAD_OPTIONS = ("reads", "dropout", "frozen")
"""Options of every kind whose head has parameters."""
LABEL_OPTIONS = ("labels", "num_labels")
"""Options of every kind whose labels have names."""
SENTENCE_OPTIONS = ("pooling", "hidden")
"""Options of a head that reads one vector a sentence (`SentenceScorer`)."""

Lengths = Sequence[int] | NDArray[np.integer[Any]]

Label = Any
"""A record's label, by name: of the built-in kinds a class, any number of classes, spans, or a
`Pair`."""
Columns = type[Any] | dict[str, "Columns"] | list["Columns"]
"""The type of a table's column: `str`, `int` or `float`, a dict of them for a struct, or a list of
one element for a list."""


class Settings(Protocol):
    """The part of a task's configuration (`TaskConfig`) that kinds read."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record in which the label may be."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels, where the configuration lists them."""

    @property
    def num_labels(self) -> int | None:
        """How many labels there are at most."""

    @property
    def scheme(self) -> str:
        """How tags without a prefix are read."""

    @property
    def score_range(self) -> tuple[float, float]:
        """The lowest and the highest score of a pair."""


class RawRecord(NamedTuple):
    """A record whose labels have not been read."""

    fields: Mapping[str, Any]
    text: str
    tokens: tuple[WordSpan, ...] | None
    """The characters of the user's tokens, if the text was given as such."""
    where: str
    """The record's place, for messages."""


class ReadText(Protocol):
    """A text that was predicted for."""

    @property
    def text(self) -> str:
        """The text as the user gave it."""

    @property
    def tokens(self) -> Sequence[WordSpan] | None:
        """The characters of the user's tokens, if the text was given as such."""

    @property
    def words(self) -> Sequence[WordSpan]:
        """The characters of the words that the model read."""


class Rows(Protocol):
    """Rows of numbers of different lengths."""

    def row(self, i: int) -> NDArray[Any]:
        """Return one row."""

    def padded(self, rows: NDArray[np.int64], fill: int, width: int | None = None) -> NDArray[Any]:
        """Gather rows into a rectangle, filled up at the right."""


class Targets(Protocol):
    """One task's targets for all records of a data set."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """[N] whether the record has a label."""

    @property
    def values(self) -> Rows:
        """[N] rows, as `Kind.target` made them."""

    @property
    def num_labels(self) -> int:
        """L."""

    @property
    def partners(self) -> NDArray[np.int64] | None:
        """[N] the row of each record's second text, -1 where it has none."""


ReadLabel = Callable[[RawRecord, str], Label]
"""Reads a task's label from (record, field)."""


Shape = tuple[int | None, ...]
"""The shape of an array; None for an axis of any length."""

ReadParameter = Callable[[str, Shape], Floats]
"""Reads a head's parameter from (name, shape) as float32."""


def fits(found: tuple[int, ...], expected: Shape) -> bool:
    """Return whether an array has a shape."""
    return len(found) == len(expected) and all(
        size in (None, length) for length, size in zip(found, expected, strict=True)
    )


def paired(
    targets: Targets, rows: NDArray[np.int64], values: NDArray[Any]
) -> NDArray[Any]:  # fmt: skip
    """Put beside each pair's target the place of its second text in the batch.

    The second texts stand at the end of a batch, in the order of the first ones.

    Args:
        targets: of all records.
        rows: [R] the batch's rows.
        values: [R] the targets.

    Returns:
        [R, 2], `UNLABELLED` where there is no label.
    """
    partners = np.full(len(rows), -1) if targets.partners is None else targets.partners[rows]
    is_pair = partners >= 0
    places = len(rows) - is_pair.sum() + np.cumsum(is_pair) - 1
    places = np.where(targets.labelled[rows], places, UNLABELLED)
    return np.stack([values, places.astype(values.dtype)], axis=1)


class Rates(NamedTuple):
    """Peak learning rates."""

    encoder: float = 1e-4
    heads: float = 1e-3


class Kind(ABC):
    """A kind of task. Make a new one by subclassing this, or a built-in kind, and registering it.

    A kind has no state: tasks differ by their `TaskSpec`.
    """

    name: ClassVar[str]
    """The value of `kind` in configurations and model folders."""
    fields: ClassVar[tuple[str, ...]]
    """The fields of a record in which the label is looked for unless the task sets `field`."""
    head: ClassVar[str | type[Any]]
    """The head's class, a subclass of `manyheads.modeling.Head`; or `module:class`, which is only
    imported where torch is used."""
    metrics: ClassVar[tuple[str, ...]]
    """The numbers among the metrics by which a best model can be chosen: larger is better."""
    main_metric: ClassVar[str]
    """The one number that stands for a task, larger is better."""
    options: ClassVar[tuple[str, ...]] = HEAD_OPTIONS
    """The options of a task that this kind takes, beside those that all kinds take."""
    spec_fields: ClassVar[tuple[str, ...]] = ()
    """The fields of its `TaskSpec` beside name, kind and labels."""
    optional_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of its `TaskSpec` that are only stored where they differ from a default."""
    named_labels: ClassVar[bool] = False
    """Whether labels have names, so that a task has at least one."""
    answers: ClassVar[bool] = True
    """Whether there is a result for a text, beside its embedding."""
    pairs: ClassVar[bool] = False
    """Whether labels are about two texts, `text` and `text2`."""
    per_word: ClassVar[bool] = False
    """Whether there is an output for every word rather than for the text."""
    whole_batches: ClassVar[bool] = False
    """Whether the loss compares the records of a batch with each other, so that a batch cannot be
    split between processes."""
    decides: ClassVar[bool] = True
    """Whether an answer is right or wrong; a number is only near or far."""
    calibrates: ClassVar[bool] = False
    """Whether scores are calibrated after training (see `fit_calibration`)."""
    scopes: ClassVar[bool] = False
    """Whether a text has exactly one class, by which it can be of none that is known."""
    has_probabilities: ClassVar[bool] = False
    """Whether each label of a text has a probability (see `probabilities`)."""
    checks_labels: ClassVar[bool] = False
    """Whether likely wrong labels can be found (see `suspicions`)."""
    teaches: ClassVar[bool] = False
    """Whether another model can learn its answers (see `soft`)."""
    can_be_empty: ClassVar[bool] = False
    """Whether a label may be empty: no class applies, or there is no entity."""
    exclusive: ClassVar[bool] = False
    """Whether every label is exactly one of the classes."""
    in_words: ClassVar[str] = ""
    """A sentence about the metrics, which it names in braces; empty for the main metric alone."""
    measured_in: ClassVar[str] = "numbers"
    """The unit in which metrics are counted, for tables."""
    table_columns: ClassVar[Mapping[str, str]] = {}
    """For a table of all tasks, the metric in each shared column."""
    table_note: ClassVar[str] = ""
    """How the columns of that table are to be read for this kind."""
    sought_as: ClassVar[str | None] = None
    """The name of the task that the data check looks for in files without a configuration."""
    card_tag: ClassVar[str | None] = None
    """The name of such a task on model hubs."""
    no_labels: ClassVar[str] = "numbers"
    """The text on the model card in place of labels, for kinds without names."""

    # ---------------------------------------------------------------------- from a file alone

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values of a field can be labels of this kind.

        This is how tasks are found in a file without a configuration. Default: never, so that a
        task of this kind has to be configured.
        """
        return False

    def starting_options(self, values: FieldValues, given: Collection[str]) -> Mapping[str, Any]:
        """Return the options of a task that is found so, where they are not the defaults.

        Args:
            values: those of its field.
            given: the options that the user sets, which lie over these.
        """
        return {}

    def starting_rates(self, values: FieldValues) -> Rates:
        """Return the learning rates that suit such a task alone; the highest of a run count."""
        return Rates()

    # ------------------------------------------------------------------------------ from records

    @abstractmethod
    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of one task's labels.

        Args:
            task: its name, for messages.
            settings: its configuration.
            known: its labels; without them, names are taken as they are and indices as names.
            keeps_unseen: whether names that are not among the known labels are kept.
        """

    def found(self, task: str, fields: str) -> Found:
        """Begin to collect the labels of the training data."""
        return Found(task, fields)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Take note of a record's label. By default it is only read.

        Raises:
            DataError: it is not a label of this kind.
        """
        self.reader(found.task, settings, None, True)(record, field)

    def missing(self, found: Found, labelled: int) -> str:
        """Describe what is missing in the labels of `labelled` records; empty if nothing is."""
        return ""

    def decide(self, settings: Settings, found: Found, refuse: Refuse) -> LabelSet:
        """Decide the labels of a task.

        Args:
            settings: its configuration.
            found: the labels of the training data.
            refuse: takes the error of each label that the configuration does not list.

        Raises:
            DataError: what was found contradicts itself or the configuration.
        """
        return LabelSet(())

    # ------------------------------------------------------------------------------- to training

    def target_type(self, labels: LabelSet) -> type[np.number[Any]]:
        """Return the type that targets are stored in."""
        return np.int16 if len(labels) < 2**15 else np.int32

    @abstractmethod
    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Turn a record's label into the numbers that are stored for training.

        Args:
            label: as the kind's reader made it; None if the record has none.
            words: [W, 2] the characters of the text's words.
            labels: the task's labels.
            settings: the task's configuration.

        Raises:
            DataError: the label is not among the task's.
        """

    def collate(self, targets: Targets, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Make the targets of a batch, `UNLABELLED` where there is no label. Default: one number.

        Args:
            targets: of all records.
            rows: [B] record numbers.
            width: W of the batch.

        Returns:
            int64 or float32, in the shape that the head's loss takes.
        """
        return targets.values.padded(rows, UNLABELLED, 1)[:, 0]

    # ------------------------------------------------- from logits: of a kind that answers

    def label_set(self, spec: TaskSpec) -> LabelSet:
        """Return the labels of a stored task, as discovery decided them.

        Raises:
            DataError: they are not labels of this kind.
        """
        return LabelSet(spec.labels)

    def output_size(self, spec: TaskSpec) -> int:
        """Return how many numbers the head computes for a text or word; 0 if that varies."""
        return len(spec.labels)

    def learned(self, spec: TaskSpec, read: ReadParameter) -> Any:
        """Return what decoding needs of the head's parameters; None if it needs none.

        Args:
            spec: the task.
            read: reads a parameter of the head.
        """
        return None

    def decode(self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Any) -> Any:
        """Turn the logits of some sentences into answers, as `results` takes them.

        Args:
            spec: the task.
            logits: [B, L]; of a kind with outputs per word [B, W, L]; of a kind that answers for
                pairs [B, 2, L], both texts' outputs.
            lengths: [B] the number of words, of a kind with outputs per word.
            learned: see `learned`.
        """
        raise self._no_answer(spec)

    def results(self, spec: TaskSpec, texts: Sequence[ReadText], decoded: Any) -> list[Result]:
        """Turn decoded answers into what a prediction shows, a result a text."""
        raise self._no_answer(spec)

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Make the result of a text without words."""
        raise self._no_answer(spec)

    def probabilities(self, logits: Floats, learned: Any) -> Floats:
        """Return the probability of every label, [B, L], for kinds that have them.

        Args:
            logits: the head's outputs for some texts.
            learned: see `learned`.
        """
        raise NotImplementedError

    def calibrated(self, logits: Floats, learned: Any, calibration: Calibration | None) -> Floats:
        """Return the calibrated probability of every label, [B, L], for kinds that have them."""
        return self.probabilities(logits, learned)

    def class_logits(self, logits: Floats, learned: Any) -> Floats:
        """Return the logit of every label, [B, L], from the head's outputs.

        Args:
            logits: the head's outputs for some texts.
            learned: see `learned`.
        """
        return logits

    def scored(
        self, spec: TaskSpec, results: list[Result], logits: Floats, learned: Any, scoring: Scoring
    ) -> list[Result]:
        """Return results with calibrated scores, held to thresholds, and with candidates.

        By default they stay as they are.

        Args:
            spec: the task.
            results: as `results` made them, a result a text.
            logits: the head's outputs for these texts.
            learned: see `learned`.
            scoring: what is asked for; never plain.
        """
        return results

    def soft(
        self, spec: TaskSpec, outputs: Floats, lengths: Lengths | None, learned: Any
    ) -> Floats:
        """Return what another model can learn of the outputs, for kinds that teach.

        Args:
            spec, lengths, learned: see `decode`.
            outputs: as `decode` takes them.

        Returns:
            [B, S], or [B, W, S] of a kind with outputs per word: the probability of each label, or
            the number.
        """
        raise NotImplementedError

    def adopted(
        self, teacher: TaskSpec, soft: Floats, labels: LabelSet, read: Spans, words: Spans
    ) -> Floats:
        """Turn what a teacher knows of a text into targets of its student.

        Default: probabilities of the same labels, in the student's order.

        Args:
            teacher: the teacher's task.
            soft: [S] or [V, S], as `soft` made them.
            labels: the student's labels.
            read: [V, 2] the characters of the words that the teacher read.
            words: [W, 2] the characters of the student's words.

        Returns:
            [S] or [W, S] float32, as the head's `soft_loss` takes them; NaN where nothing is known.

        Raises:
            DataError: the teacher has other labels.
        """
        found: Floats = soft[..., columns_of(teacher.labels, labels)]
        return found

    def read_soft(
        self, value: Any, labels: LabelSet, text: str, words: Spans, where: str
    ) -> Floats:
        """Read soft labels from a file.

        Args:
            value: the field of the task's name.
            labels: the task's.
            text: the text.
            words: [W, 2] the characters of its words.
            where: its place, for messages.

        Returns:
            as `adopted`.

        Raises:
            DataError: it is not of this kind.
        """
        raise DataError(
            f"tasks of kind {self.name} learn nothing from a file of soft labels", where=where
        )

    def columns(self, spec: TaskSpec) -> Columns:
        """Return the type of a table's column of results."""
        raise self._no_answer(spec)

    def cell(self, spec: TaskSpec, result: Any) -> Any:
        """Return a result as a value of that column."""
        raise self._no_answer(spec)

    def _no_answer(self, spec: TaskSpec) -> ModelError:
        return ModelError(
            f"task {shorten(spec.name)} is of kind {shorten(self.name)}, which has no results",
            expected="a kind of task that answers for a text",
        )

    # --------------------------------------------------------- to calibration: of kinds that do

    def evidence(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any,
        logits: Floats,
    ) -> Evidence | None:  # fmt: skip
        """Return what calibration learns from a record; None if it learns nothing.

        Args:
            spec: the task.
            label: the record's.
            tokens: the characters of the record's tokens, if it has any.
            result: of a prediction for it, without calibration.
            logits: [L] of a kind with an output a text, as `class_logits` returned them.
        """
        return None

    def fit_calibration(
        self, spec: TaskSpec, evidence: Sequence[Evidence], folds: NDArray[np.int64]
    ) -> Calibration | None:
        """Fit a calibration; None where there is too little evidence.

        Args:
            spec: the task.
            evidence: of N records.
            folds: [N] the fold of each record, for choices by cross-validation.
        """
        return None

    def judge(
        self, spec: TaskSpec, evidence: Sequence[Evidence], calibration: Calibration | None
    ) -> Judged:
        """Return the score of each answer, and whether it is right."""
        raise NotImplementedError

    def accepts(self, spec: TaskSpec, calibration: Calibration) -> bool:
        """Return whether a stored calibration is one of this kind and size."""
        return False

    # -------------------------------------------------------------------------------- to scores

    @abstractmethod
    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any
    ) -> tuple[Any, Any]:
        """Return gold and prediction of a record, in a form that can be compared.

        Args:
            spec: the task.
            label: the record's.
            tokens: the characters of the record's tokens, if it has any.
            result: of a prediction for it; of a kind that does not answer, the cosine of the
                embeddings of a pair.
        """

    @abstractmethod
    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Compute the metrics from the outcomes of all records."""

    def metric_of(self, spec: TaskSpec) -> str:
        """Return the name of the task's main metric."""
        return self.main_metric

    def ratio(self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]) -> Ratio | None:
        """Return the main metric as a ratio of sums over records, for tests of differences.

        None, by default: it is no such ratio, and such tests are impossible.
        """
        return None

    # ------------------------------------------------------------------------------- to reports

    def shown(self, spec: TaskSpec, value: Any) -> Any:
        """Return gold or prediction, as `outcome` made them, as a value of JSON that people read.

        Entities are a list of objects with `start`, `end` and `label`. By default numbers and
        strings are themselves, anything else its `str`.
        """
        return value if isinstance(value, str | int | float) else str(value)

    def decisions(
        self, spec: TaskSpec, gold: Any, predicted: Any, scores: Sequence[float]
    ) -> tuple[Decision, ...]:
        """Compare the labels of one record with the predictions one by one.

        By default the answer is one decision, right or wrong; none if the kind does not decide.

        Args:
            spec: the task.
            gold, predicted: of the record, as `outcome` made them.
            scores: the probabilities of the answer (`Result.scores`).
        """
        if not self.decides:
            return ()
        right, found = (str(self.shown(spec, value)) for value in (gold, predicted))
        error = "" if gold == predicted else WRONG_CLASS
        return (Decision(right, found, error, scores[0] if len(scores) == 1 else None),)

    def distance(self, spec: TaskSpec, gold: Any, predicted: Any) -> float | None:
        """Return how far a number is from the right one. Default: None, it has no meaning."""
        return None

    # -------------------------------------------------------------------- to likely wrong labels

    def log_probabilities(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Any
    ) -> list[Floats]:
        """Return the log probability of every label of each text: [L], or [W, L] of its words.

        Args and shapes are those of `decode`.
        """
        return list(np.log(np.maximum(self.probabilities(logits, learned), 1e-9)))

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats
    ) -> list[Suspicion]:
        """Compare a record's label with others, for kinds that `checks_labels`.

        Args:
            spec: the task.
            label: the record's.
            text: its text.
            logs: the log probabilities of a model that has not seen the record.

        Returns:
            For each part of the label the most probable other one, likelier or not.
        """
        raise NotImplementedError

    def spoiled(
        self, spec: TaskSpec, label: Label, text: ReadText, generator: np.random.Generator
    ) -> tuple[Label, Is] | None:
        """Make one part of a label wrong, for kinds whose ranking is learned from such labels.

        Args:
            spec: the task.
            label: the record's.
            text: its text.
            generator: draws what becomes wrong.

        Returns:
            The label, and a function that returns whether a suspicion is about the change. None
            where what was drawn is not possible, and by default: suspicions rank by their score.
        """
        return None

    def corrected(self, label: Label, given: Any, proposed: Any) -> Label:
        """Return a label with one part replaced (see `Suspicion`).

        Raises:
            DataError: the label has no such part.
        """
        raise NotImplementedError

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return a label as the value of a record's field, in values of JSON."""
        raise NotImplementedError
