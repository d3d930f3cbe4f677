"""Small networks between the encoder and a tagging head's classifier.

They relate words to each other with weights of the task's own, which helps most with a frozen
encoder. Neither padding nor the other sentences of a batch change a sentence's result.

Axes: B sentences, W words (right-padded), H size in, N size out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.modeling.heads.base import take_rows


class BiLSTM(nn.Module):
    """Bidirectional LSTM layers (Graves and Schmidhuber, 2005); N is twice `size`.

    Each direction is a separate LSTM, and the backward one reads every sentence reversed within its
    own length. Padding therefore comes last for both and has no effect. Packed sequences, which no
    exporter supports, are not needed.
    """

    def __init__(self, input_size: int, size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.output_size = 2 * size
        sizes = [input_size, *[2 * size] * (num_layers - 1)]
        self.ahead = nn.ModuleList(nn.LSTM(n, size, batch_first=True) for n in sizes)
        self.back = nn.ModuleList(nn.LSTM(n, size, batch_first=True) for n in sizes)
        self.dropout = Dropout(dropout)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map [B, W, H] and bool [B, W] to [B, W, N]."""
        places = torch.arange(words.shape[1], device=words.device)
        reversed_places = mask.sum(dim=1, keepdim=True) - 1 - places
        rows = torch.where(mask, reversed_places, places)
        for i, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            if i:
                words = self.dropout(words)
            forward_states, _ = ahead(words)
            backward_states, _ = back(take_rows(words, rows))
            words = torch.cat([forward_states, take_rows(backward_states, rows)], dim=2)
        return words


class TransformerNeck(nn.Module):
    """Transformer layers over the words, normalised first (Xiong et al., 2020); N is `size`.

    There are no position embeddings: the encoder's vectors carry the positions.
    """

    def __init__(self, input_size: int, size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.output_size = size
        self.project = nn.Linear(input_size, size)
        self.layers = nn.ModuleList(_TransformerLayer(size, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(size)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map [B, W, H] and bool [B, W] to [B, W, N]."""
        words = self.project(words)
        for layer in self.layers:
            words = layer(words, mask[:, None, None, :])
        normed: Tensor = self.norm(words)
        return normed


class _TransformerLayer(nn.Module):
    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        # About 32 units per head, as in small encoders; the number of heads divides the size.
        self.heads = next(n for n in range(max(1, size // 32), 0, -1) if size % n == 0)
        self.attention_norm = nn.LayerNorm(size)
        self.attention = nn.Linear(size, 3 * size)
        self.attended = nn.Linear(size, size)
        self.feed_norm = nn.LayerNorm(size)
        self.feed = nn.Sequential(
            nn.Linear(size, 4 * size), nn.GELU(), Dropout(dropout), nn.Linear(4 * size, size)
        )
        self.dropout = Dropout(dropout)

    def forward(self, words: Tensor, visible: Tensor) -> Tensor:
        """Map [B, W, N] and bool [B, 1, 1, W] to [B, W, N]."""
        batch, length, size = words.shape
        joined = self.attention(self.attention_norm(words))
        query, key, value = joined.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # For a sentence without words, all of whose keys are masked, torch returns zeros, not NaN.
        seen = functional.scaled_dot_product_attention(
            query, key, value, visible, self.dropout.p if self.training else 0.0
        )
        seen = self.attended(seen.transpose(1, 2).reshape(batch, length, size))
        words = words + self.dropout(seen)
        fed: Tensor = self.dropout(self.feed(self.feed_norm(words)))
        return words + fed


Neck = BiLSTM | TransformerNeck


def make_neck(config: TaskConfig, input_size: int) -> Neck | None:
    """Make the neck that a task's configuration asks for."""
    if config.neck == "none":
        return None
    neck = BiLSTM if config.neck == "bilstm" else TransformerNeck
    return neck(input_size, config.neck_size, config.neck_layers, config.dropout)
