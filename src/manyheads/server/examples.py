"""The examples nearest to a text: records of a file, embedded by the model.

Axes: N examples, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.data.readers import Layout, read_rows
from manyheads.errors import DataError, at, option
from manyheads.inference import Predictor, embed_texts

MAX_EXAMPLES = 100_000
"""A search computes a product with every example."""
_SCORE = "score"


@dataclass(frozen=True, slots=True)
class Examples:
    """Records with a text, and their embeddings."""

    records: list[dict[str, Any]]
    """Each with its text and its labels."""
    vectors: NDArray[np.float32]
    """[N, H], of length 1."""

    def nearest(self, embedding: NDArray[np.float32], count: int) -> list[dict[str, Any]]:
        """Return the nearest records, each with its cosine similarity as `score`.

        Args:
            embedding: [H] of a text.
            count: how many.
        """
        norm = float(np.linalg.norm(embedding)) or 1.0
        scores = self.vectors @ (embedding / norm)
        count = min(count, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        best = best[np.argsort(-scores[best])]
        return [{**self.records[i], _SCORE: round(float(scores[i]), 6)} for i in best]


def read_examples(path: Path, layout: Layout | None = None) -> list[dict[str, Any]]:
    """Read the records of a data file of any format.

    Args:
        path: the file.
        layout: how it is laid out, where content and names do not show it.

    Raises:
        DataError: the file cannot be read or is too long, or a record has no text or a field whose
            name has another meaning here.
    """
    records = []
    for row in read_rows(path, layout=layout):
        records.append(_record(row.fields, row.where))
        if len(records) > MAX_EXAMPLES:
            raise DataError(
                f"there are more than {MAX_EXAMPLES:,} examples",
                fix="Serve a sample of them.",
                where=at(path),
            )
    return records


def embed_examples(predictor: Predictor, records: list[dict[str, Any]]) -> Examples:
    """Embed examples with the model that searches them."""
    vectors = embed_texts(predictor, [record["text"] for record in records])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Examples(records, (vectors / np.where(norms, norms, 1)).astype(np.float32))


def _record(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    text, tokens = fields.get("text"), fields.get("tokens")
    if not isinstance(text, str) and isinstance(tokens, list):
        text = " ".join(map(str, tokens))
    if not isinstance(text, str) or not text.strip():
        named = option("--text-field NAME", '`layout=Layout(names={NAME: "text"})`')
        raise DataError(
            "the example has no text", expected="a field `text` or `tokens`, with words",
            where=where,
            fix="" if {"text", "tokens"} & set(fields) else f"Name its field: {named}.",
        )  # fmt: skip
    if _SCORE in fields:
        raise DataError(
            f"the example has a field {_SCORE!r}, which is the similarity where examples are "
            "listed",
            expected="another name", where=where,
            fix="Rename it: "
            + option("--map score=rating", '`layout=Layout(names={"score": "rating"})`') + ".",
        )  # fmt: skip
    labels = {k: v for k, v in fields.items() if k not in ("text", "tokens")}
    return {"text": _plain(text), **_plain(labels)}


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: dates, bytes and integers beyond 64 bits as strings, and
    no lone surrogates."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return str(value)
