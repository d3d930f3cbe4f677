"""Errors as responses: one form for all, which OpenAI's clients read as well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from manyheads.errors import ManyheadsError, shorten
from manyheads.server.scheduling import LaneLost, QueueFull, TextTimeout

_TYPES = {
    401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


class Problem(Exception):
    """A request that gets an error as its answer.

    Args:
        status: the HTTP status.
        message: what was found, what was expected, what to do.
        param: where in the request.
        code: a word for programs.
        retry_after: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after

    def body(self) -> dict[str, Any]:
        """Return the answer's `error` object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "")
        return {
            "message": self.message,
            "type": kind or "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.body()}, self.status, headers)


def problem_of(error: BaseException, param: str | None = None) -> Problem:
    """Return the answer to whatever went wrong with a text."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ManyheadsError):
        return Problem(422, str(error), param=param, code="invalid_text")
    if isinstance(error, QueueFull):
        return Problem(
            429, f"{error}; try again later", code="queue_full", retry_after=error.seconds
        )
    if isinstance(error, TextTimeout):
        return Problem(504, "the request took longer than the server allows", code="timeout")
    if isinstance(error, LaneLost):
        return Problem(503, f"{error}; try again", code="lane_lost", retry_after=1)
    return Problem(500, "the server failed to answer; its log has the reason", code="bug")


def validation_problem(error: RequestValidationError) -> Problem:
    """Name the first field that is wrong, with its value and what is allowed."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "extra_forbidden":
        message = f"unknown field `{place}`"
    elif first["type"] == "missing":
        message = f"`{place}` is missing" if place else "the request has no body"
    else:
        value = first.get("input")
        message = f"`{place}` is {shorten(value)}: {_words(first)}"
    return Problem(422, message, param=place or None, code=first["type"])


def _words(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer with a `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


async def answer_validation(request: Request, error: Exception) -> JSONResponse:
    """Answer a request whose fields are wrong."""
    assert isinstance(error, RequestValidationError)
    return validation_problem(error).response()


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    """Answer a request for which there is no route or method."""
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    response = problem.response()
    response.headers.update(error.headers or {})
    return response


def statuses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe error answers for the OpenAPI page."""
    from manyheads.server.schemas import ErrorResponse

    return {code: {"model": ErrorResponse} for code in _sorted(codes)}


def _sorted(codes: Sequence[int]) -> list[int]:
    return sorted({*codes, 400, 401, 413, 422, 429, 503, 504})
