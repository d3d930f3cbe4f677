"""Connections: requests are refused before they are read while the queue is full, and whatever has
arrived or is on its way when the server stops is answered."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, cast

import uvicorn
from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from manyheads.server.app import Application
from manyheads.server.settings import ServerSettings

BACKLOG = 2048
"""Connections that the system queues until they are accepted."""
_KEEP_ALIVE_SECONDS = 75
"""An idle connection is closed after this time. Proxies and most clients do so after at most 60
seconds. The side that closes first cannot miss a request that the other is just sending."""
_LINGER_SECONDS = 0.5
"""When the server stops, an idle connection stays open for this time."""


class _Joined(asyncio.Transport):
    """Sends the head of a response together with its body. uvicorn writes them one after the other,
    and a client that is woken by the head would have to wait for the body again."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None
        self._is_first = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the head, or send what follows it."""
        if self._is_first:
            self._is_first, self._head = False, bytes(data)
            # For a response without a body.
            self._loop.call_soon(self._flush)
            return
        head, self._head = self._head, None
        self._transport.write(data if head is None else b"".join((head, data)))

    def _flush(self) -> None:
        if self._head is not None:
            self.write(b"")

    def is_closing(self) -> bool:
        """Return whether the connection is closed or about to be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        self._flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """A connection that refuses requests by their headers, and answers one that is on its way when
    the server stops, with the header `Connection: close`. uvicorn starts a task for each request
    before it is refused; and it closes idle connections at once, so that such a request is lost."""

    _is_stopping = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Refused here, a body that is on its way is skipped. If the connection has to be closed
        # afterwards, or the client waits with the body, or does not read answers, or there are
        # further requests, the application refuses.
        plain = cycle.keep_alive and not cycle.waiting_for_100_continue
        if plain and not self.pipeline and not self.flow.write_paused and not self._is_stopping:
            response = cast(Application, self.config.app).refuse(cast(Scope, cycle.scope))
            if response is not None:
                cycle.response_started = cycle.response_complete = True
                self.transport.write(_bytes(response, self.server_state.default_headers))
                self.on_response_complete()
                return
        cycle.transport = _Joined(self.transport, self.loop)
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        """Note that the whole body has arrived."""
        super().on_message_complete()
        # The body of a refused request arrived after the answer, and stopped the timer.
        refused = self.cycle is not None and self.cycle.response_complete
        if refused and self.timeout_keep_alive_task is None:
            self._close_after(self.timeout_keep_alive)

    def shutdown(self) -> None:
        """Close after the current request, or after one that arrives soon."""
        self._is_stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
            return
        self._unset_keepalive_if_required()
        self._close_after(_LINGER_SECONDS)

    def _close_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def on_headers_complete(self) -> None:
        """Start to answer a request."""
        super().on_headers_complete()
        if self._is_stopping:
            self.cycle.keep_alive = False


class Server(uvicorn.Server):
    """A server that accepts what the system has queued before it stops; closing the listening
    socket would reset those connections."""

    _serving: Coroutine[Any, Any, None] | None = None

    def serve(self, sockets: list[socket.socket] | None = None) -> Coroutine[Any, Any, None]:
        """Return what serves until the server is stopped."""
        self._serving = super().serve(sockets)
        return self._serving

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the server is stopped."""
        try:
            super().run(sockets)
        finally:
            # A signal may have come before the loop ran it; Python would warn of that.
            if self._serving is not None:
                self._serving.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer all requests, and close."""
        loop = asyncio.get_running_loop()
        for listening in sockets or ():
            listening.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    accepted, _ = listening.accept()
                    await loop.connect_accepted_socket(self._connection, accepted)
        await super().shutdown(sockets)

    def _connection(self) -> Connection:
        return Connection(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _bytes(response: Response, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a whole response as it is sent."""
    lines = [b"%s: %s\r\n" % header for header in (*headers, *response.raw_headers)]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", response.body])


def make_server(app: Application, settings: ServerSettings) -> Server:
    """Return a server for an application."""
    config = uvicorn.Config(
        app, http=Connection, log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS, backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.timeout) + 1, lifespan="on",
    )  # fmt: skip
    return Server(config)
