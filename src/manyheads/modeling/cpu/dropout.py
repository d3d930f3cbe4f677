"""Dropout with cheap random numbers on CPUs.

`torch` draws a random float for each element on one core, which took a tenth of a training step.
Here one 64-bit number is used for four elements.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16
"""Probabilities are rounded to multiples of one over this."""

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Dropout(nn.Dropout):
    """`nn.Dropout` by way of `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements in training mode; in evaluation mode return the input."""
        return dropout(input, self.p) if self.training else input


def dropout(values: Tensor, p: float) -> Tensor:
    """Set a random share of the elements to zero and scale the others up.

    Srivastava et al. (2014), "Dropout". The masks follow from one number that is drawn with torch's
    generator, so a seed reproduces them.

    Args:
        values: float, of any shape and precision.
        p: the probability of being dropped, at least 0 and below 1.
    """
    if p == 0.0:
        return values
    if values.device.type != "cpu":
        return functional.dropout(values, p)
    return values * keep_mask(values.shape, p, values.dtype)


def keep_mask(shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
    """Draw the factors: 0 where an element is dropped, and 1 / (1 - p) elsewhere."""
    seed = int(torch.randint(2**63 - 1, ()))
    count = shape.numel()
    words = np.random.SFC64(seed).random_raw(-(-count // 4))
    levels = words.view(np.int16)[:count]
    dropped = round(p * _LEVELS)
    kept = levels >= np.int16(dropped - _LEVELS // 2)
    # numpy has no bfloat16, so the factor is written as bits: several times faster than casting.
    factor = torch.tensor(_LEVELS / (_LEVELS - dropped), dtype=dtype)
    bits = factor.view(_BITS[factor.itemsize]).numpy()
    return torch.from_numpy(kept * bits).view(dtype).view(shape)


def replace_dropout(module: nn.Module) -> None:
    """Replace every `nn.Dropout` inside a module by `Dropout`."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        else:
            replace_dropout(child)
