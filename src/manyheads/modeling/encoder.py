"""The shared encoder: a text model of `transformers`, behind one wrapper.

Axes: B sentences, T tokens, H hidden, E embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from logging import LogRecord, getLogger
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from manyheads.errors import ModelError, at, listing, shorten
from manyheads.modeling.cpu.attention import use_attention
from manyheads.modeling.cpu.dropout import replace_dropout
from manyheads.modeling.features import SUITABLE, EncoderShape
from manyheads.modeling.pooling import PoolingSpec, SentencePooling
from manyheads.modeling.pretrained import (
    READ_PADDING_SLIGHTLY,
    TOKENIZER,
    EncoderSource,
    refuse_other_types,
    stored_parameters,
)
from manyheads.modeling.state_dicts import check_state
from manyheads.storage import Reading, embedding_size, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# This many layers are always allowed for the skeleton: building them takes only a moment.
_FEW_LAYERS = 100
# The number of tokens that are read to find the table of positions.
_PROBED = 4
# Stands for the longest input of an encoder that nothing limits.
_UNBOUNDED = 1 << 20
# The limit for buffers that a model computes itself, such as its positions.
_MAX_BUFFER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Encoded:
    """The output of one pass of the encoder."""

    tokens: Tensor
    """[B, T, H] the last layer, in the encoder's own precision."""
    layers: tuple[Tensor, ...] | None
    """Each [B, T, H]: the outputs of the embedding layer and of every layer, if requested."""
    sentence: Tensor
    """[B, E] float32, pooled and not normalised."""


class Encoder(nn.Module):
    """A pretrained transformer with its pooling and the files of its tokenizer.

    Args:
        backbone: an encoder of `transformers`.
        pooling: how its token vectors make the sentence embedding.
        files: the tokenizer's small files by name.
        reading: how its embedding reads a text.

    Raises:
        ModelError: a Dense layer's weights do not fit it.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pooling: PoolingSpec,
        files: Mapping[str, bytes],
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.backbone: PreTrainedModel = backbone
        replace_dropout(backbone)
        use_attention(backbone)
        self.pooling = pooling
        self.pooler = SentencePooling(pooling)
        self.files = dict(files)
        self.reading = reading or Reading()
        self._max_positions: int | None = None

    @classmethod
    def from_source(cls, source: EncoderSource) -> Encoder:
        """Load a pretrained encoder in float32.

        Raises:
            ModelError: the weights do not fit the configuration, or are damaged.
        """
        where = at(source.folder)
        _check_size(source, where)
        backbone = _pretrained(source, where)
        encoder = cls(backbone, source.pooling, source.files, source.reading)
        _try(encoder, where)
        length = min(source.reading.max_length or encoder.max_positions, encoder.max_positions)
        encoder.reading = replace(source.reading, max_length=length)
        return encoder

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        pooling: PoolingSpec,
        files: Mapping[str, bytes],
        state: Mapping[str, Tensor],
        where: str,
        reading: Reading | None = None,
    ) -> Encoder:
        """Build an encoder with a configuration's shape; its weights are loaded afterwards.

        Args:
            config: in the form in which its library saves it.
            pooling: how its token vectors make the sentence embedding.
            files: the tokenizer's small files by name.
            state: the weights, by the library's names. A shape that they do not have is refused
                before it is built, so that a configuration cannot ask for more memory than they
                take.
            where: the file or folder of all this, for errors.
            reading: how its embedding reads a text.

        Raises:
            ModelError: `transformers` itself cannot build the configuration, or the weights do not
                belong to it.
        """
        shape = _shape(config, len(state), where, is_trained=True)
        check_state(_skeleton(shape, where), state, where)
        encoder = cls(_build(shape, where), pooling, files, reading)
        _try(encoder, where)
        return encoder

    @property
    def config(self) -> dict[str, Any]:
        """The backbone's configuration, as its library saves it."""
        values: dict[str, Any] = json.loads(self.backbone.config.to_json_string(use_diff=False))
        return {**values, "architectures": [type(self.backbone).__name__], "dtype": "float32"}

    @property
    def shape(self) -> EncoderShape:
        """The shape of the encoder, for the heads."""
        config = self.backbone.config
        hidden = int(config.hidden_size)
        sentence = embedding_size(hidden, self.pooling.mode, self.pooling.dense)
        return EncoderShape(hidden, int(config.num_hidden_layers), sentence)

    @property
    def model_type(self) -> str:
        """The type of the backbone, as its library names it."""
        return str(self.backbone.config.model_type)

    @property
    def reads_padding(self) -> bool:
        """Whether its output for a text depends slightly on the other texts of a batch."""
        return self.model_type in READ_PADDING_SLIGHTLY

    def use_sparse_gradients(self) -> None:
        """Use sparse gradients for the token table: only for the rows that a batch reads.

        Backward passes then spend no time on the other rows; the result is the same for `AdamW`.
        """
        table = self.backbone.get_input_embeddings()
        if isinstance(table, nn.Embedding):
            table.sparse = True

    @property
    def max_positions(self) -> int:
        """The longest input in sub-tokens, special tokens included.

        It is the size of the table of positions, which is found by running the encoder on a few
        tokens. Without such a table, the configuration's limit applies.
        """
        if self._max_positions is None:
            self._max_positions = longest_input(self.backbone, self.pad_id)
        return self._max_positions

    @property
    def pad_id(self) -> int:
        """The id that pads batches; its positions are masked."""
        return int(getattr(self.backbone.config, "pad_token_id", None) or 0)

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, as the `tokenizers` library reads it."""
        return self.files[TOKENIZER].decode()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, *, all_layers: bool = False
    ) -> Encoded:
        """Encode a batch.

        Args:
            input_ids: [B, T] int64.
            attention_mask: [B, T] int64, 0 for padding.
            all_layers: also return every layer's output.
        """
        output = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=all_layers
        )
        tokens = output.last_hidden_state
        return Encoded(
            tokens,
            tuple(output.hidden_states) if all_layers else None,
            self.pooler(tokens, attention_mask),
        )

    def embed(self, sentence: Tensor) -> Tensor:
        """Make the sentence embedding of sentence vectors: [B, E] to [B, E]."""
        return functional.normalize(sentence, dim=-1) if self.pooling.normalize else sentence


def _check_size(source: EncoderSource, where: str) -> None:
    """Refuse a configuration that asks for many more parameters than are stored.

    Raises:
        ModelError: it does, or cannot be used.
    """
    tensors, stored = stored_parameters(source)
    skeleton = _skeleton(_shape(source.config, tensors, where), where)
    asked = sum(parameter.numel() for parameter in skeleton.parameters())
    # A pooler may be missing; the rest of what is asked for has to be there.
    if asked > 2 * stored:
        raise ModelError(
            f"the configuration asks for {asked:,} parameters", where=where,
            expected=f"about the {stored:,} that are stored",
            fix="Get the encoder again; a file may be another model's.",
        )  # fmt: skip


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Turn off the progress bars of transformers, and its report on the weights, meanwhile.

    The report lists unused weights, such as a language model's head. Missing ones are errors here.
    """
    from transformers.utils import logging

    def no_report(record: LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = getLogger("transformers.modeling_utils")
    logger.addFilter(no_report)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logger.removeFilter(no_report)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _pretrained(source: EncoderSource, where: str) -> PreTrainedModel:
    """Load an encoder's weights in float32.

    Raises:
        ModelError: they are incomplete or damaged, or the model is not an encoder.
    """
    from transformers import AutoModel

    try:
        with quiet_loading():
            backbone, info = AutoModel.from_pretrained(
                source.folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # the library and those below it raise all kinds
        raise ModelError(
            f"the encoder cannot be loaded ({shorten(str(error), 300)})",
            where=where, expected="a complete `transformers` encoder",
        ) from None  # fmt: skip
    # The library initialises missing parameters at random. For a pooler that is harmless: many
    # published encoders have none, and nothing here reads it.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(
            f"the weights lack {listing(missing)}", where=at(source.weights),
            expected="all parameters of the model that config.json describes",
            fix="Get the encoder again; the file may be another model's.",
        )  # fmt: skip
    return _as_encoder(backbone, where)


def _shape(
    config: Mapping[str, Any], tensors: int, where: str, *, is_trained: bool = False
) -> PreTrainedConfig:
    """Read a configuration; it may not have more layers than there are stored tensors.

    Raises:
        ModelError: `transformers` itself does not have this text encoder, or it has too many
            layers.
    """
    from transformers import AutoConfig

    refuse_other_types(config.get("model_type"), where, is_trained=is_trained)
    values = {k: v for k, v in config.items() if k not in ("model_type", "auto_map")}
    try:
        shape = AutoConfig.for_model(str(config.get("model_type")), **values)
        layers = getattr(shape, "num_hidden_layers", 0)
    except Exception as error:  # the library raises all kinds
        raise _unusable(error, where) from None
    if not isinstance(layers, int) or layers > max(tensors, _FEW_LAYERS):
        raise ModelError(
            f"the configuration asks for {shorten(layers)} layers", where=where,
            expected=f"as many as there are in the {tensors} tensors that are stored",
            fix="It is damaged or another model's; get it again.",
        )  # fmt: skip
    return shape


def _build(shape: PreTrainedConfig, where: str) -> PreTrainedModel:
    from transformers import AutoModel

    try:
        backbone: PreTrainedModel = AutoModel.from_config(  # type: ignore[no-untyped-call]
            shape, trust_remote_code=False, dtype=torch.float32
        )
    except Exception as error:  # the library raises all kinds
        raise _unusable(error, where) from None
    return _as_encoder(backbone, where)


def _skeleton(shape: PreTrainedConfig, where: str) -> PreTrainedModel:
    """Build an encoder on the meta device, where tensors have shapes and take no memory."""
    with torch.device("meta"):
        backbone = _build(shape, where)
    size = sum(buffer.nbytes for buffer in backbone.buffers())
    if size > _MAX_BUFFER_BYTES:
        raise ModelError(
            f"the encoder asks for {size:,} bytes besides its parameters", where=where,
            expected=f"at most {_MAX_BUFFER_BYTES:,}", fix="Choose another model.",
        )  # fmt: skip
    return backbone


def _try(encoder: Encoder, where: str) -> None:
    """Run an encoder on two tokens, because some errors of a configuration show only then.

    Raises:
        ModelError: it cannot.
    """
    ids = torch.zeros((1, 2), dtype=torch.int64)
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            encoder(ids, torch.ones_like(ids), all_layers=True)
            longest = encoder.max_positions
    except Exception as error:  # the library raises all kinds
        raise _unusable(error, where) from None
    finally:
        encoder.train(was_training)
    if longest < 1:
        raise _unusable(ValueError(f"it has positions for {longest} tokens"), where)
    table = encoder.backbone.get_input_embeddings()
    rows = table.num_embeddings if isinstance(table, nn.Embedding) else None
    size = vocabulary_size(encoder.files.get(TOKENIZER, b"{}"), where)
    if rows is not None and size > rows:
        raise ModelError(
            f"the tokenizer has {size:,} tokens", where=where,
            expected=f"at most the {rows:,} that the encoder has vectors for",
            fix="Get the encoder again; its tokenizer may be another model's.",
        )  # fmt: skip


def longest_input(backbone: PreTrainedModel, pad_id: int) -> int:
    """Return the longest input in sub-tokens.

    When the encoder reads the same token several times, its table of positions is looked up with
    consecutive numbers. The longest input is the number of rows from the first of them on.
    """
    limits: list[int] = []

    def watch(table: nn.Module, given: tuple[Any, ...], output: object) -> None:
        # A table that computes its own positions, such as RoFormer's, is given a shape.
        if not isinstance(given[0], Tensor):
            return
        rows = given[0].reshape(-1, given[0].shape[-1])[0, :_PROBED].tolist()
        steps = [after - before for before, after in pairwise(rows)]
        if steps == [1] * (_PROBED - 1) and isinstance(table, nn.Embedding):
            limits.append(table.num_embeddings - rows[0])

    device = next(backbone.parameters()).device
    ids = torch.full((1, _PROBED), 0 if pad_id else 1, device=device)
    hooks = [
        module.register_forward_hook(watch)
        for module in backbone.modules()
        if isinstance(module, nn.Embedding)
    ]
    was_training = backbone.training
    backbone.train(False)
    try:
        with torch.inference_mode():
            backbone(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
        backbone.train(was_training)
    named = getattr(backbone.config, "max_position_embeddings", None)
    if not limits and isinstance(named, int) and named > 0:
        return named
    return min(limits, default=_UNBOUNDED)


def _unusable(error: Exception, where: str) -> ModelError:
    return ModelError(
        f"the encoder's configuration cannot be used ({shorten(str(error), 300)})", where=where,
        expected="the configuration of a `transformers` encoder",
    )  # fmt: skip


def _as_encoder(backbone: PreTrainedModel, where: str) -> PreTrainedModel:
    config = backbone.config
    # AutoModel adds a decoder to encoders such as T5's, even if the model has none.
    decodes = getattr(config, "is_encoder_decoder", False) or hasattr(backbone, "decoder")
    if decodes or not hasattr(config, "hidden_size"):
        raise ModelError(
            f"the model is a {type(backbone).__name__}"
            + (", which `transformers` builds with a decoder" if decodes else ""), where=where,
            expected=SUITABLE,
        )  # fmt: skip
    return backbone
