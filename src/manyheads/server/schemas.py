"""What requests and responses look like; the source of the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

GivenText = Annotated[str, Field(examples=["John lives in Paris"])] | list[str]
"""A text, or the list of its tokens."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)


class PredictRequest(_Strict):
    """Texts to predict for."""

    texts: str | list[GivenText]
    """A text, or a list of texts, each a string or a list of tokens."""
    model: str | None = None
    """Which model answers. Default: the first one that the server was started with."""
    tasks: list[str] | None = None
    """Which tasks are answered. Default: all."""
    embed: bool = False
    """Whether predictions have the sentence embedding."""
    tokens: bool = False
    """Whether tagging results have every token with its tag, beside the entities."""


class ErrorBody(BaseModel):
    """What is wrong with a request, in words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """What a request gets that could not be answered."""

    error: ErrorBody


class PredictResponse(BaseModel):
    """The predictions, in the order of the texts."""

    model: str
    version: str
    milliseconds: float
    predictions: list[dict[str, Any]]
    """For each text an object with `text`, each task's result, and `embedding` if asked for; or
    with `error`, if this text could not be read."""


class EmbeddingsRequest(BaseModel):
    """What OpenAI's clients send to have texts embedded."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)

    input: str | list[str] | list[int] | list[list[int]]
    """A text or a list of texts. Lists of token ids are refused: they are another tokenizer's."""
    model: str | None = None
    """Which model answers. Default: the first one that the server was started with."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or base64 of little-endian float32."""
    dimensions: int | None = Field(default=None, ge=1)
    """Leave out all but the first so many numbers, and scale the rest to length one."""
    user: str | None = None
    """Taken for compatibility; it is neither used nor logged."""


class EmbeddingObject(BaseModel):
    """One text's vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """What OpenAI's clients expect."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class EmbedRequest(_Strict):
    """What clients of the usual embedding server send to `/embed`."""

    inputs: str | list[str]
    """A text or a list of texts."""
    normalize: bool = True
    """Whether vectors are scaled to length one."""
    truncate: bool = False
    """Taken for compatibility: long texts are read whole, in windows."""
    prompt_name: None = None
    """Not supported; only null is taken."""
    dimensions: int | None = Field(default=None, ge=1)
    """Leave out all but the first so many numbers."""


class ClassifyRequest(_Strict):
    """What clients of the usual embedding server send to `/predict`."""

    inputs: str | list[str]
    """A text or a list of texts."""
    truncate: bool = False
    """Taken for compatibility: long texts are read whole, in windows."""
    raw_scores: Literal[False] = False
    """Only probabilities are given."""


class ClassScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class TaskInfo(BaseModel):
    """What a task answers."""

    name: str
    kind: str
    labels: list[str]


class ModelInfo(BaseModel):
    """A model that the server has."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["manyheads"] = "manyheads"
    version: str
    embedding: str
    """A fingerprint of the vectors: two versions with the same one can be mixed."""
    backend: str
    tasks: list[TaskInfo]


class ModelList(BaseModel):
    """All models that the server has."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Status(BaseModel):
    """Whether the server is up or ready."""

    status: str
    reason: str | None = None
