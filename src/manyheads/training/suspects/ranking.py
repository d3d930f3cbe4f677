"""A ranking learned from labels that were made wrong on purpose.

A record's log probabilities do not depend on its own label, because the heads were not trained on
it. So any number of labels can be made wrong and compared without further training. From these, a
logistic regression learns the weight of each kind of evidence: that an entity is not predicted
means little if many are missed; that it is predicted with another type means more.

Each error shows in other evidence, so the regression tells right labels from each error, and the
score is the odds of any. Missing parts have evidence of their own, and a regression of their own.
All errors are assumed to be equally frequent, which puts the scores on one scale.

Classes are ranked by their probabilities alone. These do not show that most labels are right, even
where the model is unsure, so the same share of wrong labels is assumed.

Axes: S suspicions, F numbers of evidence, K right labels and each error.
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
    """Return the suspicions of each record; scores are log odds of being wrong.

    Of suspicions that exclude each other, only the likeliest is returned.

    Args:
        spec: the task.
        labels: of each record.
        texts: of each record.
        logs: of each record the logarithms of its labels' probabilities, [L], or [W, L] of a kind
            with outputs per word, from heads that were not trained on it.
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
    errors: list[int] = []
    count = max(LEAST, len(parts))
    for number, error in enumerate(kind.spoils if parts else (), 1):
        places = np.arange(len(labels)) if error == SUPERFLUOUS else np.array(parts)
        for i in generator.choice(places, count).tolist():
            spoiled = kind.spoiled(spec, labels[i], texts[i], error, generator)
            if spoiled is not None:
                label, is_planted = spoiled
                some = [one for one in suspicions(i, label) if is_planted(one)]
                made += some
                errors += [number] * len(some)
    flat = [one for some in found for one in some]
    scores = np.array([one.score for one in flat], np.float64)
    if not kind.spoils:
        scores += np.log(PRIOR / (1 - PRIOR))
    weight = len(parts) * PRIOR / max(1, len(kind.spoils)) / count
    for is_missing in (False, True):
        own, other = (
            [n for n, one in enumerate(some) if (one.error == MISSING) is is_missing]
            for some in (flat, made)
        )
        if min(len(own), len(other)) >= _ENOUGH:
            given = np.array([flat[n].evidence for n in own], np.float32)
            wrong = np.array([made[n].evidence for n in other], np.float32)
            scores[own] = _log_odds(given, wrong, np.array(errors)[other], weight)
    score = iter(scores.tolist())
    return [_compatible([replace(one, score=next(score)) for one in some]) for some in found]


def _compatible(suspicions: Sequence[Suspicion]) -> list[Suspicion]:
    """Return the likeliest suspicions of a text whose entities do not overlap."""
    kept: list[Suspicion] = []
    ends = (end for one in suspicions for _, end in one.regions)
    taken = np.zeros(max(ends, default=0), np.bool_)
    for one in sorted(suspicions, key=lambda one: -one.score):
        if not any(taken[start:end].any() for start, end in one.regions):
            kept.append(one)
            for start, end in one.regions:
                taken[start:end] = True
    return kept


def _log_odds(
    given: Floats, wrong: Floats, errors: NDArray[np.int64], weight: float
) -> NDArray[np.float32]:
    """Learn to tell the given labels from wrong ones, and return the given ones' log odds.

    Args:
        given: [S, F] suspicions of the given labels.
        wrong: [S', F] suspicions of labels that were made wrong.
        errors: [S'] the error of each, from 1.
        weight: the expected number of each of these among the given ones.
    """
    both = np.concatenate([given, wrong])
    mean, scale = both.mean(axis=0), both.std(axis=0) + 1e-3
    inputs = torch.from_numpy(np.clip((both - mean) / scale, -_CLIPPED, _CLIPPED))
    _, found = np.unique(np.append(np.zeros(len(given), np.int64), errors), return_inverse=True)
    targets, counts = torch.from_numpy(found), torch.from_numpy(np.bincount(found))
    # Right labels have half of the weight, and each error as much as the others. The odds are
    # corrected afterwards.
    shares = torch.full((len(counts),), 0.5 / (len(counts) - 1))
    shares[0] = 0.5
    expected = counts * torch.where(torch.arange(len(counts)) > 0, weight, 1.0)
    slopes = torch.zeros(inputs.shape[1], len(counts), requires_grad=True)
    bias = torch.zeros(len(counts), requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = functional.cross_entropy(inputs @ slopes + bias, targets, reduction="none")
        loss = (losses * (shares / counts)[targets]).sum() + _PENALTY * (slopes**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = inputs[: len(given)] @ slopes + bias + (expected / shares).log()
        odds: NDArray[np.float32] = (logits[:, 1:].logsumexp(dim=1) - logits[:, 0]).numpy()
    return odds
