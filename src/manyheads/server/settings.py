"""What can be set about a server: its limits, keys and logs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ServerSettings(BaseModel):
    """The limits and habits of a server. The text under a field is the help of its flag."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of the machine's."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one and prints it."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Processor threads. Default: all cores there are."""
    max_body: int = Field(default=4 << 20, ge=1024, le=1 << 30)
    """Bytes of a request's body; a larger one gets status 413."""
    max_texts: int = Field(default=1024, ge=1, le=1_000_000)
    """Texts of a request; more get status 422."""
    max_characters: int = Field(default=50_000, ge=1, le=100_000_000)
    """Characters of a text; a longer one gets status 422."""
    max_queue: int = Field(default=2048, ge=1, le=10_000_000)
    """Texts that may wait; a request beyond that gets status 429 and Retry-After."""
    max_connections: int = Field(default=512, ge=1, le=100_000)
    """Requests under way at a time; one more gets status 503 and Retry-After."""
    timeout: float = Field(default=30.0, gt=0, le=3600)
    """Seconds that a request may take; then it gets status 504."""
    api_keys: tuple[str, ...] = ()
    """Keys of which requests must bring one (`Authorization: Bearer KEY`). Default: none needed."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the server from a browser. Default: none."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object or one line of text for each request."""
    log_texts: bool = False
    """Whether the log has the texts of requests."""
