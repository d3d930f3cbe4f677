"""ASGI middleware before the routes: request ids, keys, origins, limits on size and number, and the
log.

The whole body is read first, so that no route handles one that is too large or too slow; the open
paths have none. While the queue is full, `connections` has requests refused before that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyheads.server.keys import Keys
from manyheads.server.monitoring import Monitoring
from manyheads.server.origins import check_origin
from manyheads.server.problems import Problem, problem_of
from manyheads.server.settings import ServerSettings
from manyheads.server.tracing import Span, Tracing

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/livez", "/readyz"})
"""The paths that need no key and do not count as connections. A body sent to them is not read."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
logger = logging.getLogger("manyheads.server")


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route, and the function that answers its requests."""

    route: BaseRoute
    handle: Callable[[Request], Awaitable[Response]]


class Protection:
    """ASGI middleware that passes a request on, or refuses it.

    Args:
        app: the application.
        settings: limits.
        keys: the keys of which a request needs one.
        monitoring: counts requests.
        direct: by path, the routes whose POST requests bypass the rest of the application.
        routes: all routes, under which refused requests are counted too.
        check_room: raises `Problem` if no such request can be queued.
        tracing: starts a span for each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        keys: Keys,
        monitoring: Monitoring,
        direct: Mapping[str, DirectRoute],
        routes: Sequence[BaseRoute],
        check_room: Callable[[], None],
        tracing: Tracing,
    ) -> None:
        self._tracing = tracing
        self._app = app
        self._direct, self._routes = direct, routes
        self._check_room = check_room
        self._settings = settings
        self._monitoring = monitoring
        self._keys = keys
        self._under_way = 0

    def refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that its headers alone show to be refused, else None.

        Under overload most requests are refused. A task for each, which reads its body, would take
        much of the processor, and the accepted requests would wait behind them.
        """
        direct = self._direct.get(scope["path"])
        if direct is None or scope["method"] != "POST":
            return None
        headers = dict(scope["headers"])
        try:
            self._check(scope, headers, self._under_way + 1)
            self._check_room()
        except Problem as problem:
            request_id = _identify(scope, headers)
            scope["route"] = direct.route
            response = problem.response()
            response.headers["x-request-id"] = request_id
            with self._tracing.request(scope["method"], headers) as span:
                self._note(scope, problem.status, 0.0, span)
            return response
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _identify(scope, headers)
        begun = time.monotonic()
        scope["state"]["deadline"] = begun + self._settings.timeout
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()), (b"x-request-id", request_id.encode())
                ]  # fmt: skip
            await send(message)

        is_open = scope["path"] in OPEN_PATHS
        self._under_way += not is_open
        with self._tracing.request(scope["method"], headers) as span:
            try:
                self._check(scope, headers, self._under_way)
                if not is_open:
                    receive = _replaying(await self._body(headers, receive), receive)
                await self._answer(scope, receive, send_with_id)
            except Exception as error:
                if not isinstance(error, Problem):
                    log_bug(request_id, error)
                if not status:
                    await problem_of(error).response()(scope, receive, send_with_id)
            finally:
                self._under_way -= not is_open
                seconds = time.monotonic() - begun
                if span is None:
                    # In the next round of the event loop, before which the answer is sent.
                    loop = asyncio.get_running_loop()
                    loop.call_soon(self._note, scope, status, seconds, span)
                else:
                    self._note(scope, status, seconds, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = self._direct.get(scope["path"])
        if scope["method"] == "HEAD":
            # Answered as GET; uvicorn, which sees the request's own method, sends no body.
            as_get = {**scope, "method": "GET"}
            try:
                await self._app(as_get, receive, send)
            finally:
                # Under which the request is counted and logged.
                scope["route"] = as_get.get("route")
            return
        if direct is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = direct.route
        response = await direct.handle(Request(scope, receive))
        await response(scope, receive, send)

    def _check(self, scope: Scope, headers: dict[bytes, bytes], under_way: int) -> None:
        path = scope["path"]
        if self._keys and path not in OPEN_PATHS:
            scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
            if not (self._keys.accept(key.strip()) and scheme.lower() == b"bearer"):
                raise Problem(
                    401, "the request has no valid key; send one as `Authorization: Bearer KEY`",
                    code="invalid_api_key",
                )  # fmt: skip
        if scope["method"] == "POST":
            check_origin(headers, self._settings.cors_origins)
        if under_way > self._settings.max_connections and path not in OPEN_PATHS:
            raise Problem(
                503, f"the server is handling {self._settings.max_connections:,} requests already; "
                "try again later",
                code="too_many_requests", retry_after=1,
            )  # fmt: skip

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.max_body
        stated = headers.get(b"content-length", b"")
        if stated.isdigit() and int(stated) > limit:
            raise _too_large(int(stated), limit)
        # Before Python 3.12, `asyncio.wait_for` costs a task and two rounds of the event loop.
        task = asyncio.current_task()
        assert task is not None
        is_late = False

        def stop() -> None:
            nonlocal is_late
            is_late = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(self._settings.timeout, stop)
        try:
            return await _whole(receive, limit)
        except asyncio.CancelledError:
            if not is_late:
                raise
            raise Problem(
                408, f"the body did not arrive within {self._settings.timeout:g} seconds",
                code="body_timeout",
            ) from None  # fmt: skip
        finally:
            timer.cancel()

    def _route(self, scope: Scope) -> BaseRoute | None:
        matching = (one for one in self._routes if one.matches(scope)[0] is not Match.NONE)
        return next(matching, None)

    def _note(self, scope: Scope, status: int, seconds: float, span: Span | None) -> None:
        # One that was refused before it was routed has none yet.
        route = getattr(scope.get("route") or self._route(scope), "path", "other")
        state = scope["state"]
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._monitoring.request(route, method, status, seconds)
        fields: dict[str, Any] = {
            "id": state["id"],
            "method": method,
            "path": route if route != "other" else scope["path"][:200],
            "status": status,
            "milliseconds": round(1000 * seconds, 2),
            **{key: state[key] for key in ("model", "texts", "given") if key in state},
        }
        if span is not None:
            span.set_attribute("http.route", fields["path"])
            span.set_attribute("http.response.status_code", status)
            for name in ("id", "model", "texts"):
                if name in fields:
                    span.set_attribute(f"manyheads.{name}", fields[name])
        logger.info("request", extra={"fields": fields})


def _identify(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """Give a request the id of its header, or a new one, and return it."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    request_id = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    scope.setdefault("state", {})["id"] = request_id
    return request_id


async def _whole(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(499, "the client has disconnected", code="client_closed_request")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(size, limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(size: int, limit: int) -> Problem:
    return Problem(
        413,
        f"the body has at least {size:,} bytes; at most {limit:,} are allowed",
        code="body_too_large",
    )


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that replays a body that was read, then continues with the original."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def log_bug(request_id: str, error: BaseException) -> None:
    """Log an unexpected error by type and place. Its message is left out: it may contain a user's
    text."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    fields = {"id": request_id, "error": type(error).__name__, "frames": frames}
    logger.error("bug", extra={"fields": fields})


class LogFormatter(logging.Formatter):
    """Formats a record of the log as one line: a JSON object, or text."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._json = form == "json"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        if self._json:
            line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
            return json.dumps({**line, **fields})
        # Quoted as JSON, so that no value can break the line or look like another field.
        values = " ".join(f"{key}={json.dumps(value)}" for key, value in fields.items())
        return f"{when} {record.levelname.lower()} {record.getMessage()} {values}".rstrip()
