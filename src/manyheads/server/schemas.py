"""What requests and responses look like; the source of the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)


class _Prompted(_Strict):
    """What embeddings read before each text. The tasks read texts without a prompt."""

    prompt_name: str | None = None
    """The prompt of the encoder that embeddings read before each text, by its name. Default: the
    encoder's default prompt, if it has one."""
    prompt: str | None = Field(default=None, max_length=2000)
    """The prompt itself, in place of one of the encoder's."""


class PairOfTexts(_Strict):
    """Two texts, for tasks that compare them."""

    text: str
    text2: str


class PredictRequest(_Prompted):
    """Texts to predict for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["John lives in Paris"], "top_k": 3}]}
    )

    texts: str | list[str | list[str] | PairOfTexts]
    """A text, or a list of texts: each a string, a list of tokens, or a pair of texts."""
    model: str | None = None
    """The model's name. Default: the first model of the server."""
    tasks: list[str] | None = None
    """The tasks to predict. Default: all."""
    embed: bool = False
    """Whether to return the sentence embedding."""
    tokens: bool = False
    """Whether tagging results include every token with its tag, besides the entities."""
    top_k: int = Field(default=0, ge=0, le=10_000)
    """How many of the most probable labels to list with each result, as `candidates`."""
    thresholds: bool | dict[str, Annotated[float, Field(ge=0, le=1)]] = True
    """Whether results that do not reach the model's thresholds are undecided: without a label, with
    candidates. Or the score to reach by task."""
    neighbours: int = Field(default=0, ge=0, le=100)
    """How many of the nearest records to list, if the server has a file of examples."""


class ErrorBody(BaseModel):
    """The error of a request or of one of its texts."""

    message: str
    type: str
    param: str | None = None
    """The field of the request that is at fault."""
    code: str | None = None


class ErrorResponse(BaseModel):
    """The response to a request that failed."""

    error: ErrorBody


class PredictResponse(BaseModel):
    """The predictions, in the order of the texts."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str
    version: str
    milliseconds: float
    predictions: list[dict[str, Any]]
    """For each text an object with `text`, the result of each task, `windows`, `in_scope` if the
    model knows its scope, and `embedding` or `neighbours` if requested; or an object with `error`
    alone if this text was refused."""


class EmbeddingsRequest(_Prompted):
    """A request as OpenAI's clients send it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["John lives in Paris"]}]})

    input: str | list[str] | list[int] | list[list[int]]
    """A text or a list of texts. Token ids are refused, because they are another tokenizer's."""
    model: str | None = None
    """The model's name. Default: the first model of the server."""
    encoding_format: Literal["float", "base64"] | None = "float"
    """Numbers, or base64 of little-endian float32."""
    dimensions: int | None = Field(default=None, ge=1)
    """Keep only the first dimensions, and scale the vector to length 1."""
    user: str | None = None
    """Accepted for compatibility; neither used nor logged."""


class EmbeddingObject(BaseModel):
    """The vector of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """The number of tokens of all texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """A response as OpenAI's clients expect it."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: Usage


class EmbedRequest(_Prompted):
    """A request as clients of text-embeddings-inference send it to `/embed`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["John lives in Paris"]}]})

    inputs: str | list[str]
    """A text or a list of texts."""
    normalize: bool | None = True
    """Whether to scale vectors to length 1."""
    truncate: bool | None = None
    """Accepted for compatibility: long texts are read whole, in windows."""
    truncation_direction: str | None = None
    """Accepted for compatibility."""
    dimensions: int | None = Field(default=None, ge=1)
    """Keep only the first dimensions."""


class ClassifyParameters(_Strict):
    """Options as the InferenceClient of huggingface_hub sends them."""

    top_k: int | None = Field(default=None, ge=1)
    """How many of the most probable classes to return. Default: all."""


class ClassifyRequest(_Strict):
    """A request as clients of text-embeddings-inference send it to `/predict`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "John lives in Paris"}]})

    inputs: str | list[str] | list[list[str]]
    """A text; a list of one text; or a list of such lists, for several texts at once."""
    truncate: bool | None = None
    """Accepted for compatibility: long texts are read whole, in windows."""
    truncation_direction: str | None = None
    """Accepted for compatibility."""
    parameters: ClassifyParameters | None = None
    """Further options."""
    raw_scores: Literal[False] | None = None
    """Raw scores are not supported: scores are probabilities."""


class ClassScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class TaskInfo(BaseModel):
    """A task of a model."""

    name: str
    kind: str
    labels: list[str]


class ModelInfo(BaseModel):
    """A model of the server."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: Literal["model"] = "model"
    owned_by: Literal["manyheads"] = "manyheads"
    version: str
    embedding: str
    """A fingerprint of the embedding. Vectors of models with the same one can be compared."""
    backend: str
    examples: int
    """The number of examples among which the nearest are searched."""
    tasks: list[TaskInfo]


class ModelList(BaseModel):
    """All models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class Status(BaseModel):
    """The state of the server."""

    status: str
    reason: str | None = None
