"""A client for the server: it splits long lists, and repeats requests that got no answer."""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import httpx
import numpy as np
from numpy.typing import NDArray

from manyheads.errors import RequestError, shorten
from manyheads.inference import Text, TextPair
from manyheads.inference.texts import check_texts, chunked
from manyheads.tasks.label_values import is_encodable

_BUSY = frozenset({429, 502, 503})
_LONGEST_WAIT = 60.0
_PLACE = re.compile(r"(texts|input)\[(\d+)\]")
_PREDICTED: Mapping[str, type] = {"model": str, "version": str, "predictions": list}
_LISTED: Mapping[str, type] = {"data": list}
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""The connection ended before the answer, as when the server restarts."""


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """The predictions of a server for a list of texts."""

    model: str
    version: str
    predictions: list[dict[str, Any]]
    """In the order of the texts, each in the form of `Prediction.to_json`, or an object with
    `error` and no `text` if the server refused the text."""


class Client:
    """A client for a Manyheads server.

    Args:
        url: the server's address, such as http://localhost:8000.
        api_key: the key, if the server requires one.
        timeout: seconds that a request may take.
        retries: how often a request is repeated. If the server is busy, after the time in its
            Retry-After or else after 1, 2, 4 ... seconds, at most 60. If the connection breaks, or
            a server that has answered before cannot be reached, after 0, 1, 3, 7 ... seconds.
        texts_per_request: longer lists are split into several requests; at least 1.
        transport: the transport of httpx, for tests and proxies.
        sleep: the function that waits between attempts.

    Raises:
        RequestError: the address is not one of HTTP, or the key cannot be sent.
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
        if texts_per_request < 1 or retries < 0:
            raise RequestError(
                f"texts_per_request is {texts_per_request} and retries is {retries}",
                expected="at least 1 and at least 0",
            )
        if not str(url).lower().startswith(("http://", "https://")):
            raise RequestError(
                f"the address of the server is {shorten(url)}",
                expected="one that begins with http:// or https://",
                fix=f"Write http://{url}." if "://" not in url else "",
            )
        headers = {} if api_key is None else {"Authorization": f"Bearer {_checked_key(api_key)}"}
        try:
            # The server compares the bytes of keys; httpx would write them in ASCII alone.
            self._http = httpx.Client(
                base_url=url, headers=httpx.Headers(headers, encoding="utf-8"), timeout=timeout,
                transport=transport,
            )  # fmt: skip
        except httpx.InvalidURL as error:
            raise RequestError(
                f"the address of the server is {shorten(url)} ({error})",
                expected="one such as http://localhost:8000",
            ) from None
        self._retries, self._size, self._sleep = retries, texts_per_request, sleep
        self._has_answered = False

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
        top_k: int = 0,
        thresholds: bool | Mapping[str, float] = True,
        neighbours: int = 0,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> ServerAnswer:
        """Predict for texts.

        Args:
            texts: each a string, a list of tokens, or a pair of texts: a tuple of two.
            model: the model's name. Default: the server's first model.
            tasks: the tasks to predict. Default: all.
            embed: whether to return embeddings.
            tokens: whether tagging results include every token.
            top_k: how many of the most probable labels are listed with each result.
            thresholds: whether results that do not reach the model's thresholds are undecided; or
                by task the score that they have to reach.
            neighbours: how many of the nearest records of the server's examples are listed.
            prompt_name: the prompt of the encoder that embeddings read before each text, by its
                name. Default: the encoder's default prompt, if it has one.
            prompt: the prompt itself, in place of one of the encoder's.

        Raises:
            RequestError: a text or threshold cannot be sent; or the server cannot be reached,
                refused the request, or stayed busy; or something else answered.
        """
        options: dict[str, Any] = {
            "embed": _plain(embed),
            "tokens": _plain(tokens),
            "top_k": _plain(top_k),
            "neighbours": _plain(neighbours),
            "thresholds": _sent_thresholds(thresholds),
            **_prompt(prompt_name, prompt),
        }
        if model is not None:
            options["model"] = model
        if tasks is not None:
            options["tasks"] = list(tasks)
        answers = [
            (start, self._send("/v1/predict", {"texts": part, **options}, _PREDICTED, start))
            for start, part in self._parts(texts)
        ]
        found = [
            {**one, "error": _moved(one["error"], start)}
            if "error" in one and "text" not in one
            else one
            for start, answer in answers
            for one in answer["predictions"]
        ]
        if not answers:
            return ServerAnswer(model or "", "", [])
        _, first = answers[0]
        return ServerAnswer(first["model"], first["version"], found)

    def encode(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> NDArray[np.float32]:
        """Return the embeddings of N texts, [N, H].

        Args:
            texts: N texts.
            model, prompt_name, prompt: as for `predict`.

        Raises:
            RequestError: a text cannot be sent; or the server cannot be reached, refused the
                request, or stayed busy; or something else answered.
        """
        options = {"model": model, **_prompt(prompt_name, prompt)}
        rows: list[NDArray[np.float32]] = []
        for start, part in self._parts(texts):
            body = {"input": part, "encoding_format": "base64", **options}
            answer = self._send("/v1/embeddings", body, _LISTED, start)
            rows += [np.frombuffer(base64.b64decode(x["embedding"]), "<f4") for x in answer["data"]]
        if not rows:
            # Only an embedding shows how many columns there are.
            return self.encode(["a"], model=model, prompt_name=prompt_name, prompt=prompt)[:0]
        return np.array(rows, np.float32)

    def models(self) -> list[dict[str, Any]]:
        """Return the server's models with their tasks and labels."""
        models: list[dict[str, Any]] = self._send("/v1/models", None, _LISTED)["data"]
        return models

    def _parts(self, texts: Sequence[Text]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the texts of each request, and the place of its first one."""
        texts = _checked(texts)
        for start in range(0, len(texts), self._size):
            some = texts[start : start + self._size]
            yield start, [_to_json(text) for text in some]

    def _send(
        self, path: str, body: dict[str, Any] | None, fields: Mapping[str, type], start: int = 0
    ) -> dict[str, Any]:
        """Send a request, and return the answer.

        Args:
            path: the route.
            body: its body; None: a GET request.
            fields: the fields of an answer, each with its type.
            start: the place of its first text among those of the caller.

        Raises:
            RequestError: the server cannot be reached, refused the request, or stayed busy; or
                something else answered.
        """
        for attempt in range(self._retries + 1):
            is_last = attempt == self._retries
            try:
                response = (
                    self._http.get(path) if body is None else self._http.post(path, json=body)
                )
            except httpx.TransportError as error:
                if is_last or not self._is_temporary(error):
                    raise self._failure(error) from error
                # No request changes anything, so one that the server may have received can be
                # sent again.
                self._sleep(min(2.0**attempt - 1, _LONGEST_WAIT))
                continue
            self._has_answered = True
            if is_last or response.status_code not in _BUSY:
                break
            self._sleep(_seconds(response, attempt))
        answer = _json_of(response)
        if response.is_success and _has(answer, fields):
            return answer
        if not response.is_success and (message := _message(answer, start)):
            raise RequestError(f"the server sent status {response.status_code}: {message}")
        kind = response.headers.get("Content-Type", "without a type")
        raise RequestError(
            f"{self._http.base_url} sent status {response.status_code} with an answer that is not "
            f"Manyheads' ({kind}: {shorten(response.text, 200)})",
            expected="the JSON of a Manyheads server",
            fix="Check the address, and whether a proxy answers in the server's place.",
        )

    def _failure(self, error: httpx.TransportError) -> RequestError:
        """Return the error that a request without an answer becomes."""
        late = isinstance(error, httpx.TimeoutException)
        if late and not isinstance(error, httpx.ConnectTimeout):
            return RequestError(
                f"{self._http.base_url} did not answer within {self._http.timeout.read:g} seconds",
                fix="Allow more with `timeout`, or send fewer texts at a time with "
                "`texts_per_request`.",
            )
        return RequestError(
            f"{self._http.base_url} cannot be reached ({error or type(error).__name__})",
            fix="Is the server running? Start it: manyheads serve MODEL",
        )

    def _is_temporary(self, error: httpx.TransportError) -> bool:
        """Return whether another attempt may succeed. One to a server that never answered would
        only delay the message that it is not running."""
        return isinstance(error, _BROKEN) or (
            self._has_answered and isinstance(error, httpx.ConnectError)
        )


def _checked_key(key: str) -> str:
    """Return a key that a header can hold.

    Raises:
        RequestError: it has a control character or white space at an end, as of a line of a file,
            or is empty. The message does not show it.
    """
    if key and key.isprintable() and key == key.strip() and is_encodable(key):
        return key
    raise RequestError(
        "the API key is empty, begins or ends with white space, or has a control character",
        expected="a key as in the server's file of keys, without the end of the line",
        fix="Remove white space around it: api_key=KEY.strip().",
    )


def _checked(texts: Sequence[Text]) -> list[Text]:
    """Return the texts of a request.

    Raises:
        RequestError: they are no list, or one of them cannot be sent.
    """
    check_texts(texts)
    given = list(texts)
    for [one] in chunked(given, 1, pairs=True):
        for text in filter(None, (one.text, one.second)):
            if not is_encodable(text):
                raise RequestError(
                    f"{shorten(text)} has half a character (an unpaired surrogate)",
                    expected="a text of whole Unicode characters",
                    fix="Leave it out or repair it.",
                    where=f"text {one.number}",
                )
    return given


def _sent_thresholds(thresholds: bool | Mapping[str, float]) -> bool | dict[str, float]:
    """Return thresholds as JSON values.

    Raises:
        RequestError: one of them is not finite.
    """
    plain = _plain(thresholds)
    if isinstance(plain, bool):
        return plain
    scores = {task: _plain(score) for task, score in plain.items()}
    for task, score in scores.items():
        if isinstance(score, float) and not math.isfinite(score):
            raise RequestError(
                f"the threshold of task {shorten(task)} is {score}",
                expected="a number from 0 to 1",
            )
    return scores


def _prompt(name: str | None, prompt: str | None) -> dict[str, str]:
    """Return the fields that choose a prompt, which servers of earlier versions do not know.

    Raises:
        RequestError: the prompt cannot be sent.
    """
    given = {"prompt_name": name, "prompt": prompt}
    stated = {field: value for field, value in given.items() if value is not None}
    for field, value in stated.items():
        if not isinstance(value, str) or not is_encodable(value):
            raise RequestError(
                f"{field} is {shorten(value)}", expected="a text of whole Unicode characters"
            )
    return stated


def _plain(value: Any) -> Any:
    """Return a scalar of numpy as Python's own, which JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value


def _to_json(text: Text) -> Any:
    if isinstance(text, tuple) and len(text) == 2:
        return TextPair(*text)._asdict()
    return text if isinstance(text, str) else list(text)


def _seconds(response: httpx.Response, attempt: int) -> float:
    """Return the seconds to wait before the next attempt."""
    stated = response.headers.get("Retry-After", "")
    return min(float(stated) if stated.isdigit() else float(2**attempt), _LONGEST_WAIT)


def _moved(error: dict[str, Any], start: int) -> dict[str, Any]:
    """Return an error with the place of its text among those of the caller."""
    param = error.get("param") or ""
    if not (found := _PLACE.match(param)):
        return error
    place = f"{found[1]}[{int(found[2]) + start}]{param[found.end() :]}"
    message = error["message"].replace(f"`{param}`", f"`{place}`", 1)
    return {**error, "param": place, "message": message}


def _json_of(response: httpx.Response) -> Any:
    """Return the value of an answer; None if it is not JSON."""
    try:
        return response.json()
    except ValueError:
        return None


def _has(answer: Any, fields: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    return isinstance(answer, dict) and all(
        isinstance(answer.get(name), kind) for name, kind in fields.items()
    )


def _message(answer: Any, start: int) -> str:
    """Return the message of a server's error; empty if it is not one of Manyheads."""
    if not _has(answer, {"error": dict}) or not _has(answer["error"], {"message": str}):
        return ""
    return str(_moved(answer["error"], start)["message"])
