"""Linear-chain conditional random field: learned scores of sequences of tags.

Lafferty, McCallum and Pereira (2001). This is for training only; decoding is in
`manyheads.tasks`, in numpy, so that it works without torch.

Axes: B sentences, W words (right-padded), L labels, of them F free and N inside (`I-x`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from manyheads.tasks import TagSet, tag_rules

# The logarithm of zero. Finite, so that no gradient becomes NaN.
_NEVER = -1e9
_TINY = torch.finfo(torch.float32).tiny


class CRF(nn.Module):
    """Scores of tags at the start, at the end and after one another, over a tag set.

    Sequences that the scheme forbids have probability zero. All arithmetic is float32 in log space,
    also under autocast.
    """

    order: Tensor
    before: Tensor
    follows: Tensor
    """[L, L] float32: 1 where a tag (column) may follow another one (row)."""
    begins: Tensor
    """[L] float32: 1 where a tag may begin a sentence."""

    def __init__(self, tags: TagSet) -> None:
        super().__init__()
        rules = tag_rules(tags.names, tags.scheme)
        self.start = nn.Parameter(torch.empty(len(tags)))
        self.end = nn.Parameter(torch.empty(len(tags)))
        self.pairwise = nn.Parameter(torch.empty(len(tags), len(tags)))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        # Free tags first. The buffers follow from the tags and are not saved.
        order = np.concatenate([rules.free, rules.inside])
        before = np.argsort(order)[rules.before]
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.register_buffer("before", torch.tensor(before.T), persistent=False)
        follows, begins = (
            torch.tensor(r, dtype=torch.float32) for r in (rules.pairwise, rules.start)
        )
        self.register_buffer("follows", follows, persistent=False)
        self.register_buffer("begins", begins, persistent=False)

    def log_likelihood(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Compute each sentence's log-probability of its tags.

        Words without a tag may have any tag: the probability is that of all sequences with the
        known tags (Tsuboi et al., 2008, "Training conditional random fields using incomplete
        annotations").

        Args:
            emissions: [B, W, L] float, any precision.
            tags: [B, W] int64, allowed sequences, negative for words without a tag; anything
                where the mask is false.
            mask: [B, W] bool, true for a sentence's first words, false for padding.

        Returns:
            [B] float32; 0 for a sentence of no words.
        """
        with torch.autocast(emissions.device.type, enabled=False):
            emissions = emissions.float().masked_fill(~mask.unsqueeze(2), 0.0)
            tags = tags.masked_fill(~mask, 0)
            # On other devices, checking for such words would block.
            if not tags.is_cpu or bool((tags < 0).any()):
                return self._log_share(emissions, tags, mask)
            return self._path_score(emissions, tags, mask) - self._log_partition(emissions, mask)

    def _log_share(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Compute the log-probability of all paths through the known tags: [B]."""
        numbers = torch.arange(emissions.shape[2], device=tags.device)
        excluded = (tags >= 0).unsqueeze(2) & (tags.unsqueeze(2) != numbers)
        both = torch.cat([emissions.masked_fill(excluded, _NEVER), emissions])
        known, all_paths = self._log_partition(both, torch.cat([mask, mask])).chunk(2)
        return known - all_paths

    def divergence(self, emissions: Tensor, probabilities: Tensor, mask: Tensor) -> Tensor:
        """Compute each sentence's divergence from a distribution with independent words.

        Its gradient with respect to an emission is the tag's marginal probability minus the given
        one. Forbidden transitions are left out of the given distribution two words at a time, so
        that the divergence is approximate (and exact if every word has one certain tag).

        Args:
            emissions: [B, W, L] float, any precision.
            probabilities: [B, W, L] of each word's tags, which sum to 1.
            mask: [B, W] bool, true for a sentence's first words, false for padding.

        Returns:
            [B] float32; 0 for a sentence of no words.
        """
        with torch.autocast(emissions.device.type, enabled=False):
            inside = mask.unsqueeze(2)
            emissions = emissions.float().masked_fill(~inside, 0.0)
            given = probabilities.float().masked_fill(~inside, 0.0)
            given = given / given.sum(dim=2, keepdim=True).clamp(min=_TINY)
            uncertainty = -torch.xlogy(given, given).sum(dim=(1, 2))
            score = self._expected_score(emissions, given, mask)
            return self._log_partition(emissions, mask) - score - uncertainty

    def _expected_score(self, emissions: Tensor, given: Tensor, mask: Tensor) -> Tensor:
        """Compute the expected score of sequences with independent words: [B]."""
        score = (emissions * given).sum(dim=(1, 2))
        before, after = given[:, :-1], given[:, 1:]
        steps = ((before @ (self.pairwise * self.follows)) * after).sum(dim=2)
        allowed = ((before @ self.follows) * after).sum(dim=2)
        score = score + torch.where(mask[:, 1:], steps / allowed.clamp(min=_TINY), 0.0).sum(dim=1)
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        ending = given[torch.arange(len(given), device=given.device), last]
        beginning = given[:, 0] * self.begins
        beginning = beginning / beginning.sum(dim=1, keepdim=True).clamp(min=_TINY)
        ends: Tensor = beginning @ self.start + ending @ self.end
        return score + ends

    def _path_score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Sum the scores along the given paths: [B]."""
        score = emissions.gather(2, tags.unsqueeze(2)).squeeze(2).sum(dim=1)
        score = score + (self.pairwise[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]).sum(dim=1)
        last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)).squeeze(1)
        return score + (self.start[tags[:, 0]] + self.end[last]) * mask[:, 0]

    def _log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Sum over all allowed paths, in log space: [B].

        A step into the free tags, which may follow all tags, is a matrix product of exponentials
        relative to the sentence's best tag: terms that vanish are below float32's resolution of the
        sum. A step into an inside tag comes from two tags that may both be far below the best, so
        it is computed in log space.
        """
        before, num_inside = self.before.flatten(), self.before.shape[1]
        num_free = len(self.order) - num_inside
        local = emissions.index_select(2, self.order).unbind(dim=1)
        pairwise = self.pairwise.index_select(1, self.order).index_select(0, self.order)
        # Relative to the best step into each tag, so that no learned score vanishes either.
        offset = pairwise[:, :num_free].detach().amax(dim=0)
        free_factors = (pairwise[:, :num_free] - offset).exp()
        inside_steps = pairwise[:, num_free:].gather(0, self.before)

        log_alpha = self.start.index_select(0, self.order) + local[0]
        if num_inside:
            log_alpha = torch.cat(
                [log_alpha[:, :num_free], log_alpha.new_full((len(log_alpha), num_inside), _NEVER)],
                dim=1,
            )
        for t in range(1, len(local)):
            best = log_alpha.detach().amax(dim=1, keepdim=True)
            sums = (log_alpha - best).exp() @ free_factors
            arriving = sums.clamp(min=_TINY).log() + (best + offset)
            if num_inside:
                either = log_alpha.index_select(1, before).view(-1, 2, num_inside) + inside_steps
                arriving = torch.cat([arriving, torch.logaddexp(*either.unbind(1))], dim=1)
            log_alpha = torch.where(mask[:, t, None], arriving + local[t], log_alpha)
        total = torch.logsumexp(log_alpha + self.end.index_select(0, self.order), dim=1)
        return total * mask[:, 0]
