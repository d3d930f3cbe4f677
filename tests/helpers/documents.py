"""Foreign and damaged model files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from manyheads.modeling import (
    CheckpointContents,
    checkpoint,
    digest_of_tensor,
    digest_of_values,
    leaves,
    plain,
    pointer,
)
from manyheads.storage import (
    LAYOUT,
    EncoderFiles,
    atomic_file,
    json_bytes,
    seal,
    sha256,
)


def write_document(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a checkpoint with correct checksums and invalid contents."""
    tree = plain(checkpoint._document(contents()))
    change(tree)
    tree.pop("manifest", None)
    tensors = {pointer(p): digest_of_tensor(t) for p, t in leaves(tree) if isinstance(t, Tensor)}
    manifest = {"values": digest_of_values(tree), "tensors": tensors}
    with atomic_file(path) as file:
        torch.save({**tree, "manifest": manifest}, file)


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and its seal."""
    path = folder / LAYOUT.manifest
    values = json.loads(path.read_bytes())
    change(values)
    path.write_bytes(json_bytes({**values, "sha256": seal(values)}))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Replace a file and update the manifest."""
    (folder / name).write_bytes(data)
    entry = {"size": len(data), "sha256": sha256(data)}
    rewrite_manifest(folder, lambda values: values["files"].update({name: entry}))


def scale_weights(folder: Path, name: str, part: str = "") -> None:
    """Scale those tensors of a file whose names contain a part, and update the manifest."""
    weights = load_file(folder / name)
    changed = {k: np.float32(1.5) * v if part in k else v for k, v in weights.items()}
    replace_file(folder, name, save(changed))


ENCODER = EncoderFiles(
    config={"model_type": "bert", "hidden_size": 4},
    files={"tokenizer.json": b'{"version": "1.0"}', "vocab.txt": "é\n".encode()},
    pooling="mean",
    normalize=True,
    max_length=16,
    hidden_size=4,
)


def contents(epoch: int = 1, step: int = 10, **changes: Any) -> CheckpointContents:
    """A small checkpoint: one linear layer halfway through its training."""
    torch.manual_seed(step)
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    values = CheckpointContents(
        config={"seed": 1, "learning_rate": 2e-5, "tasks": {"intent": {"kind": "classification"}}},
        tasks=[{"name": "intent", "kind": "classification", "labels": ["a", "b\ud800", "ü"]}],
        encoder=ENCODER,
        model=layer.state_dict(),
        training={"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "best": None},
        epoch=epoch,
        step=step,
    )
    return replace(values, **changes)
