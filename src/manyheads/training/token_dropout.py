"""Token dropout: a step hides some sub-tokens, so that labels are also learned from the context.

Iyyer et al. (2015), "Deep Unordered Composition Rivals Syntactic Methods for Text Classification",
drop words; here the mask token of the encoder's pretraining takes their place, or
the one for unknown words.

Axes: B sentences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from manyheads.config import Config
from manyheads.modeling import ModelInputs
from manyheads.text import TextTokenizer


@dataclass(frozen=True, slots=True)
class TokenDropout:
    """Hides a share of the sub-tokens of a text; never the special tokens around it."""

    share: float
    hiding_id: int
    prefix: int
    """Special tokens before a text."""
    suffix: int
    """Special tokens after a text."""

    @classmethod
    def of_run(cls, config: Config, tokenizer: TextTokenizer, pad_id: int) -> TokenDropout | None:
        """Return the configured one; None if nothing is hidden.

        Args:
            config: the run.
            tokenizer: the encoder's.
            pad_id: the token that hides others where there is none for masks or unknown words.
        """
        if not config.token_dropout:
            return None
        hiding_id = tokenizer.hiding_id
        return cls(
            config.token_dropout, pad_id if hiding_id is None else hiding_id,
            tokenizer.prefix, tokenizer.suffix,
        )  # fmt: skip

    def __call__(self, inputs: ModelInputs) -> ModelInputs:
        """Return a batch with masks, drawn with torch's generator for the CPU or the device.

        Args:
            inputs: on any device; its `input_ids` [B, T] stay as they are.
        """
        ids = inputs.input_ids
        places = torch.arange(ids.shape[1], device=ids.device)
        ends = inputs.attention_mask.sum(dim=1, keepdim=True) - self.suffix
        words = (places >= self.prefix) & (places < ends)
        hidden = words & (torch.rand(ids.shape, device=ids.device) < self.share)
        return replace(inputs, input_ids=ids.masked_fill(hidden, self.hiding_id))
