"""The settings of a server: address, limits, keys and log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, InstanceOf, ValidationError

from manyheads.data.readers import Layout
from manyheads.errors import RequestError, nearest, shorten

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d+)?")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


def _origin(given: str) -> str:
    """Return an origin as browsers write it: in lower case, without a path or the usual port."""
    if given == "*":
        return given
    found = _ORIGIN.fullmatch(given.lower().removesuffix("/"))
    if found is None:
        raise ValueError(
            "* or an origin, such as https://shop.example.com or http://localhost:5173"
        )
    scheme, host, port = found.groups(default="")
    return f"{scheme}://{host}{'' if port == _USUAL_PORTS.get(scheme) else port}"


class ServerSettings(BaseModel):
    """The settings of a server. The text below a field is the help of its flag."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; 0.0.0.0 for all interfaces."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 selects a free one, which is printed."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Processor threads. Default: all cores."""
    examples: Path | None = None
    """Data file whose nearest records are shown with an answer (`neighbours` of a request)."""
    layout: InstanceOf[Layout] | None = None
    """How that file is laid out, where content and names do not show it."""
    max_body: int = Field(default=4 << 20, ge=1024, le=1 << 30)
    """Maximum bytes of a request body; a larger one gets status 413."""
    max_texts: int = Field(default=1024, ge=1, le=1_000_000)
    """Maximum texts of a request; more get status 422."""
    max_characters: int = Field(default=50_000, ge=1, le=100_000_000)
    """Maximum characters of a text; a longer one gets status 422. In a list that is sent to
    /v1/predict, it gets an `error` in place of its answer."""
    max_queue: int = Field(default=2048, ge=1, le=10_000_000)
    """Maximum queued texts; while as many are queued, requests get status 429 with Retry-After."""
    max_connections: int = Field(default=512, ge=1, le=100_000)
    """Maximum concurrent requests; one more gets status 503 with Retry-After."""
    timeout: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a request may take, after which it gets status 504."""
    api_keys: tuple[str, ...] | Path = ()
    """Accepted keys (`Authorization: Bearer KEY`), or the file that has one per line, which SIGHUP
    reads again. Default: no key is needed."""
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """Origins whose pages may call the server from a browser (CORS), such as
    https://shop.example.com; * for all. Default: none."""
    log_format: Literal["json", "text"] = "json"
    """Format of the log: one JSON object, or one line of text, for each request."""
    log_texts: bool = False
    """Whether the log includes the texts of requests."""


def make_settings(**values: Any) -> ServerSettings:
    """Return validated settings.

    Raises:
        RequestError: a setting is unknown or its value is invalid.
    """
    try:
        return ServerSettings.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            known = nearest(name, ServerSettings.model_fields)
            raise RequestError(f"the server has no setting {shorten(name)}{known}") from None
        expected = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        expected = expected[:1].lower() + expected[1:]
        raise RequestError(f"{name} is {shorten(problem['input'])}", expected=expected) from None
