"""Run a model in PyTorch."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from manyheads.config import BATCH_TOKENS, Config, stored_config
from manyheads.errors import ModelError, at, shorten
from manyheads.inference.predictor import Predictor, embed_texts
from manyheads.inference.runtime import Runtime
from manyheads.inference.trust import read_scope, read_scorings
from manyheads.modeling import (
    Compute,
    Encoder,
    ModelInputs,
    MultiTaskModel,
    choose_compute,
    find_encoder,
    load_checkpoint,
    load_model_folder,
    longest_input,
    model_of_checkpoint,
    model_of_folder,
    quiet_loading,
)
from manyheads.storage import Manifest, read_manifest, resolve_model
from manyheads.tasks import Scope, Scoring
from manyheads.text import Batch, Floats, TextTokenizer

Embedder = Callable[[Sequence[str]], Floats]
"""Embeds texts: N of them to [N, E]."""


class TorchBackend:
    """A model in memory, for prediction.

    Args:
        model: the model; each run puts it into evaluation mode.
        compute: its device and arithmetic.
    """

    def __init__(self, model: MultiTaskModel, compute: Compute) -> None:
        self.model = model
        self.compute = compute
        self._process = os.getpid()

    @property
    def name(self) -> str:
        """The backend's name in messages."""
        return f"torch ({self.compute.precision}, {self.compute.device})"

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        """Compute every head's logits and the embedding (see `Backend.run`)."""
        if self._process != os.getpid():
            # OpenMP's threads do not survive a fork, and it would wait for them for ever.
            torch.set_num_threads(1)
            self._process = os.getpid()
        inputs = ModelInputs.of(batch).to(self.compute.device)
        self.model.eval()
        with torch.inference_mode(), self.compute.autocast():
            outputs = self.model(inputs)
        return {name: values.float().cpu().numpy() for name, values in outputs.items()}


def predictor_of_model(
    model: MultiTaskModel,
    compute: Compute,
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    scorings: Mapping[str, Scoring] | None = None,
    scope: Scope | None = None,
) -> Predictor:
    """Make a predictor for a model in memory.

    The predictor copies the parameters that decoding needs (a CRF's transitions). After further
    training, make a new one.
    """
    return Predictor(
        TorchBackend(model, compute),
        tokenizer,
        [model.head(name).spec(name) for name in model.heads],
        max_length=max_length,
        pad_id=model.encoder.pad_id,
        learned={name: model.head(name).learned() for name in model.heads},
        reading=model.encoder.reading,
        token_budget=batch_tokens,
        scorings=scorings,
        scope=scope,
    )


def source_embedder(config: Config, threads: int | None = None) -> Embedder:
    """Return a function that embeds texts with the encoder that a training run started from.

    If sentence-transformers is installed, it reads the encoder's folder, so that an error in our
    reading shows as drift. Nothing is downloaded.

    Args:
        config: the run's configuration.
        threads: processor threads; default, all available cores.

    Raises:
        ModelError: the encoder is not on this machine, or damaged.
    """
    compute = choose_compute("cpu", "float32", threads)
    if config.init_from is None:
        source = find_encoder(config.model_name, config.pooling, download=False)
        embedder = _read_by_sentence_transformers(source.root, config.pooling)
        if embedder is not None:
            return embedder
        encoder = Encoder.from_source(source)
    else:
        path = resolve_model(config.init_from)
        encoder = load_trained(path).model.encoder
        embedder = _read_by_sentence_transformers(path) if path.is_dir() else None
        if embedder is not None:
            return embedder
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    length = min(config.max_length, encoder.max_positions)
    predictor = predictor_of_model(MultiTaskModel(encoder, {}), compute, tokenizer, length)
    return partial(embed_texts, predictor)


def _read_by_sentence_transformers(folder: Path, pooling: str = "auto") -> Embedder | None:
    """Load a folder that was checked; None if the library is not installed."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from sentence_transformers import SentenceTransformer

        with quiet_loading():
            model = SentenceTransformer(
                str(folder), device="cpu", local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            )  # fmt: skip
    except ImportError:
        return None
    except Exception as error:  # the library raises all kinds
        raise ModelError(
            f"sentence-transformers cannot load the encoder ({shorten(str(error), 200)})",
            where=at(folder), expected="a folder that it reads",
        ) from None  # fmt: skip
    finally:
        logger.setLevel(level)
    if pooling != "auto":
        for module in model:
            if type(module).__name__ == "Pooling":
                setattr(module, "pooling_mode", pooling)  # noqa: B010
    tokenizer: Any = model.tokenizer
    if tokenizer.pad_token is None:  # any token will do, as padding is masked
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    # If the folder's length exceeds the table of positions, the library would read too much.
    transformer: Any = model.transformers_model
    longest = longest_input(transformer, getattr(transformer.config, "pad_token_id", None) or 0)
    model.max_seq_length = min(model.max_seq_length or longest, longest)

    def embed(texts: Sequence[str]) -> Floats:
        if not texts:
            return np.zeros((0, 1), np.float32)
        vectors = model.encode(list(texts), show_progress_bar=False)
        return np.asarray(vectors, np.float32)

    return embed


@dataclass(frozen=True)
class TrainedModel:
    """A model in memory with its tokenizer and configuration."""

    model: MultiTaskModel
    tokenizer: TextTokenizer
    max_length: int
    config: Config
    manifest: Manifest | None = None
    """That of the model folder; None for a checkpoint."""


# The generator stays as it is, although modules are first made with random parameters.
@torch.random.fork_rng(devices=())
def load_trained(source: Path | Manifest) -> TrainedModel:
    """Load a model folder or a checkpoint, on the CPU in float32.

    Args:
        source: a model folder, its manifest, or a checkpoint.

    Raises:
        ModelError: it is damaged, or does not fit together.
    """
    if isinstance(source, Manifest):
        manifest, path, folder = source, source.folder, load_model_folder(source)
        model, config, files = model_of_folder(folder, path), folder.config, folder.encoder
    elif source.is_dir():
        return load_trained(read_manifest(source))
    else:
        manifest, path, checkpoint = None, source, load_checkpoint(source)
        model, config = model_of_checkpoint(checkpoint, path), checkpoint.config
        files = checkpoint.encoder
    tokenizer = TextTokenizer.from_json(model.encoder.tokenizer_json, where=at(path))
    return TrainedModel(model.eval(), tokenizer, files.max_length, stored_config(config), manifest)


def load(
    source: Path | Manifest,
    runtime: Runtime,
    precision: str = "float32",
    *,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Predictor, Config]:
    """Load a model folder, by its manifest or path, or a checkpoint for prediction.

    Args:
        source: the model.
        runtime: what runs it.
        precision: that of `load_model`.
        warn: takes a message to the user about a model whose encoder reads padding.

    Raises:
        ModelError: it is damaged, or its parts do not fit together.
        RequestError: there is no such device.
    """
    trained = load_trained(source)
    if trained.model.encoder.reads_padding:
        warn(
            f"the model has a {trained.model.encoder.model_type} encoder, whose output for a text "
            "depends slightly on the padding, and so on the other texts of a batch. Train again "
            "with another encoder."
        )
    compute = choose_compute(runtime.device, precision, runtime.threads)
    model = trained.model.to(compute.device)
    specs = [model.head(name).spec(name) for name in model.heads]
    manifest = trained.manifest
    predictor = predictor_of_model(
        model, compute, trained.tokenizer, trained.max_length, batch_tokens=runtime.batch_tokens,
        scorings=None if manifest is None else read_scorings(manifest, specs),
        scope=None if manifest is None else read_scope(manifest, specs),
    )  # fmt: skip
    return predictor, trained.config
