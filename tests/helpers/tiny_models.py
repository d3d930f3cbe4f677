"""A tiny model with a head of every kind, and inputs for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from manyheads.config import TaskConfig
from manyheads.modeling import Encoder, ModelInputs, MultiTaskModel, find_encoder, make_head
from manyheads.tasks import LabelSet, TagSet
from training_setup import encoder_folder

TASKS = {
    "intent": (TaskConfig(kind="classification"), LabelSet(("a", "b", "c"))),
    "topics": (TaskConfig(kind="multilabel"), LabelSet(("x", "y"))),
    "ner": (TaskConfig(kind="tagging", decoder="crf"), TagSet.of_types(("LOC", "PER"))),
}


def make_model(mixing: Iterable[str] = ()) -> MultiTaskModel:
    torch.manual_seed(0)
    encoder = Encoder.from_source(find_encoder(str(encoder_folder())))
    heads = {}
    for name, (task, labels) in TASKS.items():
        changes: dict[str, Any] = {"reads": "mix"} if name in mixing else {}
        if changes and task.kind != "tagging":
            changes["pooling"] = ("mean",)
        heads[name] = make_head(task.model_copy(update=changes), labels, encoder.shape)
    return MultiTaskModel(encoder, heads).eval()


def make_inputs() -> ModelInputs:
    ids = torch.randint(10, 60, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.tensor([[7], [5], [3]])
    words = torch.tensor([[1, 2, 3, 5], [1, 2, 3, 0], [1, 0, 0, 0]])
    return ModelInputs(ids * mask, mask.long(), words, words > 0)
