"""The routes: prediction, embeddings as OpenAI and text-embeddings-inference define them, and
operations."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Coroutine, Sequence, Set
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from manyheads.errors import ManyheadsError, RequestError, listing, shorten
from manyheads.inference import Text, TextPair
from manyheads.server.answering import Service, only, only_with_words
from manyheads.server.problems import Problem, statuses, validation_problem
from manyheads.server.protection import DirectRoute
from manyheads.server.registry import ReloadRunning, ServedModel
from manyheads.server.scheduling import Wanted
from manyheads.server.schemas import (
    ClassifyRequest,
    ClassScore,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    ModelInfo,
    ModelList,
    PairOfTexts,
    PredictRequest,
    PredictResponse,
    Status,
    TaskInfo,
)
from manyheads.tasks import (
    ClassResult,
    MultilabelResult,
    Prediction,
    Result,
    Scheme,
    TaggingResult,
)


class _Route(APIRoute):
    """A route that reads its body as strict JSON: UTF-8, without NaN, and of bounded depth.

    A route with a body is called with the validated body and the request. FastAPI's own handling,
    with dependencies and a second validation of the response, takes as long as a short text.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if self.body_field is None:
            return super().get_route_handler()
        model: type[BaseModel] = self.body_field.field_info.annotation  # type: ignore[assignment]

        async def handle(request: Request) -> Response:
            _check_content_type(request)
            _service(request).check_room()
            try:
                given = from_json(await request.body(), allow_inf_nan=False)
            except ValueError as error:
                raise Problem(400, f"the body is not JSON: {error}", code="invalid_json") from None
            try:
                body = model.model_validate(given)
            except ValidationError as error:
                raise validation_problem(error) from None
            response: Response = await self.endpoint(body, request)
            return response

        return handle


def _check_content_type(request: Request) -> None:
    # Other types could be sent by the page of any origin without its browser asking first.
    found = request.headers.get("content-type", "")
    if found.partition(";")[0].strip().lower() != "application/json":
        raise Problem(
            415, f"the content type is {shorten(found)}; send application/json",
            code="content_type",
        )  # fmt: skip


_CLASSES = Wanted(top_k=sys.maxsize, thresholds=False)
_JSON = {"content-type": "application/json"}
router = APIRouter(route_class=_Route)


def direct_handlers(router: APIRouter) -> dict[str, DirectRoute]:
    """Return the routes that read a body, by their path."""
    return {
        route.path: DirectRoute(route, route.get_route_handler())
        for route in router.routes
        if isinstance(route, _Route) and route.body_field is not None
    }


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _json(content: Any) -> Response:
    """Return a response of plain values and of float32 arrays."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), 200, _JSON)


@router.post(
    "/v1/predict", response_model=PredictResponse, responses=statuses(404), tags=["predict"]
)
async def predict(body: PredictRequest, request: Request) -> Response:
    """Predict all tasks, and the embedding if requested, with one pass of the encoder."""
    begun = time.perf_counter()
    service = _service(request)
    model = service.model(body.model)
    tasks = _tasks(model, body.tasks)
    one = isinstance(body.texts, str)
    given = [body.texts] if isinstance(body.texts, str) else body.texts
    texts = [TextPair(x.text, x.text2) if isinstance(x, PairOfTexts) else x for x in given]
    _note_texts(request, service, texts)
    if body.neighbours and model.examples is None:
        raise Problem(
            422, f"`neighbours` is {body.neighbours}, but the server has no examples; start it "
            "with --examples FILE", param="neighbours", code="no_examples",
        )  # fmt: skip
    embed = body.embed or body.neighbours > 0
    wanted = Wanted(
        embed, body.top_k, _thresholds(model, body.thresholds),
        service.prompt(model, body.prompt_name, body.prompt, embed=embed),
    )  # fmt: skip
    answers = await service.answer(request, model, texts, "texts", wanted, is_list=not one)
    if one:
        only(answers)
    plain = {spec.name for spec in model.predictor.specs if spec.scheme is Scheme.PLAIN}
    near: list[list[dict[str, Any]] | None] = [None] * len(answers)
    if body.neighbours:
        near = await run_in_threadpool(_neighbours, model, answers, body.neighbours)
    return _json({
        "model": model.name,
        "version": model.version,
        "milliseconds": round(1000 * (time.perf_counter() - begun), 3),
        "predictions": [
            {"error": answer.body()}
            if isinstance(answer, Problem)
            else _prediction(
                answer, tasks, neighbours, embed=body.embed, tokens=body.tokens, plain=plain
            )
            for answer, neighbours in zip(answers, near, strict=True)
        ],
    })  # fmt: skip


@router.post(
    "/v1/embeddings", response_model=EmbeddingsResponse, responses=statuses(404), tags=["embed"]
)
async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
    """Embed texts, in the form of OpenAI's API."""
    service = _service(request)
    model = service.model(body.model)
    texts = _only_texts(body.input)
    is_list = not isinstance(body.input, str)
    _note_texts(request, service, texts)
    wanted = Wanted(embed=True, prompt=service.prompt(model, body.prompt_name, body.prompt))
    answers = await service.answer(request, model, texts, "input", wanted, is_list=is_list)
    predictions = only_with_words(answers, "input", is_list=is_list)
    vectors = _vectors(predictions, body.dimensions, normalize=body.dimensions is not None)
    prompted = model.predictor.with_prompt(wanted.prompt)
    tokens = await run_in_threadpool(prompted.count_tokens, texts)
    return _json({
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": _encoded(vector, body.encoding_format),
            }
            for i, vector in enumerate(vectors)
        ],
        "model": model.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    })  # fmt: skip


@router.post("/embed", response_model=list[list[float]], responses=statuses(), tags=["embed"])
async def embed(body: EmbedRequest, request: Request) -> Response:
    """Embed texts, in the form of text-embeddings-inference."""
    service = _service(request)
    model = service.model(None)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    _note_texts(request, service, texts)
    is_list = not isinstance(body.inputs, str)
    wanted = Wanted(embed=True, prompt=service.prompt(model, body.prompt_name, body.prompt))
    answers = await service.answer(request, model, texts, "inputs", wanted, is_list=is_list)
    predictions = only_with_words(answers, "inputs", is_list=is_list)
    vectors = _vectors(predictions, body.dimensions, normalize=body.normalize is not False)
    return _json([np.ascontiguousarray(vector) for vector in vectors])


@router.post(
    "/predict", response_model=list[ClassScore] | list[list[ClassScore]], responses=statuses(),
    tags=["predict"],
)  # fmt: skip
async def classify(body: ClassifyRequest, request: Request) -> Response:
    """Classify texts with the first classification task, or the first multilabel one if there is no
    other, in the form of text-embeddings-inference."""
    service = _service(request)
    model = service.model(None)
    texts = _classified_texts(body.inputs)
    _note_texts(request, service, texts)
    is_list = not isinstance(body.inputs, str)
    answers = await service.answer(request, model, texts, "inputs", _CLASSES, is_list=is_list)
    predictions = only_with_words(answers, "inputs", is_list=is_list)
    count = body.parameters.top_k if body.parameters else None
    scores = [_class_scores(prediction)[:count] for prediction in predictions]
    several = isinstance(body.inputs, list) and not all(isinstance(x, str) for x in body.inputs)
    return _json(scores if several or not scores else scores[0])


@router.get("/v1/models", tags=["operations"], responses=statuses())
async def models(request: Request) -> ModelList:
    """List the models of the server."""
    return ModelList(data=[_info(model) for model in _service(request).registry.all()])


@router.post("/v1/models/{name}:reload", responses=statuses(404, 409), tags=["operations"])
async def reload(
    name: str,
    request: Request,
    allow_new_embedding: Annotated[bool, Query(description="Accept another embedding.")] = False,
) -> ModelInfo:
    """Load a model's files again and replace the old version; no request is lost. While a reload of
    the model is running, another one is refused with status 409."""
    service = _service(request)
    old = service.model(name)
    try:
        # Without waiting: the threads of the pool also compute what other requests need.
        new = await run_in_threadpool(
            service.reload, old.name, allow_new_embedding=allow_new_embedding, wait=False
        )
    except ReloadRunning as error:
        raise Problem(409, str(error), param="name", code="reload_running") from None
    except ManyheadsError as error:
        code = "reload_refused" if isinstance(error, RequestError) else "model_unusable"
        raise Problem(409, str(error), param="name", code=code) from None
    return _info(new)


@router.get("/livez", tags=["operations"])
async def livez() -> Status:
    """Report that the process is running."""
    return Status(status="alive")


@router.get("/readyz", tags=["operations"], responses={503: {"model": Status}})
async def readyz(request: Request) -> Response:
    """Report whether every model is ready; if not, with status 503 and the reason."""
    for model in _service(request).registry.all():
        if reason := model.scheduler.trouble():
            told = Status(status="not ready", reason=f"{model.name}: {reason}")
            return JSONResponse(told.model_dump(), 503, {"Retry-After": "1"})
    return JSONResponse(Status(status="ready").model_dump())


@router.get("/metrics", tags=["operations"], response_class=Response, responses=statuses())
async def metrics(request: Request) -> Response:
    """Return the metrics in the Prometheus text format."""
    page = _service(request).monitoring.page()
    return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")


def _tasks(model: ServedModel, asked: list[str] | None) -> list[str]:
    known = [spec.name for spec in model.predictor.specs if spec.answers]
    for i, task in enumerate(asked or ()):
        if task not in known:
            raise Problem(
                422, f"`tasks[{i}]` is {shorten(task)}, which is not a task of model "
                f"{model.name!r}; its tasks are: {listing(known) or 'none'}",
                param=f"tasks[{i}]", code="unknown_task",
            )  # fmt: skip
    return known if asked is None else asked


def _thresholds(
    model: ServedModel, given: bool | dict[str, float]
) -> bool | tuple[tuple[str, float], ...]:
    if isinstance(given, bool):
        return given
    known = _tasks(model, None)
    for task in given:
        if task not in known:
            raise Problem(
                422, f"`thresholds` has {shorten(task)}, which is not a task of model "
                f"{model.name!r}; its tasks are: {listing(known) or 'none'}",
                param="thresholds", code="unknown_task",
            )  # fmt: skip
    return tuple(sorted(given.items()))


def _note_texts(request: Request, service: Service, texts: Sequence[Text]) -> None:
    if service.settings.log_texts:
        request.scope["state"]["given"] = texts


def _only_texts(given: str | list[str] | list[int] | list[list[int]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise Problem(
            422, "`input` has token ids, which are another tokenizer's; send texts (LangChain: "
            "check_embedding_ctx_length=False)", param="input", code="token_ids",
        )  # fmt: skip
    return texts


def _neighbours(
    model: ServedModel, answers: Sequence[Prediction | Problem], count: int
) -> list[list[dict[str, Any]] | None]:
    """Return the nearest examples of each text that has an embedding."""
    assert model.examples is not None
    return [
        None
        if isinstance(answer, Problem) or answer.embedding is None
        else model.examples.nearest(answer.embedding, count)
        for answer in answers
    ]


def _prediction(
    prediction: Prediction,
    tasks: list[str],
    neighbours: list[dict[str, Any]] | None,
    *,
    embed: bool,
    tokens: bool,
    plain: Set[str],
) -> dict[str, Any]:
    results: dict[str, Result] = {}
    hidden = []
    for name in (name for name in prediction.results if name in tasks):
        results[name] = result = prediction.results[name]
        # Plain tags, which make no entities, are the result themselves.
        if not tokens and name not in plain and isinstance(result, TaggingResult):
            hidden.append(name)
            results[name] = replace(result, tokens=())
    record = replace(prediction, embedding=None, embedding2=None, results=results).to_json()
    for name in hidden:
        del record[name]["tokens"]
    if embed and prediction.embedding is not None:
        record["embedding"] = prediction.embedding
    if embed and prediction.embedding2 is not None:
        record["embedding2"] = prediction.embedding2
    record["windows"] = prediction.windows
    if neighbours is not None:
        record["neighbours"] = neighbours
    return record


def _vectors(
    predictions: list[Prediction], dimensions: int | None, *, normalize: bool
) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    vectors = []
    for vector in (prediction.embedding for prediction in predictions):
        assert vector is not None
        if dimensions is not None and dimensions > len(vector):
            raise Problem(
                422, f"`dimensions` is {dimensions}; the model's embedding has {len(vector)}",
                param="dimensions", code="too_many_dimensions",
            )  # fmt: skip
        cut = vector[:dimensions].astype(np.float32)
        norm = float(np.linalg.norm(cut))
        vectors.append(cut / norm if normalize and norm else cut)
    return vectors


def _encoded(vector: np.ndarray[Any, np.dtype[np.float32]], form: str | None) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers


def _classified_texts(given: str | list[str] | list[list[str]]) -> list[str]:
    """Return the texts of a request to `/predict`, where a flat list of two is one pair."""
    if isinstance(given, str):
        return [given]
    if len(given) == 1 and isinstance(given[0], str):
        return [given[0]]
    texts = []
    for i, one in enumerate(given):
        if isinstance(one, str) or len(one) != 1:
            place = "inputs" if isinstance(one, str) else f"inputs[{i}]"
            raise Problem(
                422, f"`{place}` is a list of several texts, which stands for a pair; pairs are "
                'not supported here. For several texts send [["first"], ["second"]].',
                param=place, code="pair",
            )  # fmt: skip
        texts.append(one[0])
    return texts


def _class_scores(prediction: Prediction) -> list[dict[str, Any]]:
    for kind in (ClassResult, MultilabelResult):
        for result in prediction.results.values():
            if isinstance(result, kind):
                return [{"label": one.label, "score": one.score} for one in result.candidates]
    raise Problem(422, "the model has no task of classification", code="no_classification")


def _info(model: ServedModel) -> ModelInfo:
    return ModelInfo(
        id=model.name,
        version=model.version,
        embedding=model.embedding,
        backend=model.predictor.backend.name,
        examples=0 if model.examples is None else len(model.examples.records),
        tasks=[
            TaskInfo(name=spec.name, kind=spec.kind, labels=list(spec.labels))
            for spec in model.predictor.specs
        ],
    )
