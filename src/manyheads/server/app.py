"""The application: models, routes, middleware and error handlers put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from manyheads.server.answering import Service
from manyheads.server.keys import Keys
from manyheads.server.monitoring import Identity, Monitoring
from manyheads.server.origins import Cors
from manyheads.server.page import router as page_router
from manyheads.server.problems import (
    Problem,
    answer_http,
    answer_problem,
    answer_validation,
)
from manyheads.server.protection import OPEN_PATHS, Protection
from manyheads.server.registry import Load, Registry
from manyheads.server.routes import direct_handlers, router
from manyheads.server.scheduling import Scheduler
from manyheads.server.settings import ServerSettings
from manyheads.server.tracing import Tracing
from manyheads.version import __version__


def create_app(
    models: Mapping[str, Path],
    settings: ServerSettings,
    load: Load | None = None,
    tracer_provider: Any = None,
) -> Application:
    """Load models and return the application that serves them.

    Args:
        models: each model's folder by name; the first is the default.
        settings: limits, keys and logs.
        load: loads a model from a path with a number of threads. Default: `load_model`.
        tracer_provider: OpenTelemetry's. Default: the one of the process.

    Raises:
        ModelError: a model cannot be loaded.
        DataError: the file of examples cannot be read.
        StorageError, RequestError: the file of keys cannot be read.
    """
    keys = Keys(settings.api_keys)
    tracing = Tracing(tracer_provider)
    registry = Registry(models, settings, load, tracing)
    monitoring = Monitoring()
    for name in registry.names:
        _watch(monitoring, registry, name)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(registry.close, settings.timeout)

    # Routing and FastAPI's middleware take as long as a short text.
    fast = direct_handlers(router)
    routes = [*router.routes, *page_router.routes]
    service = Service(registry, settings, monitoring, keys)
    app = Application(
        protect=lambda inner: Protection(
            inner, settings, keys, monitoring, fast, routes, service.check_room, tracing
        ),
        settings=settings,
        title="Manyheads",
        version=__version__,
        summary="Classes, entities and the embedding of a sentence, from one pass of one model.",
        lifespan=lifespan,
        # FastAPI's own pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(router)
    app.include_router(page_router)
    app.add_exception_handler(Problem, answer_problem)
    app.add_exception_handler(RequestValidationError, answer_validation)
    app.add_exception_handler(HTTPException, answer_http)
    return app


def _watch(monitoring: Monitoring, registry: Registry, name: str) -> None:
    """Have the metrics read the state of a model, whichever version is served by then."""

    def scheduler() -> Scheduler:
        return registry.get(name).scheduler

    def identity() -> Identity:
        model = registry.get(name)
        return Identity(model.version, model.embedding)

    monitoring.watch(
        name,
        identity,
        waiting_texts=lambda: scheduler().waiting,
        computing_texts=lambda: scheduler().computing,
        lost_lanes=lambda: scheduler().lanes_lost,
        ready=lambda: float(not scheduler().trouble()),
    )


class Application(FastAPI):
    """An application whose protection stands before all of FastAPI's own middleware, and CORS
    before the protection.

    Args:
        protect: wraps the application that it protects.
        settings: the origins whose pages may call the server, and whether it needs keys.
        options: those of FastAPI.
    """

    def __init__(
        self,
        *,
        protect: Callable[[ASGIApp], Protection],
        settings: ServerSettings,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._protect, self._settings = protect, settings
        self._protection: Protection | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """Return the whole stack; Starlette calls this once."""
        self._protection = self._protect(super().build_middleware_stack())
        if not self._settings.cors_origins:
            return self._protection
        # A browser asks without a key whether the page may send one, and shows the page no error
        # that has no header for it.
        return Cors(
            self._protection, allow_origins=list(self._settings.cors_origins),
            allow_methods=["GET", "POST"], allow_headers=["*"],
        )  # fmt: skip

    def refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that is refused before its body is read, else None.

        With CORS every response needs its headers, so that none is refused here.
        """
        if self._protection is None or self._settings.cors_origins:
            return None
        return self._protection.refuse(scope)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI schema, which says where a key is needed."""
        schema = super().openapi()
        if self._settings.api_keys:
            schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path in schema["paths"].keys() - OPEN_PATHS:
                for operation in schema["paths"][path].values():
                    operation["security"] = [{"key": []}]
        return schema
