"""A client for the server: retries as the server asks, and long lists sent in parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from manyheads.errors import RequestError

Text = str | Sequence[str]
_AGAIN = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """What a server answered to a list of texts."""

    model: str
    version: str
    predictions: list[dict[str, Any]]
    """In the order of the texts, as `Prediction.to_json` writes them, or with `error`."""


class Client:
    """Asks a Manyheads server.

    Args:
        url: where it is, such as http://localhost:8000.
        api_key: the key, if it needs one.
        timeout: seconds that a request may take.
        retries: how often a request is sent again that the server was too busy for.
        texts_per_request: longer lists are sent in parts.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        texts_per_request: int = 256,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )
        self._retries, self._part, self._sleep = retries, texts_per_request, sleep

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self._http.base_url)!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def predict(
        self,
        texts: Sequence[Text],
        *,
        model: str | None = None,
        tasks: Sequence[str] | None = None,
        embed: bool = False,
        tokens: bool = False,
    ) -> ServerAnswer:
        """Predict for texts.

        Args:
            texts: each a string or a list of tokens.
            model: the model's name; default, the server's first.
            tasks: the tasks to answer; default, all.
            embed: whether to give embeddings as well.
            tokens: whether tagging results have every token.

        Raises:
            RequestError: the server refused the request, or was too busy for too long.
        """
        options: dict[str, Any] = {"embed": embed, "tokens": tokens}
        if model is not None:
            options["model"] = model
        if tasks is not None:
            options["tasks"] = list(tasks)
        answers = [
            self._send("/v1/predict", {"texts": part, **options}) for part in self._parts(texts)
        ]
        found = [prediction for answer in answers for prediction in answer["predictions"]]
        if not answers:
            return ServerAnswer(model or "", "", [])
        return ServerAnswer(answers[0]["model"], answers[0]["version"], found)

    def encode(self, texts: Sequence[str], *, model: str | None = None) -> NDArray[np.float32]:
        """Embed texts; returns [N, H].

        Raises:
            RequestError: the server refused the request, or was too busy for too long.
        """
        rows: list[list[float]] = []
        for part in self._parts(texts):
            body = {"input": part, **({} if model is None else {"model": model})}
            answer = self._send("/v1/embeddings", body)
            rows += [one["embedding"] for one in answer["data"]]
        return np.array(rows, np.float32)

    def models(self) -> list[dict[str, Any]]:
        """List the server's models."""
        models: list[dict[str, Any]] = self._send("/v1/models", None)["data"]
        return models

    def _parts(self, texts: Sequence[Text]) -> Iterator[list[Any]]:
        for start in range(0, len(texts), self._part):
            some = texts[start : start + self._part]
            yield [text if isinstance(text, str) else list(text) for text in some]

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        for attempt in range(self._retries + 1):
            try:
                response = (
                    self._http.get(path) if body is None else self._http.post(path, json=body)
                )
            except httpx.TransportError as error:
                raise RequestError(
                    f"{self._http.base_url} cannot be reached ({error or type(error).__name__})",
                    fix="Is the server running? Start it: manyheads serve MODEL",
                ) from error
            if response.status_code not in _AGAIN or attempt == self._retries:
                break
            self._sleep(_seconds(response, attempt))
        if response.is_success:
            return response.json()
        raise RequestError(f"the server answered {response.status_code}: {_message(response)}")


def _seconds(response: httpx.Response, attempt: int) -> float:
    """Return how long to wait before the next attempt: as the server says, or 1, 2, 4 ... s."""
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else float(2**attempt)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase
