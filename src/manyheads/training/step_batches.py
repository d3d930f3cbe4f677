"""The batches of an optimiser step: gathered, with targets, split among the processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from manyheads.tasks import kind_of
from manyheads.tasks.kinds import UNKNOWN, UNLABELLED
from manyheads.training.batch_reader import Forward
from manyheads.training.data.batching import Rows, Step
from manyheads.training.data.dataset import Dataset
from manyheads.training.run import Run


@dataclass(frozen=True)
class LabelledBatch:
    """One batch of a step, with its targets."""

    forward: Forward
    """Runs the model on the batch."""
    targets: Mapping[str, Tensor]
    """By task (see `TaskTargets.collate`)."""
    dataset: int
    """The index of its data set."""
    rows: Rows
    """[B] the sentences' indices in it."""
    counts: Mapping[str, int]
    """By task, the number of labels in this process's part of the batch."""


@dataclass(frozen=True)
class StepBatches:
    """This process's part of a step's batches."""

    batches: Sequence[LabelledBatch]
    """Those of which this process has a part."""
    totals: Mapping[str, int]
    """By task, the number of labels in the step, in all processes."""
    sentences: int
    """The number of sentences in the step, in all processes."""

    @property
    def labelled(self) -> list[str]:
        """The tasks that have labels in the step."""
        return [task for task, total in self.totals.items() if total]

    def share(self, loss: str, batch: LabelledBatch) -> float:
        """Return a batch's share of the step's labels for a task.

        The share for any other loss is that of the step's sentences.
        """
        if loss not in self.totals:
            return len(batch.rows) / self.sentences
        return batch.counts.get(loss, 0) / max(1, self.totals[loss])


def load_batches(run: Run, step: Step) -> StepBatches:
    """Gather and pad this process's part of the batches of a step, source by source."""
    batches: list[LabelledBatch] = []
    totals: dict[str, int] = {}
    sentences = 0
    for part in step.parts:
        source = run.data.sources[part.source]
        dataset = run.data.datasets[source.dataset]
        for number, drawn in enumerate(part.batches):
            mine = _mine(run, source.tasks, drawn, number)
            every, rows = dataset.with_partners(drawn), dataset.with_partners(mine)
            sentences += len(every)
            targets = _targets(dataset, source.tasks, rows)
            counts = whole = _label_counts(targets)
            if len(every) > len(rows):
                whole = _label_counts(_targets(dataset, source.tasks, every))
            for task, count in whole.items():
                totals[task] = totals.get(task, 0) + count
            if len(rows):
                forward = run.reader.read(source.dataset, rows)
                batches.append(LabelledBatch(forward, targets, source.dataset, rows, counts))
    return StepBatches(batches, totals, sentences)


def _mine(run: Run, tasks: Sequence[str], drawn: Rows, number: int) -> Rows:
    """Return this process's part of a batch.

    Scored pairs are compared with all other pairs of their batch, so the processes take turns
    with whole batches.
    """
    processes = run.processes
    if not any(kind_of(run.config.tasks[task].kind).whole_batches for task in tasks):
        return processes.share(drawn)
    turn = (run.state.step + number) % processes.count
    return drawn if turn == processes.rank else drawn[:0]


def _targets(dataset: Dataset, tasks: Sequence[str], rows: Rows) -> dict[str, Tensor]:
    """Gather and pad the targets of some sentences, by task."""
    width = max(1, int(dataset.words.lengths_of(rows).max(initial=0)))
    return {task: dataset.targets[task].collate(rows, width) for task in tasks}


def _label_counts(targets: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the labels by task."""
    return {
        task: int(((target != UNLABELLED) & (target != UNKNOWN)).sum())
        for task, target in targets.items()
    }
