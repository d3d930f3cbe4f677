"""How connections end when the server stops: whatever has arrived or is on its way is answered."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manyheads.server.settings import ServerSettings

BACKLOG = 2048
"""Connections that the system queues until they are accepted."""
_KEEP_ALIVE_SECONDS = 75
"""An idle connection is closed after this time. Proxies and most clients do so after at most 60
seconds. The side that closes first cannot miss a request that the other is just sending."""
_LINGER_SECONDS = 0.5
"""When the server stops, an idle connection stays open for this time."""


class Connection(HttpToolsProtocol):
    """A connection that answers a request that is on its way when the server stops, with the header
    `Connection: close`. uvicorn closes idle connections at once, and such a request is lost."""

    _is_stopping = False

    def shutdown(self) -> None:
        """Close after the current request, or after one that arrives soon."""
        self._is_stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            _LINGER_SECONDS, self.timeout_keep_alive_handler
        )

    def on_headers_complete(self) -> None:
        """Start to answer a request."""
        super().on_headers_complete()
        if self._is_stopping:
            self.cycle.keep_alive = False


class Server(uvicorn.Server):
    """A server that accepts what the system has queued before it stops; closing the listening
    socket would reset those connections."""

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


def make_server(app: ASGIApp, settings: ServerSettings) -> Server:
    """Return a server for an application."""
    config = uvicorn.Config(
        app, http=Connection, log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS, backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.timeout) + 1, lifespan="on",
    )  # fmt: skip
    return Server(config)
