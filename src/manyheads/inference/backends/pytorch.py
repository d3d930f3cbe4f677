"""Run a model in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.config import BATCH_TOKENS, Config, make_config
from manyheads.errors import at
from manyheads.inference.predictor import Predictor
from manyheads.modeling import (
    Compute,
    Encoder,
    ModelInputs,
    MultiTaskModel,
    choose_compute,
    find_encoder,
    load_checkpoint,
    load_model_folder,
    model_of_checkpoint,
    model_of_folder,
)
from manyheads.text import Batch, TextTokenizer


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
        """The backend's name in messages."""
        return f"torch ({self.compute.precision}, {self.compute.device})"

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding."""
        inputs = ModelInputs.of(batch).to(self.compute.device)
        self.model.eval()
        with torch.inference_mode(), self.compute.autocast():
            outputs = self.model(inputs)
        return {name: values.float().cpu().numpy() for name, values in outputs.items()}


def make_predictor(
    model: MultiTaskModel,
    compute: Compute,
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Predictor:
    """Put a predictor around a model in memory.

    The predictor takes the parameters that decoding needs (a CRF's transitions) as they are now;
    after further training, make a new one.
    """
    return Predictor(
        TorchBackend(model, compute),
        tokenizer,
        [model.head(name).spec(name) for name in model.heads],
        max_length=max_length,
        pad_id=model.encoder.pad_id,
        learned={name: model.head(name).learned() for name in model.heads},
        normalize=model.encoder.pooling.normalize,
        token_budget=batch_tokens,
    )


def original_predictor(config: Config, threads: int | None = None) -> Predictor:
    """Make a predictor of embeddings alone around the encoder that a training run began with.

    Nothing is downloaded for it.

    Args:
        config: of the run.
        threads: processor threads; default, all cores there are.

    Raises:
        ModelError: the encoder is not on this machine, or damaged.
    """
    if config.init_from is None:
        source = find_encoder(config.model_name, config.pooling, download=False)
        encoder = Encoder.from_source(source)
    else:
        from manyheads.storage import resolve_model

        encoder = load_trained(resolve_model(config.init_from)).model.encoder
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    compute = choose_compute("cpu", "float32", threads)
    length = min(config.max_length, encoder.max_positions)
    return make_predictor(MultiTaskModel(encoder, {}), compute, tokenizer, length)


@dataclass(frozen=True)
class TrainedModel:
    """A model in memory and what it was trained with."""

    model: MultiTaskModel
    tokenizer: TextTokenizer
    max_length: int
    config: Config


def load_trained(path: Path) -> TrainedModel:
    """Load a model folder or a checkpoint, on the CPU in float32.

    Raises:
        ModelError: it is damaged, or does not fit together.
    """
    if path.is_dir():
        folder = load_model_folder(path)
        model, config, files = model_of_folder(folder, path), folder.config, folder.encoder
    else:
        checkpoint = load_checkpoint(path)
        model, config = model_of_checkpoint(checkpoint, path), checkpoint.config
        files = checkpoint.encoder
    tokenizer = TextTokenizer.from_json(model.encoder.tokenizer_json, where=at(path))
    return TrainedModel(model.eval(), tokenizer, files.max_length, make_config(config))


def load(
    path: Path, *, device: str, threads: int | None, batch_tokens: int
) -> tuple[Predictor, Config]:
    """Load a model folder or a checkpoint for prediction in float32.

    Raises:
        ModelError: it is damaged, or does not fit together.
        RequestError: the device is not there.
    """
    trained = load_trained(path)
    compute = choose_compute(device, "float32", threads)
    model = trained.model.to(compute.device)
    predictor = make_predictor(
        model, compute, trained.tokenizer, trained.max_length, batch_tokens=batch_tokens
    )
    return predictor, trained.config
