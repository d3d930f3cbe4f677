"""The base class of kinds of tasks: everything that other packages need to know of a kind.

Axes: B sentences, W words, L labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, shorten
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.kinds.hooks import Discovery, LabelChecks, Reporting, Teaching
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
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
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.results import Result
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


class Kind(Discovery, LabelChecks, Teaching, Reporting, ABC):
    """A kind of task. Make a new one by subclassing this, or a built-in kind, and registering it.

    A new kind has to state `name`, `fields`, `head`, `metrics` and `main_metric`, and to write
    `reader`, `target`, `outcome` and `measure`; also `decode`, `results`, `no_result`, `columns`
    and `cell`, unless `answers` is false. Everything else has a default. The base classes hold what
    only some kinds do: being found in a file without a configuration (`Discovery`), calibrated
    scores (`Calibrating`), checks of labels (`LabelChecks`), soft labels (`Teaching`) and reports
    (`Reporting`).

    A kind has no state: tasks differ by their `TaskSpec`.
    """

    name: ClassVar[str]
    """The value of `kind` in configurations and model folders."""
    fields: ClassVar[tuple[str, ...]]
    """The fields of a record that may hold the label, unless the task sets `field`."""
    head: ClassVar[str | type[Any]]
    """The head's class, a subclass of `manyheads.modeling.Head`; or `module:class`, which is
    imported only where torch is used."""
    metrics: ClassVar[tuple[str, ...]]
    """The metrics by which the best model can be chosen: numbers, larger is better."""
    main_metric: ClassVar[str]
    """The metric that represents a task; larger is better."""
    options: ClassVar[tuple[str, ...]] = HEAD_OPTIONS
    """The options of a task that this kind accepts, besides those that all kinds accept."""
    spec_fields: ClassVar[tuple[str, ...]] = ()
    """The fields of its `TaskSpec` besides name, kind and labels."""
    optional_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of its `TaskSpec` that are stored only if they differ from their default."""
    named_labels: ClassVar[bool] = False
    """Whether labels have names; a task then has at least one label."""
    can_be_empty: ClassVar[bool] = False
    """Whether a label may be empty: no class applies, or there is no entity."""
    exclusive: ClassVar[bool] = False
    """Whether every label is exactly one of the classes."""
    answers: ClassVar[bool] = True
    """Whether a text has a result besides its embedding."""
    pairs: ClassVar[bool] = False
    """Whether labels are about two texts, `text` and `text2`."""
    per_word: ClassVar[bool] = False
    """Whether the head has an output for every word rather than for the text."""
    whole_batches: ClassVar[bool] = False
    """Whether the loss compares the records of a batch with each other, so that a batch cannot be
    split between processes."""

    # ------------------------------------------------------------------------------ from records

    @abstractmethod
    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of one task's labels.

        Args:
            task: its name, for messages.
            settings: its configuration.
            known: its labels; without them, names are kept as they are and indices become names.
            keeps_unseen: whether names beyond the known labels are kept.
        """

    def found(self, task: str, fields: str) -> Found:
        """Start collecting the labels of the training data."""
        return Found(task, fields)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a record's label. By default it is only read.

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
        """Return the type in which targets are stored."""
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

    # --------------------------------------------------------------- from logits to what is shown

    def label_set(self, spec: TaskSpec) -> LabelSet:
        """Return the labels of a stored task.

        Raises:
            DataError: they are not labels of this kind.
        """
        return LabelSet(spec.labels)

    def output_size(self, spec: TaskSpec) -> int:
        """Return the number of outputs for a text or word; 0 if it depends on the encoder."""
        return len(spec.labels)

    def learned(self, spec: TaskSpec, read: ReadParameter) -> Any:
        """Return the parameters of the head that decoding needs, or None.

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
        """Turn decoded answers into results, one per text."""
        raise self._no_answer(spec)

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Make the result of a text without words."""
        raise self._no_answer(spec)

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

    # -------------------------------------------------------------------------------- to metrics

    @abstractmethod
    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any
    ) -> tuple[Any, Any]:
        """Return a record's gold label and prediction in a comparable form.

        Args:
            spec: the task.
            label: the record's.
            tokens: the characters of the record's tokens, if it has any.
            result: the prediction's; for a kind that does not answer, the cosine of the
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

        None, the default, means that it is no such ratio, and that such tests are impossible.
        """
        return None
