"""POST requests that a browser sends for the page of another origin are refused.

For a request without a body or with a plain one, a browser asks no server whether the page may send
it: CORS keeps the answer from the page, not the effect from the server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

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
