"""The kind of processor, and whether a graph computes the same on it as where it was exported.

Different kinds of processors multiply 8-bit numbers with different instructions, some of which
overflow. The report of a graph therefore holds its outputs for a few fixed sentences, and loading
the graph on another kind of processor computes them again.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from manyheads.inference.backends.base import Backend
from manyheads.text import Floats, TextTokenizer, pad_batch, windows

SENTENCES = (
    "John lives in Paris.",
    "Where does Mary Jane Watson work, and since when?",
    "Please cancel order 4711 of 3 May and refund $20.50!",
    "ok",
    "Der Zug nach Köln fährt um 8:15 Uhr ab.",
    "I would not buy this again: it broke after two days, and nobody answered my e-mails.",
)
"""Fixed sentences, since a report must not contain the user's."""

MIN_COSINE = 0.995
"""The least cosine of an output with the stored one. With other rounding it stays above 0.9999,
with overflowing sums that hardly matter above 0.998 (see docs/experiments.md)."""

# The instruction sets that decide how products of 8-bit numbers are computed.
_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8", "avx512bw", "avx2", "asimddp", "i8mm", "sve")


@cache
def processor_kind() -> str:
    """Return the architecture and its instructions for 8-bit products, as far as known."""
    found: set[str] = set()
    with suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.lower().startswith(("flags", "features")):
                found = set(line.partition(":")[2].split())
                break
    return " ".join([platform.machine(), *(name for name in _FEATURES if name in found)])


def sums_overflow(kind: str | None = None) -> bool:
    """Return whether a processor adds products of signed 8-bit weights in 16 bits.

    x86 without VNNI does. If the instructions are unknown, it is assumed.

    Args:
        kind: the kind of processor; default, that of this one.
    """
    machine, *features = (kind or processor_kind()).split()
    return machine.lower() in ("x86_64", "amd64") and not {"avx512_vnni", "avx_vnni"} & {*features}


def sample_outputs(
    backend: Backend, tokenizer: TextTokenizer, max_length: int, pad_id: int
) -> dict[str, Floats]:
    """Compute a graph's outputs for `SENTENCES`, each alone: by name, all values in a row."""
    rows: dict[str, list[Floats]] = {}
    for encoding in tokenizer.encode_batch(SENTENCES):
        if not len(encoding.word_starts):
            continue
        batch = pad_batch([windows(encoding, max_length, 0)[0]], pad_id)
        for name, values in backend.run(batch).items():
            rows.setdefault(name, []).append(values.ravel())
    return {name: np.concatenate(values) for name, values in rows.items()}


def samples_to_json(outputs: Mapping[str, Floats]) -> dict[str, Any]:
    """Return the samples for a report: the kind of processor, and outputs to five digits."""
    rounded = {name: [float(f"{v:.5g}") for v in values] for name, values in outputs.items()}
    return {"processor": processor_kind(), "outputs": rounded}


def exported_on(report: Any) -> str | None:
    """Return the kind of processor that a report was made on, or None if it is unknown."""
    samples = report.get("samples") if isinstance(report, Mapping) else None
    kind = samples.get("processor") if isinstance(samples, Mapping) else None
    return kind if isinstance(kind, str) and kind else None


def wants_comparison(report: Any) -> bool:
    """Return whether a report was made on another kind of processor than this one."""
    samples = report.get("samples") if isinstance(report, Mapping) else None
    return isinstance(samples, Mapping) and samples.get("processor") != processor_kind()


def agrees(report: Any, outputs: Mapping[str, Floats]) -> bool:
    """Return whether outputs equal those of a report up to rounding."""
    stored = report["samples"].get("outputs")
    if not isinstance(stored, dict) or stored.keys() != outputs.keys():
        return False
    for name, values in outputs.items():
        try:
            wanted = np.asarray(stored[name], np.float64)
        except (TypeError, ValueError, OverflowError):
            return False
        if wanted.shape != values.shape:
            return False
        norms = float(np.linalg.norm(wanted)) * float(np.linalg.norm(values))
        if norms and not float(wanted @ values) / norms >= MIN_COSINE:
            return False
    return True
