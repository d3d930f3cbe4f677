"""A ranking learned from labels that were made wrong on purpose.

A record's log probabilities do not depend on its own label, because the heads were not trained on
it. So any number of labels can be made wrong and compared without further training. From these, a
logistic regression learns the weight of each kind of evidence: that an entity is not predicted
means little if many are missed; that it is predicted with another type means more.

Axes: S suspicions, F numbers of evidence, K kinds of error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from manyheads.tasks import Floats, TaskSpec, kind_of
from manyheads.tasks.kinds import Label, ReadText
from manyheads.tasks.suspicion import Suspicion

ROUNDS = 3
SHARE = 0.3
"""The share of the records of which a label is made wrong in each round."""
PRIOR = 0.05
"""The assumed share of wrong labels, which determines where a score is 0."""
_PENALTY = 1e-3
_ENOUGH = 20


def ranked(
    spec: TaskSpec,
    labels: Sequence[Label],
    texts: Sequence[ReadText],
    logs: Sequence[Floats],
    seed: int,
) -> list[list[Suspicion]]:
    """Return the suspicions of each record; learned scores are log odds of being wrong.

    Args:
        spec: the task.
        labels: of each record.
        texts: of each record.
        logs: of each record, from heads that were not trained on it.
        seed: determines which labels are made wrong.
    """
    kind = kind_of(spec.kind)
    found = [
        kind.suspicions(spec, label, text, one)
        for label, text, one in zip(labels, texts, logs, strict=True)
    ]
    generator = np.random.default_rng([seed, len(labels)])
    samples: list[Suspicion] = []
    wrong: list[bool] = []
    for _ in range(ROUNDS):
        for i in np.flatnonzero(generator.random(len(labels)) < SHARE).tolist():
            made = kind.spoiled(spec, labels[i], texts[i], generator)
            if made is not None:
                label, is_planted = made
                some = kind.suspicions(spec, label, texts[i], logs[i])
                samples += some
                wrong += [is_planted(one) for one in some]
    if min(sum(wrong), len(wrong) - sum(wrong)) < _ENOUGH:
        return found
    samples += [one for some in found for one in some]
    wrong += [False] * (len(samples) - len(wrong))
    errors = sorted({one.error for one in samples})
    wanted = _table([one for some in found for one in some], errors)
    scores = _log_odds(_table(samples, errors), np.array(wrong, np.float32), wanted)
    at = iter(scores.tolist())
    return [[replace(one, score=next(at)) for one in some] for some in found]


def _table(suspicions: Sequence[Suspicion], errors: Sequence[str]) -> Floats:
    """Return the evidence, with separate columns for each kind of error: [S, K + K F]."""
    evidence = np.array([one.evidence for one in suspicions], np.float32)
    kinds = np.array([[one.error == name for name in errors] for one in suspicions], np.float32)
    crossed = kinds[:, :, None] * evidence[:, None, :]
    return np.concatenate([kinds, crossed.reshape(len(suspicions), -1)], axis=1)


def _log_odds(table: Floats, wrong: Floats, wanted: Floats) -> NDArray[np.float32]:
    """Fit a logistic regression, and return the log odds of other rows at `PRIOR`.

    Args:
        table: [S, K + K F].
        wrong: [S] 1 for suspicions of labels that were made wrong.
        wanted: the rows to score, [S', K + K F].
    """
    mean, scale = table.mean(axis=0), table.std(axis=0) + 1e-3
    inputs = torch.from_numpy((table - mean) / scale)
    targets = torch.from_numpy(wrong)
    weights = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights + bias
        loss = functional.binary_cross_entropy_with_logits(logits, targets)
        loss = loss + _PENALTY * (weights**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    learned = float(wrong.mean())
    shift = np.log(PRIOR / (1 - PRIOR)) - np.log(learned / (1 - learned))
    with torch.no_grad():
        scores = torch.from_numpy((wanted - mean) / scale) @ weights + bias
    odds: NDArray[np.float32] = scores.numpy() + np.float32(shift)
    return odds
