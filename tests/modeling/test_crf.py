"""The CRF's likelihood and gradients equal brute force at any scale, regardless of padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from manyheads.modeling.heads.crf import CRF
from manyheads.tasks import TagSet, Transitions, marginals, tag_rules
from manyheads.tasks.kinds import UNKNOWN
from tag_sets import TAG_SETS, seeds, tag_sets


def make_crf(tags: TagSet, seed: int, scale: float = 1.5) -> CRF:
    generator = torch.Generator().manual_seed(seed)
    crf = CRF(tags)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.normal_(0, scale, generator=generator)
    return crf


def make_batch(
    tags: TagSet, seed: int, scale: float = 2.0, batch: int = 5, words: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Emissions, allowed tags (-100 where padded) and mask, with sentences of every length."""
    rng = np.random.default_rng(seed)
    emissions = torch.tensor(rng.normal(0, scale, (batch, words, len(tags))), dtype=torch.float32)
    lengths = rng.permutation(np.arange(batch) % (words + 1))
    mask = torch.tensor(np.arange(words) < lengths[:, None])
    rules = tag_rules(tags.names, tags.scheme)
    paths = np.full((batch, words), -100)
    for i, length in enumerate(lengths):
        for t in range(length):
            allowed = rules.start if t == 0 else rules.pairwise[paths[i, t - 1]]
            paths[i, t] = rng.choice(np.flatnonzero(allowed))
    return emissions, torch.tensor(paths), mask


def brute_force(crf: CRF, tags: TagSet, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
    """Log-likelihoods from the scores of all allowed paths, in float64."""
    rules = tag_rules(tags.names, tags.scheme)
    start, end, pairwise = (p.double() for p in (crf.start, crf.end, crf.pairwise))

    def score(words: Tensor, path: tuple[int, ...]) -> Tensor:
        total = start[path[0]] + end[path[-1]]
        total = total + torch.stack([words[t, tag] for t, tag in enumerate(path)]).sum()
        for a, b in itertools.pairwise(path):
            total = total + pairwise[a, b]
        return total

    results = []
    for words, path, inside in zip(emissions.double(), gold, mask, strict=True):
        length = int(inside.sum())
        if not length:
            results.append(words.sum() * 0)
            continue
        scores = {
            candidate: score(words, candidate)
            for candidate in itertools.product(range(len(tags)), repeat=length)
            if rules.start[candidate[0]]
            and all(rules.pairwise[a, b] for a, b in itertools.pairwise(candidate))
        }
        known = [
            value
            for candidate, value in scores.items()
            if all(
                tag in (UNKNOWN, other)
                for tag, other in zip(path[:length].tolist(), candidate, strict=True)
            )
        ]
        partition = torch.logsumexp(torch.stack([*scores.values()]), dim=0)
        results.append(torch.logsumexp(torch.stack(known), dim=0) - partition)
    return torch.stack(results)


def exact(crf: CRF, tags: TagSet, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
    """Log-likelihoods by the textbook recursion in float64 log space, one sentence at a time."""
    rules = tag_rules(tags.names, tags.scheme)
    never = torch.tensor(-torch.inf, dtype=torch.float64)
    start = torch.where(torch.tensor(rules.start), crf.start.double(), never)
    pairwise = torch.where(torch.tensor(rules.pairwise), crf.pairwise.double(), never)
    results = []
    for words, path, inside in zip(emissions.double(), gold, mask, strict=True):
        length = int(inside.sum())
        alpha, score = start, start[path[0]]
        for t in range(length):
            if t:
                alpha = torch.logsumexp(alpha[:, None] + pairwise, dim=0)
                score = score + pairwise[path[t - 1], path[t]]
            alpha, score = alpha + words[t], score + words[t, path[t]]
        end = crf.end.double()
        results.append(score + end[path[length - 1]] - torch.logsumexp(alpha + end, dim=0))
    return torch.stack(results)


@given(tags=tag_sets, seed=seeds, unknown=st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=15)
def test_likelihood_and_all_gradients_equal_brute_force(
    tags: TagSet, seed: int, unknown: float
) -> None:
    crf = make_crf(tags, seed)
    emissions, gold, mask = make_batch(tags, seed)
    hidden = torch.tensor(np.random.default_rng(seed).random(gold.shape) < unknown)
    gold = gold.masked_fill(hidden & mask, UNKNOWN)
    emissions.requires_grad_()
    inputs = (emissions, *crf.parameters())
    found = crf.log_likelihood(emissions, gold, mask)
    expected = brute_force(crf, tags, emissions, gold, mask)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=1e-5)
    weights = torch.arange(1.0, len(found) + 1)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


def test_gradient_at_the_emissions_is_the_marginals_that_decoding_computes() -> None:
    tags = TAG_SETS[1]
    crf = make_crf(tags, 3)
    emissions, gold, mask = make_batch(tags, 3)
    emissions.requires_grad_()
    (gradient,) = torch.autograd.grad(crf.log_likelihood(emissions, gold, mask).sum(), emissions)
    chosen = torch.nn.functional.one_hot(gold.clamp(min=0), len(tags)) * mask.unsqueeze(2)
    probabilities = marginals(
        emissions.detach().numpy(),
        mask.sum(dim=1).numpy(),
        tags.names,
        tags.scheme,
        Transitions(*(p.detach().numpy() for p in (crf.start, crf.end, crf.pairwise))),
    )
    torch.testing.assert_close(
        chosen - gradient, torch.tensor(probabilities).float(), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("scale", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("tags", TAG_SETS[:2])
def test_large_logits_lose_no_precision(tags: TagSet, scale: float) -> None:
    crf = make_crf(tags, 5, scale=3.0)
    emissions, gold, mask = make_batch(tags, 5, scale, batch=40, words=12)
    emissions.requires_grad_()
    keep = mask[:, 0]
    found = crf.log_likelihood(emissions, gold, mask)[keep]
    expected = exact(crf, tags, emissions[keep], gold[keep], mask[keep])
    torch.testing.assert_close(found.double(), expected, atol=1e-3, rtol=1e-5)
    (ours,) = torch.autograd.grad(found.sum(), emissions)
    (theirs,) = torch.autograd.grad(expected.sum(), emissions)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_an_entity_with_an_improbable_first_word_is_not_lost() -> None:
    # 200 nats against B-x at the first word and 200 in favour of I-x at the second: more than
    # float32 can hold as a ratio of probabilities, but together as probable as O, O.
    tags = TagSet(("O", "B-x", "I-x"))
    crf = make_crf(tags, 0, scale=0.0)
    emissions = torch.tensor([[[200.0, 0.0, 0.0], [0.0, -200.0, 200.0]]])
    gold, mask = torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool)
    found = crf.log_likelihood(emissions, gold, mask)
    torch.testing.assert_close(found, torch.tensor([0.5]).log())


def test_transitions_beyond_the_range_of_float32_cause_no_nan() -> None:
    tags = TAG_SETS[0]
    crf = make_crf(tags, 1, scale=300.0)
    emissions, gold, mask = make_batch(tags, 1, scale=300.0, words=8)
    found = crf.log_likelihood(emissions.requires_grad_(), gold, mask)
    found.sum().backward()
    assert torch.isfinite(found).all()
    for tensor in (emissions, *crf.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("padding", [1e30, float("nan"), float("-inf")])
def test_padding_changes_neither_likelihood_nor_gradient(padding: float) -> None:
    tags = TAG_SETS[0]
    crf = make_crf(tags, 2)
    emissions, gold, mask = make_batch(tags, 2)
    wider = torch.full((5, 7, len(tags)), padding)
    wider[:, :4][mask] = emissions[mask]
    results = []
    for width, words in ((4, emissions), (7, wider)):
        words = words.clone().requires_grad_()
        extra = width - 4
        found = crf.log_likelihood(
            words,
            torch.nn.functional.pad(gold, (0, extra), value=-100),
            torch.nn.functional.pad(mask, (0, extra)),
        )
        gradients = torch.autograd.grad(found.sum(), (words, *crf.parameters()))
        results.append((found, gradients[0][:, :4], *gradients[1:]))
        assert not gradients[0][:, 4:].any()
        assert not gradients[0][:, :4][~mask].any()
    for before, after in zip(*results, strict=True):
        torch.testing.assert_close(before, after, atol=0, rtol=0)


def test_a_sentence_of_no_words_has_log_likelihood_zero_and_no_gradient() -> None:
    crf = make_crf(TAG_SETS[0], 0)
    emissions = torch.randn(2, 3, 5, requires_grad=True)
    found = crf.log_likelihood(
        emissions, torch.full((2, 3), -100), torch.zeros(2, 3, dtype=torch.bool)
    )
    found.sum().backward()
    assert found.tolist() == [0.0, 0.0]
    for tensor in (emissions, *crf.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_arithmetic_is_float32_for_emissions_of_any_precision() -> None:
    tags = TAG_SETS[0]
    crf = make_crf(tags, 4)
    emissions, gold, mask = make_batch(tags, 4)
    rounded = emissions.bfloat16()
    expected = crf.log_likelihood(rounded.float(), gold, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = crf.log_likelihood(rounded, gold, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_forbidden_transitions_are_neither_learned_nor_read() -> None:
    tags = TagSet(("O", "B-x", "I-x"))
    crf = make_crf(tags, 6)
    emissions, gold, mask = make_batch(tags, 6)
    before = crf.log_likelihood(emissions, gold, mask)
    before.sum().backward()
    assert crf.pairwise.grad is not None
    assert crf.start.grad is not None
    assert crf.pairwise.grad[0, 2] == 0
    assert crf.start.grad[2] == 0
    with torch.no_grad():
        crf.pairwise[0, 2] = 1e6
        crf.start[2] = 1e6
    torch.testing.assert_close(crf.log_likelihood(emissions, gold, mask), before)


def test_only_parameters_are_saved() -> None:
    assert set(CRF(TAG_SETS[0]).state_dict()) == {"start", "end", "pairwise"}
