"""The optional parts of a kind of task, by concern; each class is a base of `Kind`.

Axes: N records, B sentences, W words, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError
from manyheads.tasks.calibration import Calibration
from manyheads.tasks.decisions import WRONG_CLASS, Decision
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.kinds.values import Label, Lengths, ReadText
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.results import Result
from manyheads.tasks.scoring import Evidence, Judged, Scoring
from manyheads.tasks.soft_targets import Spans, columns_of
from manyheads.tasks.suspicion import Is, Suspicion
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


class Rates(NamedTuple):
    """Peak learning rates."""

    encoder: float = 1e-4
    heads: float = 1e-3


class Discovery:
    """Discovery of tasks in files without a configuration: a kind writes `recognises`."""

    sought_as: ClassVar[str | None] = None
    """The name of the task for which the data check searches files without a configuration."""
    starting: ClassVar[Mapping[str, Any]] = {}
    """The options of a task that is found in this way, where they are not the defaults and do not
    depend on the data; the help shows them."""

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values of a field can be labels of this kind.

        This is how tasks are found in a file without a configuration. Default: never, so that tasks
        of the kind have to be configured.
        """
        return False

    def starting_options(self, values: FieldValues, given: Collection[str]) -> Mapping[str, Any]:
        """Return the options of a task that is found in this way, where they are not the defaults.

        By default these are `starting`.

        Args:
            values: those of its field.
            given: the options that the user sets, which override these.
        """
        return self.starting

    def starting_rates(self, values: FieldValues) -> Rates:
        """Return the learning rates that suit such a task; a run uses the highest of its tasks."""
        return Rates()


class Calibrating:
    """Probabilities and their calibration.

    A kind with probabilities sets `has_probabilities`, and writes `probabilities`. One whose scores
    are calibrated after training sets `calibrates`, and writes `calibrated`, `scored`, `evidence`,
    `examples`, `fit_calibration`, `judge` and `accepts`.
    """

    has_probabilities: ClassVar[bool] = False
    """Whether each label of a text has a probability (see `probabilities`)."""
    calibrates: ClassVar[bool] = False
    """Whether scores are calibrated after training (see `fit_calibration`)."""
    scopes: ClassVar[bool] = False
    """Whether texts have exactly one class, so that a text can be out of scope."""

    def probabilities(self, logits: Floats, learned: Any) -> Floats:
        """Return the probability of every label, [B, L], for kinds that have them.

        Args:
            logits: the head's outputs for some texts.
            learned: see `learned`.
        """
        raise NotImplementedError

    def class_logits(self, logits: Floats, learned: Any) -> Floats:
        """Return the logit of every label, [B, L], from the head's outputs.

        Args:
            logits: the head's outputs for some texts.
            learned: see `learned`.
        """
        return logits

    def calibrated(self, logits: Floats, learned: Any, calibration: Calibration | None) -> Floats:
        """Return the calibrated probability of every label, [B, L], for kinds that have them."""
        return self.probabilities(logits, learned)

    def scored(
        self, spec: TaskSpec, results: list[Result], logits: Floats, learned: Any, scoring: Scoring
    ) -> list[Result]:
        """Return results with calibrated scores, thresholds applied, and candidates.

        By default they are unchanged.

        Args:
            spec: the task.
            results: from `results`, one per text.
            logits: the head's outputs for these texts.
            learned: see `learned`.
            scoring: the requested scoring; never plain.
        """
        return results

    def evidence(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any,
        logits: Floats,
    ) -> Evidence | None:  # fmt: skip
        """Return the evidence of a record for calibration; None if it has none.

        Args:
            spec: the task.
            label: the record's.
            tokens: the characters of the record's tokens, if it has any.
            result: the prediction's, without calibration.
            logits: [L] from `class_logits`, of a kind with one output per text.
        """
        return None

    def examples(self, evidence: Sequence[Evidence]) -> int:
        """Return how many examples for a calibration the evidence of some records has."""
        return len(evidence)

    def fit_calibration(
        self, spec: TaskSpec, evidence: Sequence[Evidence], folds: NDArray[np.int64]
    ) -> Calibration:
        """Fit a calibration.

        Args:
            spec: the task.
            evidence: of N records, with at least one example.
            folds: [N] the fold of each record, for choices by cross-validation.
        """
        raise NotImplementedError

    def judge(
        self, spec: TaskSpec, evidence: Sequence[Evidence], calibration: Calibration | None
    ) -> Judged:
        """Return the score of each answer, and whether it is right."""
        raise NotImplementedError

    def accepts(self, spec: TaskSpec, calibration: Calibration) -> bool:
        """Return whether a stored calibration is one of this kind and size."""
        return False


class Teaching:
    """Distillation: a kind that another model can learn from sets `teaches`, and writes `soft`."""

    name: ClassVar[str]
    teaches: ClassVar[bool] = False
    """Whether another model can learn its answers (see `soft`)."""

    def soft(
        self, spec: TaskSpec, outputs: Floats, lengths: Lengths | None, learned: Any
    ) -> Floats:
        """Return the outputs in the form that another model learns, for kinds that teach.

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
        """Turn a teacher's answers for a text into targets of its student.

        Default: probabilities of the same labels, in the student's order.

        Args:
            teacher: the teacher's task.
            soft: [S] or [V, S], from `soft`.
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
            see `adopted`.

        Raises:
            DataError: it is not one of this kind.
        """
        raise DataError(
            f"tasks of kind {self.name} learn nothing from a file of soft labels", where=where
        )


class Reporting:
    """How results and errors are reported; everything has a default."""

    decides: ClassVar[bool] = True
    """Whether an answer is either right or wrong; a number has a distance instead."""
    in_words: ClassVar[str] = ""
    """A sentence with metrics in braces; if empty, only the main metric is reported."""
    measured_in: ClassVar[str] = "numbers"
    """The unit that metrics count, for tables."""
    table_columns: ClassVar[Mapping[str, str]] = {}
    """The metric for each column of the table of all tasks."""
    table_note: ClassVar[str] = ""
    """How to read the columns of that table for this kind."""
    card_tag: ClassVar[str | None] = None
    """The name of such a task on model hubs."""
    no_labels: ClassVar[str] = "numbers"
    """The text on the model card in place of labels, for kinds without names."""

    def sentence(self, spec: TaskSpec) -> str:
        """Return the sentence for a task. Default: `in_words`."""
        return self.in_words

    def shown(self, spec: TaskSpec, value: Any) -> Any:
        """Return gold or prediction, as made by `outcome`, as a readable JSON value.

        Entities are a list of objects with `start`, `end` and `label`. By default, numbers and
        strings are unchanged, and other values are converted by `str`.
        """
        return value if isinstance(value, str | int | float) else str(value)

    def compares(self, label: Label, text: str, tokens: Sequence[WordSpan] | None) -> bool:
        """Return whether a record's label has anything to compare with. Default: it has.

        The prediction has no part in it, so that models are compared on the same records.

        Args:
            label: the record's.
            text: the record's.
            tokens: the record's, if it was given as tokens.
        """
        return True

    def answer_scores(self, label: Label, result: Any) -> tuple[float, ...]:
        """Return the probabilities of the answers that `outcome` keeps. Default: of all.

        Args:
            label: the record's.
            result: see `outcome`.
        """
        return tuple(result.scores()) if isinstance(result, Result) else ()

    def decisions(
        self, spec: TaskSpec, gold: Any, predicted: Any, scores: Sequence[float]
    ) -> tuple[Decision, ...]:
        """Compare a record's labels with its predictions one by one.

        By default the answer is one decision; none if the kind does not decide.

        Args:
            spec: the task.
            gold, predicted: from `outcome`.
            scores: from `answer_scores`.
        """
        if not self.decides:
            return ()
        right, found = (str(self.shown(spec, value)) for value in (gold, predicted))
        error = "" if gold == predicted else WRONG_CLASS
        return (Decision(right, found, error, scores[0] if len(scores) == 1 else None),)

    def distance(self, spec: TaskSpec, gold: Any, predicted: Any) -> float | None:
        """Return the distance of a number from the right one. Default: None, there is none."""
        return None

    def distances(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Sequence[float | None]:
        """Return the distances of all records' numbers from the right ones.

        By default each by `distance`. A kind overrides this where a number means something only
        among the others.
        """
        pairs = zip(gold, predicted, strict=True)
        return [self.distance(spec, right, found) for right, found in pairs]


class LabelChecks(Calibrating):
    """Detection of likely wrong labels.

    A kind sets `checks_labels`, and writes `suspicions`, `corrected` and `field_value`.
    """

    checks_labels: ClassVar[bool] = False
    """Whether likely wrong labels can be found (see `suspicions`); they need names, and targets
    that are their indices."""
    spoils: ClassVar[tuple[str, ...]] = ()
    """The errors that `spoiled` makes; without any, suspicions are ranked by their score."""

    def elsewhere(
        self, spec: TaskSpec, labels: Sequence[Label], texts: Sequence[ReadText]
    ) -> Callable[[int], Any]:
        """Return what the labels of all records but one show about that one, by its number.

        Args:
            spec: the task.
            labels: of all records.
            texts: of all records.
        """
        return lambda record: None

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats, elsewhere: Any
    ) -> list[Suspicion]:
        """Compare a record's label with alternatives, for kinds that check labels.

        Args:
            spec: the task.
            label: the record's.
            text: its text.
            logs: the log probabilities of a model that has not seen the record.
            elsewhere: what the other records show (see `elsewhere`).

        Returns:
            For each part of the label the most probable alternative, whether it is more likely or
            not.
        """
        raise NotImplementedError

    def spoiled(
        self,
        spec: TaskSpec,
        label: Label,
        text: ReadText,
        error: str,
        generator: np.random.Generator,
    ) -> tuple[Label, Is] | None:
        """Corrupt one part of a label, for kinds whose ranking is learned from such labels.

        Args:
            spec: the task.
            label: the record's.
            text: its text.
            error: what becomes wrong, one of `spoils`.
            generator: draws the change.

        Returns:
            The label, and a function that returns whether a suspicion is about the change. None if
            the drawn change is impossible.
        """
        raise NotImplementedError

    def corrected(self, label: Label, given: Any, proposed: Any) -> Label:
        """Return a label with one part replaced (see `Suspicion`).

        Raises:
            DataError: the label has no such part.
        """
        raise NotImplementedError

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return a label as the JSON value of a record's field."""
        raise NotImplementedError
