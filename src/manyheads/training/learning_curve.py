"""The learning curve by number of records: heads on the frozen encoder, on shares of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from manyheads.config import Config
from manyheads.data.records import Record
from manyheads.errors import DataError, RequestError, counted, listing
from manyheads.evaluation import TaskOutcomes, score
from manyheads.evaluation.report.curve import FEWEST_SIZES, Measured
from manyheads.sampling import spread
from manyheads.tasks import LabelSet, kind_of
from manyheads.training.frozen_heads import FrozenHeads, epochs_for
from manyheads.training.one_run import one_run
from manyheads.training.progress import Progress, counting

SEEDS = 3
MOST = 20_000
"""The most training records to use, spread evenly."""
_LEAST = 16
"""The number of records in the smallest share."""
_MOST_SIZES = 6


@one_run()
def measure_curves(
    config: Config,
    label_sets: Mapping[str, LabelSet],
    training: Sequence[Record],
    scored: Sequence[Record],
    *,
    seeds: int = SEEDS,
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """Train heads on halves, quarters and so on of the training records, and score them.

    Each share holds the smaller ones; each seed draws others. The encoder, as it was before
    training, reads each record once.

    Args:
        config: tasks, encoder and machine settings.
        label_sets: each task's labels.
        training: the training records; those whose text is scored are left out.
        scored: the records to score on.
        seeds: how often each share is drawn.
        progress: shows the progress, by trainings.

    Returns:
        By task its scores.

    Raises:
        DataError: there are too few training records, or a label is not known.
        RequestError: no task has an answer for a text, or another thread trains.
        ModelError: the encoder cannot be used.
    """
    tasks = {n: t for n, t in config.tasks.items() if n in label_sets and kind_of(t.kind).answers}
    if not tasks:
        raise RequestError(
            f"{listing(label_sets)} has no head that can be trained on a frozen encoder",
            expected="a task that answers for a text",
        )
    records = _unscored(training, scored)
    sizes = share_sizes(len(records))
    sets = {name: label_sets[name] for name in tasks}
    heads = FrozenHeads(records, tasks, sets, config)
    outcomes: dict[str, list[list[TaskOutcomes]]] = {name: [[] for _ in sizes] for name in tasks}
    counts = {name: np.zeros(len(sizes)) for name in tasks}
    with counting(progress, seeds * len(sizes)) as shown:
        for seed in range(seeds):
            order = np.random.default_rng([config.seed, seed]).permutation(len(records))
            for i, size in enumerate(sizes):
                generator = np.random.default_rng([config.seed, seed, i])
                heads.fit(order[:size], epochs_for(size), generator, lambda count: None)
                found = score(heads.predictor(), [(scored, tuple(tasks))])
                for name, task in found.tasks.items():
                    outcomes[name][i].append(task)
                    labelled = (name in records[place].labels for place in order[:size].tolist())
                    counts[name][i] += sum(labelled) / seeds
                shown.advance(1)
    return {
        name: _measured(outcomes[name], counts[name].round().astype(int).tolist())
        for name in tasks
        if outcomes[name][0] and outcomes[name][0][0].gold and counts[name][0] >= 1
    }


def _unscored(training: Sequence[Record], scored: Sequence[Record]) -> Sequence[Record]:
    """Return the training records to learn from, whose texts are not scored.

    Raises:
        DataError: there are too few of them.
    """
    seen = {record.texts for record in scored}
    records = spread([record for record in training if record.texts not in seen], MOST)
    if len(share_sizes(len(records))) < FEWEST_SIZES:
        raise DataError(
            f"{counted(len(records), 'training record')} whose text is not scored",
            expected=f"at least {_LEAST << (FEWEST_SIZES - 1)}",
        )
    return records


def share_sizes(records: int) -> list[int]:
    """Return the sizes of the shares: all records, a half, a quarter and so on, rising."""
    halves = [records >> k for k in range(_MOST_SIZES)]
    return [size for size in reversed(halves) if size >= _LEAST]


def _measured(outcomes: Sequence[Sequence[TaskOutcomes]], counts: Sequence[int]) -> Measured:
    first = outcomes[0][0]
    metric = first.kind.metric_of(first.spec)
    ratios = [
        tuple(ratio for one in some if (ratio := one.ratio()) is not None) for some in outcomes
    ]
    return Measured(
        metric,
        tuple(counts),
        tuple(tuple(float(one.metrics()[metric]) for one in some) for some in outcomes),
        tuple(ratios) if all(ratios) else None,
    )
