"""How a text becomes its embedding: the settings of a sentence-transformers folder, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from manyheads.errors import ModelError
from manyheads.storage.untrusted import MAX_SIZE, Fields, parse_json

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which sentence-transformers concatenates them, if the order is not given."""

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
"""The classes of `torch.nn` that a Dense layer may apply."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The part of a text that its embedding reads, and how embeddings are compared."""

    max_length: int | None = None
    """Tokens of the text, special ones included; default, as many as the heads read at once."""
    lower_case: bool = False
    """Whether sentence-transformers lower-cases texts; `tokenizer.json` does so by itself."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """By name, the text that is put before another text."""
    default_prompt_name: str | None = None
    include_prompt: bool = True
    """Whether pooling includes the prompt's tokens."""
    similarity: str = "cosine"
    """One of `SIMILARITIES`."""

    @property
    def prompt(self) -> str:
        """The prompt that is put before every text unless another one is requested."""
        return self.prompts.get(self.default_prompt_name or "", "")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def of_encoder(cls, encoder: Fields) -> Reading:
        """Read the settings of a stored encoder, as `to_json` returned them.

        Raises:
            ModelError: one of them is missing or of another type.
        """
        if "reading" not in encoder.values:  # as version 0.1 wrote it
            return cls()
        fields = encoder.inner("reading")
        length, name = fields.values.get("max_length"), fields.values.get("default_prompt_name")
        if length is not None and (type(length) is not int or not 0 < length <= MAX_SIZE):
            fields.refuse("max_length", length)
        prompts = fields.inner("prompts")
        texts = {key: prompts.get(key, str) for key in prompts.values}
        if name is not None and (not isinstance(name, str) or name not in texts):
            fields.refuse("default_prompt_name", name)
        return cls(
            max_length=length,
            lower_case=fields.get("lower_case", bool),
            prompts=texts,
            default_prompt_name=name,
            include_prompt=fields.get("include_prompt", bool),
            similarity=fields.choice("similarity", SIMILARITIES),
        )


@dataclass(frozen=True, slots=True)
class DenseLayer:
    """A linear layer after the pooling, as sentence-transformers saves it. It is not trained."""

    activation: str
    """One of `ACTIVATIONS`."""
    weights: bytes = field(repr=False)
    """Its `model.safetensors`: `linear.weight`, `linear.bias` and `residual.weight`."""
    in_features: int
    out_features: int
    bias: bool = True
    use_residual: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the settings without the weights, in the form of the layer's `config.json`."""
        part = "linear" if self.activation == "Identity" else "activation"
        settings: dict[str, Any] = {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": f"torch.nn.modules.{part}.{self.activation}",
        }
        return settings | ({"use_residual": True} if self.use_residual else {})

    @classmethod
    def from_settings(cls, fields: Fields, weights: bytes) -> DenseLayer:
        """Read a layer's `config.json`.

        Raises:
            ModelError: a setting is missing or of another type, or the activation is unknown.
        """
        path = fields.values.get("activation_function", "torch.nn.modules.activation.Tanh")
        module, _, activation = str(path).rpartition(".")
        if activation not in ACTIVATIONS or not module.startswith("torch.nn"):
            fields.refuse("activation_function", path)
        flags = {"bias": True, "use_residual": False} | {
            key: fields.get(key, bool) for key in ("bias", "use_residual") if key in fields.values
        }
        return cls(
            activation, weights, fields.get("in_features", int), fields.get("out_features", int),
            **flags,
        )  # fmt: skip


def vocabulary_size(tokenizer: bytes, where: str) -> int:
    """Return the highest id in a `tokenizer.json`, plus one.

    Raises:
        ModelError: it is not JSON, or not a tokenizer's.
    """
    values = parse_json(tokenizer, where)
    try:
        vocabulary = values.get("model", {}).get("vocab", ())
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        ids += [token.get("id") for token in values.get("added_tokens") or ()]
    except (AttributeError, TypeError):
        raise ModelError(
            "tokenizer.json is not a tokenizer",
            expected="a `model` with its `vocab`, and `added_tokens` as objects",
            fix="Copy the encoder's tokenizer.json again.",
            where=where,
        ) from None
    return 1 + max((number for number in ids if isinstance(number, int)), default=-1)


def known_pooling(mode: object) -> bool:
    """Return whether a pooling is one of `POOLING_MODES`, or several joined by `+`."""
    return isinstance(mode, str) and all(part in POOLING_MODES for part in mode.split("+"))


def embedding_size(hidden_size: int, pooling: str, dense: Sequence[DenseLayer]) -> int:
    """Return the length of the embeddings that are pooled from token vectors."""
    return dense[-1].out_features if dense else hidden_size * len(pooling.split("+"))
