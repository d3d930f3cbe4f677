"""Features of the words' characters, which a head reads besides the encoder's vectors.

Axes: B sentences, W words (right-padded), F columns of features, H hidden, N size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from manyheads.modeling.cpu.dropout import Dropout
from manyheads.text import WORD_FEATURE_ROWS

SIZE = 32
"""N."""


class WordFeatures(nn.Module):
    """Embeds the features of each word and its neighbours (see `text.word_features`).

    The neighbours show how much the case of a word says: little in a line of capitals.

    Args:
        dropout: share of the sentences whose features are left out in training, as they are in a
            text that is all in one case.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.table = nn.Embedding(WORD_FEATURE_ROWS, SIZE)
        nn.init.normal_(self.table.weight, std=0.1)
        self.context = nn.Linear(3 * SIZE, SIZE)

    def forward(self, words: Tensor, mask: Tensor, features: Tensor | None) -> Tensor:
        """Append N numbers to each word's vector: float32 [B, W, H] -> [B, W, H + N].

        Args:
            words: [B, W, H].
            mask: [B, W] bool.
            features: [B, W, F] int64.
        """
        if features is None:
            raise ValueError("a head that reads word features needs them")
        known = mask & (features[:, :, 0] > 0)
        if self.training:
            known = known & (self.dropout(torch.ones(len(known), 1, device=known.device)) > 0)
        own = self.table(features).sum(dim=2) * known.unsqueeze(2)
        none = torch.zeros_like(own[:, :1])
        before, after = torch.cat([none, own[:, :-1]], dim=1), torch.cat([own[:, 1:], none], dim=1)
        context = torch.relu(self.context(torch.cat([before, own, after], dim=2)))
        return torch.cat([words, own + context], dim=2)
