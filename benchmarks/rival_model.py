"""The model of the systems that others would write: an encoder with two linear layers.

Axes: B sentences, T tokens, H hidden, L labels.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

IGNORE = -100
"""The target of a token without a tag."""


class JointModel(nn.Module):
    """An encoder of `transformers` with a classifier for the sentence and one for its tokens.

    Args:
        folder: the encoder.
        classes: number of classes of a sentence; 0 for a model without them.
        tags: number of tags of a token; 0 for a model without them.
    """

    def __init__(self, folder: Path, classes: int, tags: int) -> None:
        super().__init__()
        hub: Any = import_module("transformers")
        hub.utils.logging.set_verbosity_error()
        hub.utils.logging.disable_progress_bar()
        self.encoder = hub.AutoModel.from_pretrained(folder, dtype=torch.float32)
        hidden = self.encoder.config.hidden_size
        self.dropout = nn.Dropout(0.1)
        self.classes = nn.Linear(hidden, classes) if classes else None
        self.tags = nn.Linear(hidden, tags) if tags else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        label: Tensor | None = None,
        tags: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the sum of the losses of the tasks whose labels are given, as `loss`.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T] int64.
            label: [B] int64.
            tags: [B, T] int64, `IGNORE` for all but the first token of a word.
        """
        tokens = self._tokens(input_ids, attention_mask)
        loss = torch.zeros(())
        if label is not None:
            logits = self._of_sentences(tokens, attention_mask)
            loss = loss + nn.functional.cross_entropy(logits, label)
        if tags is not None:
            logits = self._of_tokens(tokens)
            loss = loss + nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten())
        return {"loss": loss}

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Return the logits of the tasks that it has: `label` [B, L] and `tags` [B, T, L]."""
        tokens = self._tokens(input_ids, attention_mask)
        found = {}
        if self.classes is not None:
            found["label"] = self._of_sentences(tokens, attention_mask)
        if self.tags is not None:
            found["tags"] = self._of_tokens(tokens)
        return found

    def _tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        vectors: Tensor = output.last_hidden_state
        return vectors

    def _of_sentences(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        assert self.classes is not None
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        logits: Tensor = self.classes(self.dropout((tokens * mask).sum(1) / mask.sum(1)))
        return logits

    def _of_tokens(self, tokens: Tensor) -> Tensor:
        assert self.tags is not None
        logits: Tensor = self.tags(self.dropout(tokens))
        return logits
