"""A ranking learned from labels that were made wrong on purpose.

A record's log probabilities do not depend on its own label, because the heads were not trained on
it. So any number of labels can be made wrong and compared without further training. From these, a
logistic regression learns the weight of each kind of evidence: that an entity is not predicted
means little if many are missed; that it is predicted with another type means more.

Missing parts have evidence of their own, and a regression of their own. Each error is assumed to be
as frequent as the others, so that all are ranked on one scale.

Axes: S suspicions, F numbers of evidence.
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
from manyheads.tasks.suspicion import MISSING, SUPERFLUOUS, Suspicion

PRIOR = 0.05
"""The assumed share of wrong labels, which determines where a score is 0."""
LEAST = 1000
"""The least number of labels to make wrong in each way; of fewer, some become wrong repeatedly."""
_PENALTY = 1e-3
_CLIPPED = 5.0
"""Evidence farther from its mean than this, in standard deviations, is clipped."""
_ENOUGH = 20


def ranked(
    spec: TaskSpec,
    labels: Sequence[Label],
    texts: Sequence[ReadText],
    logs: Sequence[Floats],
    seed: int,
) -> list[list[Suspicion]]:
    """Return the suspicions of each record; learned scores are log odds of being wrong.

    Of suspicions that exclude each other, only the likeliest is returned.

    Args:
        spec: the task.
        labels: of each record.
        texts: of each record.
        logs: of each record, from heads that were not trained on it.
        seed: determines which labels are made wrong.
    """
    kind = kind_of(spec.kind)
    elsewhere = kind.elsewhere(spec, labels, texts)

    def suspicions(i: int, label: Label) -> list[Suspicion]:
        return kind.suspicions(spec, label, texts[i], logs[i], elsewhere(i))

    found = [suspicions(i, label) for i, label in enumerate(labels)]
    parts = [i for i, some in enumerate(found) for one in some if one.error != MISSING]
    generator = np.random.default_rng([seed, len(labels)])
    made: list[Suspicion] = []
    weights: list[float] = []
    count = max(LEAST, len(parts))
    for error in kind.spoils if parts else ():
        places = np.arange(len(labels)) if error == SUPERFLUOUS else np.array(parts)
        for i in generator.choice(places, count).tolist():
            spoiled = kind.spoiled(spec, labels[i], texts[i], error, generator)
            if spoiled is not None:
                label, is_planted = spoiled
                some = [one for one in suspicions(i, label) if is_planted(one)]
                made += some
                weights += [len(parts) * PRIOR / len(kind.spoils) / count] * len(some)
    flat = [one for some in found for one in some]
    scores = np.array([one.score for one in flat])
    for is_missing in (False, True):
        own, other = (
            [n for n, one in enumerate(some) if (one.error == MISSING) is is_missing]
            for some in (flat, made)
        )
        if min(len(own), len(other)) >= _ENOUGH:
            given = np.array([flat[n].evidence for n in own], np.float32)
            wrong = np.array([made[n].evidence for n in other], np.float32)
            scores[own] = _log_odds(given, wrong, np.array(weights, np.float32)[other])
    score = iter(scores.tolist())
    return [_compatible([replace(one, score=next(score)) for one in some]) for some in found]


def _compatible(suspicions: Sequence[Suspicion]) -> list[Suspicion]:
    kept: list[Suspicion] = []
    for one in sorted(suspicions, key=lambda one: -one.score):
        if not any(one.excludes(other) for other in kept):
            kept.append(one)
    return kept


def _log_odds(given: Floats, wrong: Floats, weights: Floats) -> NDArray[np.float32]:
    """Learn to tell the given labels from wrong ones, and return the given ones' log odds.

    Args:
        given: [S, F] suspicions of the given labels.
        wrong: [S', F] suspicions of labels that were made wrong.
        weights: [S'] the expected number of each of these among the given ones.
    """
    both = np.concatenate([wrong, given])
    mean, scale = both.mean(axis=0), both.std(axis=0) + 1e-3
    wrong, given = (np.clip((one - mean) / scale, -_CLIPPED, _CLIPPED) for one in (wrong, given))
    inputs, shares = torch.from_numpy(np.concatenate([wrong, given])), torch.from_numpy(weights)
    targets = torch.zeros(len(inputs))
    targets[: len(wrong)] = 1.0
    # Both sides have half of the weight; the odds are corrected afterwards.
    balanced = torch.cat(
        [shares / shares.sum() / 2, torch.full((len(given),), 1 / (2 * len(given)))]
    )
    slopes = torch.zeros(inputs.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = functional.binary_cross_entropy_with_logits(
            inputs @ slopes + bias, targets, reduction="none"
        )
        loss = (losses * balanced).sum() + _PENALTY * (slopes**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    odds: NDArray[np.float32] = given @ slopes.detach().numpy() + bias.item()
    return odds + np.float32(np.log(weights.sum() / len(given)))
