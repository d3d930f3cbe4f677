"""Pages of other origins: what they may send, and how a browser learns it (CORS).

POST requests that a browser sends for the page of another origin are refused. For a request without
a body or with a plain one, a browser asks no server whether the page may send it: CORS keeps the
answer from the page, not the effect from the server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from manyheads.errors import shorten
from manyheads.server.problems import Problem


def check_origin(headers: Mapping[bytes, bytes], allowed: Collection[str]) -> None:
    """Do nothing if a POST request is not by the page of another origin.

    Browsers send `Origin` with every POST request, and `Sec-Fetch-Site` to HTTPS and to this
    machine; no page can set either. Other programs send neither.

    Args:
        headers: the request's headers.
        allowed: the origins whose pages may call the server; `*` for all.

    Raises:
        Problem: the page's origin is neither the server's own nor allowed.
    """
    site = headers.get(b"sec-fetch-site", b"")
    origin = headers.get(b"origin", b"").decode("latin-1")
    if site in (b"same-origin", b"none") or not (site or origin):
        return
    if origin in allowed or "*" in allowed:
        return
    host = headers.get(b"host", b"").decode("latin-1")
    # The scheme is not compared: a proxy that ends TLS changes it.
    page = origin.partition("://")[2]
    if page and page == host and not site:
        return
    # Files and sandboxed pages have the origin `null`, which is no page to allow.
    found, option = (shorten(origin), origin[:200]) if page else ("another origin", "ORIGIN")
    raise Problem(
        403, f"the request comes from a page of {found}; expected a page of {shorten(host)}. To "
        f"allow the page, start the server with --cors-origin {option}; behind a proxy, have it "
        "pass on the header Host",
        code="cross_origin",
    )  # fmt: skip


class Cors(CORSMiddleware):
    """CORS whose refusals have the form of all errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the response to a browser that asks what a page may send."""
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        problem = Problem(
            response.status_code,
            f"{bytes(response.body).decode()}; expected GET or POST, from the page of an origin "
            "for which the server was started with --cors-origin",
            code="cross_origin",
        )
        refusal = problem.response()
        kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
        refusal.headers.update(kept)
        return refusal
