"""Run a model in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.devices import Compute
from manyheads.model import ModelInputs, MultiTaskModel
from manyheads.predict import Predictor
from manyheads.tokenization import TextTokenizer
from manyheads.windows import Batch


class TorchBackend:
    """A model that is in memory, for prediction.

    Args:
        model: the model; it is put into evaluation mode at each run.
        compute: its device and arithmetic.
    """

    def __init__(self, model: MultiTaskModel, compute: Compute) -> None:
        self.model = model
        self.compute = compute

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return f"torch ({self.compute.precision}, {self.compute.device})"

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding."""
        inputs = ModelInputs(
            *(
                torch.from_numpy(array)
                for array in (
                    batch.input_ids, batch.attention_mask, batch.word_tokens, batch.word_mask
                )
            )
        ).to(self.compute.device)  # fmt: skip
        self.model.eval()
        with torch.inference_mode(), self.compute.autocast():
            outputs = self.model(inputs)
        return {name: values.float().cpu().numpy() for name, values in outputs.items()}


def make_predictor(
    model: MultiTaskModel,
    compute: Compute,
    tokenizer: TextTokenizer,
    max_length: int,
) -> Predictor:
    """Put a predictor around a model in memory.

    The predictor takes the transitions of CRF heads as they are now; after further training,
    make a new one.
    """
    transitions = {name: model.head(name).transitions() for name in model.heads}
    return Predictor(
        TorchBackend(model, compute),
        tokenizer,
        [model.head(name).spec(name) for name in model.heads],
        max_length=max_length,
        pad_id=model.encoder.pad_id,
        transitions={name: t for name, t in transitions.items() if t is not None},
        normalize=model.encoder.pooling.normalize,
    )
