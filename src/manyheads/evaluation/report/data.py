"""The report as data: plain values that JSON holds, all of bounded size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from manyheads.data.suspects import Suspect
from manyheads.errors import counted
from manyheads.tasks.html import table

MAX_ERRORS = 5000
"""Records with an error that are listed at most; of more, some spread evenly."""
MAX_TEXT = 1000
"""Characters of a text that are shown."""
MAX_POINTS = 1500
"""Sentences of the map."""
MAX_LABELS = 300
"""Labels of a task that are listed; of more, those in most errors."""
MAX_SLICES = 20
"""Values of a custom field; the rarer ones are merged."""
MAX_SUSPECTS = 200
"""Suspect labels that are listed."""
_CHANCE = 0.05
"""The p-value from which a difference can be chance."""
FAR = 100
"""Of a task with numbers, the records listed as errors: those farthest from the right number."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label's scores, and how often it is in the training data."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    errors: int
    """Decisions that are wrong and have it as gold label or prediction."""
    training: int | None = None
    """Training records with it; None if the training data are not available."""
    low: float | None = None
    """The 95 % interval of its F1 (bootstrap over records); None where there is none."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix; None stands for no label."""

    gold: str | None
    predicted: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of predictions of similar score."""

    low: float
    """The lowest score among them."""
    high: float
    """The highest score."""
    right: int
    wrong: int
    score: float
    """The mean score."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """The predictions that reach a score, and their precision."""

    score: float
    coverage: float
    """The share of the predictions."""
    precision: float
    """The share of those that are right."""
    recall: float
    """The share of the gold labels that they find."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How well scores agree with the share of predictions that is right."""

    bins: tuple[Bin, ...]
    """Of equal mass: those of the calibration error of `evaluate`."""
    histogram: tuple[tuple[int, int], ...]
    """Right and wrong predictions by score, in bars of equal width from 0 to 1."""
    thresholds: tuple[Threshold, ...]
    mean_score: float
    precision: float
    calibration_error: float
    """The mean distance of score and precision over the bins, weighted by their predictions."""
    error_by_chance: float
    """That of perfectly calibrated scores, by as many predictions."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The main metric on the records with one value of a property."""

    value: str
    records: int
    score: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A label to work on, with the cause of its errors."""

    label: str
    f1: float
    errors: int
    cause: str
    advice: str


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What a task gets right and wrong."""

    name: str
    kind: str
    measured_in: str
    metric: str
    """The name of the main metric."""
    score: float
    low: float | None
    high: float | None
    records: int
    metrics: Mapping[str, float]
    labels: tuple[LabelScore, ...] = ()
    hidden_labels: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """How often each kind of error occurs."""
    cells: tuple[Cell, ...] = ()
    confidence: Confidence | None = None
    slices: Mapping[str, tuple[Slice, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training sentence near a sentence, and its labels in words."""

    text: str
    labels: str
    cosine: float


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """A task's gold label and prediction for a record."""

    gold: Any
    predicted: Any
    scores: tuple[float, ...]
    wrong: tuple[tuple[str | None, str | None, str, bool], ...]
    """The wrong decisions: gold label, prediction, kind of error, and whether it belongs to the
    error of the decision before."""


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """A record that some task gets wrong."""

    row: int
    where: str
    text: str
    text2: str | None
    is_cut: bool
    """Whether a text is longer than what is shown of it."""
    tasks: Mapping[str, TaskAnswer]
    slices: Mapping[str, str]
    near: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class SentenceMap:
    """Sentences in a plane: by UMAP, or the two directions in which embeddings vary most."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    texts: tuple[str, ...]
    labels: Mapping[str, tuple[str | None, ...]]
    """By task the gold label of each sentence."""
    wrong: Mapping[str, tuple[bool, ...]]
    """By task whether its answer is wrong for each sentence."""
    explained: float | None
    """The share of the embeddings' variance that the plane shows; None of UMAP."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a training run measured at the end of an epoch."""

    epoch: int
    is_best: bool
    losses: Mapping[str, float]
    scores: Mapping[str, float]
    """By task, the main metric on the validation data."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A score by number of training records, with its 95 % interval."""

    records: int
    score: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The score of heads on the frozen encoder by number of training records.

    It is measured on the report's records; the encoder is that which training began with.
    """

    name: str
    metric: str
    seeds: int
    """Trainings of each size."""
    points: tuple[CurvePoint, ...]
    further: tuple[CurvePoint, ...]
    """Extrapolated to more records than there are."""
    gain: float
    """What twice the records would add, by the law."""
    gain_low: float
    """The 95 % interval of the gain."""
    gain_high: float
    law: tuple[float, float, float]
    """(limit, drop, exponent): limit - drop * (records / all records) ** -exponent."""
    check: CurvePoint | None
    """The score of all records as the smaller sizes alone would extrapolate it."""

    def in_words(self) -> list[str]:
        """Return what more records would bring, in sentences."""
        now, twice, (limit, drop, _) = self.points[-1], self.further[0], self.law
        text = (
            f"{self.name}: twice the {now.records:,} training records would raise {self.metric} by "
            f"{self.gain:.3f} (95 % interval {self.gain_low:.3f} to {self.gain_high:.3f}), from "
            f"{limit - drop:.3f} to {twice.score:.3f} on the curve of heads on the frozen encoder"
        )
        if self.check is None or self.check.low <= now.score <= self.check.high:
            return [f"{text}."]
        return [
            f"{text}. Do not rely on that: by the smaller sizes alone, all records would reach "
            f"{self.check.score:.3f} ({self.check.low:.3f} to {self.check.high:.3f})."
        ]


@dataclass(frozen=True, slots=True)
class TaskChange:
    """How a task's answers changed from another model."""

    name: str
    metric: str
    before: float
    after: float
    low: float | None
    """The 95 % interval of the difference (paired bootstrap); None if the metric has none."""
    high: float | None
    better: int
    """Records that became right."""
    worse: int
    """Records that became wrong."""
    p_value: float | None
    """How probable so uneven changes are between equally good models (McNemar's exact test)."""


@dataclass(frozen=True, slots=True)
class ChangedRecord:
    """A record that became right or wrong."""

    row: int
    where: str
    text: str
    task: str
    is_better: bool
    gold: Any
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from another model."""

    model: str
    """The model that is compared with."""
    tasks: tuple[TaskChange, ...]
    records: tuple[ChangedRecord, ...]
    unlisted: int
    """Changed records that are not listed."""

    def in_words(self) -> list[str]:
        """Return a sentence for each task."""
        return [_change_in_words(one, self.model) for one in self.tasks]


def _change_in_words(task: TaskChange, model: str) -> str:
    text = (
        f"{task.name}: {task.metric} {task.after:.4f}, {task.after - task.before:+.4f} from {model}"
    )
    if task.low is not None and task.high is not None:
        text += f" (95 % interval {task.low:+.4f} to {task.high:+.4f})"
    text += f"; {task.better:,} records became right, {task.worse:,} wrong"
    if task.p_value is not None:
        text += f" (McNemar's test: p {task.p_value:.3f})"
        if task.p_value >= _CHANCE:
            text += ": this can be chance"
    return f"{text}."


@dataclass(frozen=True, repr=False)
class Report:
    """What a model does on labelled data, and what it gets wrong."""

    model: str
    data: tuple[str, ...]
    evaluation: Mapping[str, Any]
    """As `evaluate --json` writes it."""
    frame_interval: tuple[float, float] | None
    tasks: tuple[TaskReport, ...]
    errors: tuple[ErrorRecord, ...]
    wrong_records: int
    """Records with an error; more than are listed in `errors` where there are many."""
    sentences: SentenceMap | None = None
    epochs: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()
    """What is not shown, and why."""
    changes: Changes | None = None
    """What changed from another model, where one is named."""
    suspects: tuple[Suspect, ...] | None = None
    """The labels of the training data that are likely wrong, where they were looked for."""
    curves: tuple[LearningCurve, ...] = ()
    """By task, the score by number of training records, where it was measured."""

    def __repr__(self) -> str:
        return "\n  ".join([f"Report({self._title()})", *self.verdict])

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the verdict, a row for each sentence."""
        return table(self._title(), ["verdict"], [[sentence] for sentence in self.verdict])

    def _title(self) -> str:
        records = counted(self.evaluation["records"], "record")
        return f"{self.model!r}, {records}, {counted(self.wrong_records, 'error')}"

    @property
    def verdict(self) -> Sequence[str]:
        """What changed, what is good and what to work on first, a sentence each."""
        changed = [] if self.changes is None else self.changes.in_words()
        found = [sentence for task in self.tasks for sentence in task.verdict]
        return changed + found + [text for curve in self.curves for text in curve.in_words()]

    def to_json(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return asdict(self)
