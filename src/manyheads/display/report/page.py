"""The report as one HTML file: its data, and a page that runs only its own script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files

from manyheads.evaluation.report.data import Report
from manyheads.version import __version__

_DATA = "<!-- data -->"
_POLICY = "<!-- policy -->"


def html_page(report: Report) -> str:
    """Return the report as a page that opens without a network.

    The data are JSON in an element that is not executed. No text of the user's can end it, because
    `<` is escaped. The page inserts texts as text, never as HTML.
    """
    stored = {**report.to_json(), "verdict": list(report.verdict), "version": __version__}
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone surrogates, which UTF-8 cannot encode, become JSON escapes.
    text = re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)
    before, after = _template()
    return f'{before}<script type="application/json" id="data">{text}</script>{after}'


@cache
def _template() -> tuple[str, str]:
    """Return the page before and after its data, with the policy for its script and style."""
    text = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    allowed = []
    for tag in ("script", "style"):
        [inner] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        allowed.append(f"{tag}-src 'sha256-{digest}'")
    policy = f"default-src 'none'; {'; '.join(allowed)}; base-uri 'none'; form-action 'none'"
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    before, after = text.replace(_POLICY, meta).split(_DATA)
    return before, after
