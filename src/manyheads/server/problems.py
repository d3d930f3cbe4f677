"""Errors as HTTP responses, all in the form that OpenAI's clients read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from manyheads.errors import ManyheadsError, shorten
from manyheads.server.scheduling import LaneLost, QueueFull, TextTimeout
from manyheads.server.schemas import ErrorResponse

_TYPES = {
    401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


# Parts of an error's location that are no fields: where FastAPI found the value, and pydantic's
# names for the members of the unions in `schemas`.
_NOT_FIELDS = frozenset({"body", "query", "path", "str", "int", "bool"})


class Problem(Exception):
    """An error that is sent as the response to a request or to one of its texts.

    Args:
        status: the HTTP status.
        message: what was found, what was expected, what to do.
        param: the field of the request that is at fault.
        code: a stable name for programs.
        retry_after: seconds after which a client may try again.
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
        """Return the response's `error` object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "")
        return {
            "message": self.message,
            "type": kind or "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }

    def response(self) -> JSONResponse:
        """Return the response."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(self.retry_after))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.body()}, self.status, headers)


def problem_of(error: BaseException, param: str | None = None) -> Problem:
    """Convert an exception to the problem that is sent."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ManyheadsError):
        return Problem(422, str(error), param=param, code="invalid_text")
    if isinstance(error, QueueFull):
        return Problem(
            429, f"{error}; try again later", code="queue_full", retry_after=error.seconds
        )
    if isinstance(error, TextTimeout):
        return Problem(504, "the request took longer than the server's limit", code="timeout")
    if isinstance(error, LaneLost):
        return Problem(503, f"{error}; try again", code="lane_lost", retry_after=1)
    return Problem(500, "the server failed; its log has the error", code="bug")


def validation_problem(error: RequestValidationError | ValidationError) -> Problem:
    """Return a problem that names the first invalid field, its value and what is expected."""
    # A value that fits no member of a union is reported once for each member. The deepest error
    # belongs to the member that was meant.
    problems = sorted(error.errors(), key=lambda p: _depth(_place(p["loc"])), reverse=True)
    first = problems[0]
    place = _place(first["loc"])
    expected = dict.fromkeys(_words(p) for p in problems if _place(p["loc"]) == place)
    if first["type"] == "extra_forbidden":
        message = f"unknown field `{place}`"
    elif first["type"] == "missing":
        message = f"`{place}` is missing" if place else "the request has no body"
    else:
        found = f"`{place or 'body'}` is {shorten(first.get('input'))}"
        message = f"{found}; expected {' or '.join(expected)}"
    return Problem(422, message, param=place or None, code=first["type"])


def _place(loc: Sequence[int | str]) -> str:
    """Write a place as `texts[0].text`, without pydantic's names for the members of a union."""
    place = ""
    for part in loc:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part not in _NOT_FIELDS and re.fullmatch(r"[a-z_0-9]+", part):
            place += f".{part}" if place else part
    return place


def _depth(place: str) -> int:
    return place.count("[") + place.count(".")


def _words(problem: Mapping[str, Any]) -> str:
    if problem["type"] in ("model_attributes_type", "model_type"):
        return "an object"
    text = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return text[:1].lower() + text[1:]


async def answer_problem(request: Request, error: Exception) -> JSONResponse:
    """Respond with a `Problem`."""
    assert isinstance(error, Problem)
    return error.response()


async def answer_validation(request: Request, error: Exception) -> JSONResponse:
    """Respond to a request with invalid fields."""
    assert isinstance(error, RequestValidationError)
    return validation_problem(error).response()


async def answer_http(request: Request, error: Exception) -> JSONResponse:
    """Respond to a request without a matching route or method."""
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
    response = problem.response()
    response.headers.update(error.headers or {})
    return response


def statuses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route for the OpenAPI schema."""
    usual = (400, 401, 403, 408, 413, 415, 422, 429, 503, 504)
    return {code: {"model": ErrorResponse} for code in sorted({*codes, *usual})}
