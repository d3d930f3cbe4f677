"""The scope of a trained model, as the checkpoints of a run that starts from it keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from manyheads.inference import read_scope
from manyheads.storage import Manifest
from manyheads.tasks import Scope, TaskSpec


@dataclass(frozen=True)
class KeptScope:
    """A scope, and what it was fitted on."""

    scope: Scope
    source: str
    """The records, in words."""
    unknown: int
    """The number of texts out of scope among them."""

    @classmethod
    def of_model(cls, manifest: Manifest, specs: Sequence[TaskSpec]) -> KeptScope | None:
        """Read the scope of a model; None if it has none.

        Raises:
            ModelError: it is damaged.
        """
        scope = read_scope(manifest, specs)
        if scope is None:
            return None
        entry = manifest.calibration["scope"]
        return cls(scope, str(entry.get("source", "")), int(entry.get("unknown") or 0))

    @classmethod
    def of_state(cls, values: Mapping[str, Any] | None) -> KeptScope | None:
        """Restore what `state` returned; None for None."""
        if values is None:
            return None
        vectors = {name: tensor.numpy() for name, tensor in values["vectors"].items()}
        scope = Scope(values["task"], **vectors)
        return cls(scope, values.get("source", ""), values.get("unknown", 0))

    def state(self) -> dict[str, Any]:
        """Return plain values and tensors for a checkpoint."""
        vectors = {
            name: torch.from_numpy(np.asarray(getattr(self.scope, name), np.float32))
            for name in (field.name for field in fields(Scope))
            if name != "task"
        }
        return {
            "task": self.scope.task, "vectors": vectors, "source": self.source,
            "unknown": self.unknown,
        }  # fmt: skip
