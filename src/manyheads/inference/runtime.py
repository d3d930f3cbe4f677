"""What runs a model: the value that goes from a command or a verb down to the backend."""

from __future__ import annotations

from dataclasses import dataclass

from manyheads.config import BATCH_TOKENS


@dataclass(frozen=True)
class Runtime:
    """What runs a model, and on what."""

    backend: str = "auto"
    """One of `BACKENDS`; `auto` is the fastest exported graph, or PyTorch."""
    device: str = "auto"
    """See `manyheads.modeling.devices.choose_device`; for PyTorch."""
    threads: int | None = None
    """Processor threads; None: all that this process may use."""
    batch_tokens: int = BATCH_TOKENS
    """Sub-tokens of a batch, padding included."""
