"""The pages at `/` and `/docs`: one file each that loads nothing from other hosts, under a strict
Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    """Return the page to try the models."""
    return _response("page.html")


@router.get("/docs")
async def docs() -> Response:
    """Return the page that describes the API, with examples that run."""
    return _response("docs.html")


def _response(name: str) -> Response:
    text, policy = _page(name)
    return HTMLResponse(
        text,
        headers={
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        },
    )


@cache
def _page(name: str) -> tuple[str, str]:
    """Return a page, and the policy that allows only its own script and style."""
    text = files("manyheads.server").joinpath(name).read_text(encoding="utf-8")
    allowed = []
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        [inner] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        allowed.append(f"{directive} 'sha256-{digest}'")
    rest = "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return text, f"default-src 'none'; {'; '.join(allowed)}; {rest}"
