"""The Python client: results, parts of long lists, retries and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

import manyheads
from manyheads.errors import RequestError
from manyheads.inference import TextPair
from serving import served_model, serving


def client(answer: Callable[[httpx.Request], httpx.Response], waits: list[float], **options: int):  # type: ignore[no-untyped-def]
    return manyheads.Client(
        transport=httpx.MockTransport(answer),
        sleep=waits.append,
        **options,  # type: ignore[arg-type]
    )


def _predicted(*texts: str) -> dict[str, Any]:
    return {"model": "m", "version": "v", "predictions": [{"text": text} for text in texts]}


def test_long_lists_are_split_and_come_back_in_order() -> None:
    texts = [*(f"{name} lives in Paris" for name in ("John", "Mary", "Peter", "Anna")), ""]
    with (
        serving(served_model(), max_texts=2) as server,
        manyheads.Client(str(server.base_url), texts_per_request=2) as asking,
    ):
        answer = asking.predict(texts, embed=True, tasks=["intent"])
        assert answer.model == "tiny"
        assert [one.get("text") for one in answer.predictions] == [*texts[:4], None]
        assert "is empty" in answer.predictions[4]["error"]["message"]
        vectors = asking.encode(texts[:4])
        assert vectors.dtype == np.float32
        expected = [one["embedding"] for one in answer.predictions[:4]]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert [model["id"] for model in asking.models()] == ["tiny"]
        assert asking.predict([]).predictions == []
        assert asking.encode([]).shape == (0, vectors.shape[1])
        np.testing.assert_array_equal(asking.encode(iter(texts[:4])), vectors)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="status 404: there is no model 'other'"):
            asking.predict(["a"], model="other")


def test_a_faulty_text_is_named_by_its_place_in_the_whole_list() -> None:
    with (
        serving(served_model(), max_characters=100) as server,
        manyheads.Client(str(server.base_url), texts_per_request=3) as asking,
    ):
        texts = ["John"] * 4
        for length, number in ((9, 7), (7, 6)):
            long = [*(texts * 2)[:number], "`texts[0]`" * 20, *texts][:length]
            errors = [one["error"] for one in asking.predict(long).predictions if "error" in one]
            place = f"texts[{number}]"
            message = f"`{place}` has 200 characters; at most 100 are allowed"
            assert [(e["param"], e["message"]) for e in errors] == [(place, message)]
            with pytest.raises(RequestError, match=rf"`input\[{number}\]` has 200 characters"):
                asking.encode(long)
        with pytest.raises(RequestError, match=r"`input\[3\]` has no words"):
            asking.encode([*texts[:3], "\u200b"])


def test_a_result_of_a_task_called_error_is_no_refusal() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        refused = {"error": {"param": "texts[1]", "message": "`texts[1]` is empty"}}
        # As of a model of version 0.1 with a kind of the user's own.
        found = {"text": "a", "error": {"param": "texts[0]", "score": 0.5}}
        both = [found, refused if "" in json.loads(request.content)["texts"] else found]
        return httpx.Response(200, json={"model": "m", "version": "1", "predictions": both})

    with client(answer, [], texts_per_request=2) as asking:
        found = asking.predict(["a", "a", "a", ""]).predictions
    assert [one.get("text") for one in found] == ["a", "a", "a", None]
    assert found[2]["error"] == {"param": "texts[0]", "score": 0.5}
    assert found[3]["error"]["param"] == "texts[3]"


def test_results_without_texts_are_returned_as_the_server_sent_them() -> None:
    sent = [{"intent": {"label": "ask"}}, {}]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"model": "m", "version": "1", "predictions": sent})

    with client(answer, []) as asking:
        assert asking.predict(["a", "b"]).predictions == sent


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ud800", r"text 2: '\\ud800' has half a character \(an unpaired surrogate\); expected a"),
        (["John", "\ud800"], r"text 2: 'John \\ud800' has half a character"),
        (TextPair("a", "\ud800"), r"text 2: '\\ud800' has half a character"),
        (None, "text 2: None is of the type NoneType; expected a text"),
        ([None], "text 2: None is of the type NoneType; expected a text"),
    ],
)
def test_a_text_that_cannot_be_sent_is_named(text: Any, message: str) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError("a request was sent")

    with client(refuse, []) as asking, pytest.raises(RequestError, match=message):
        asking.predict(["John", text])
    with client(refuse, []) as asking, pytest.raises(RequestError, match=message):
        asking.encode(["John", text])


def test_a_threshold_that_is_no_number_and_an_address_without_http_are_named() -> None:
    message = "the threshold of task 'intent' is nan; expected a number from 0 to 1"
    with manyheads.Client() as asking, pytest.raises(RequestError, match=message):
        asking.predict(["John"], thresholds={"intent": float("nan")})
    message = (
        "the address of the server is 'localhost:8124'; expected .* Write http://localhost:8124"
    )
    with pytest.raises(RequestError, match=message):
        manyheads.Client("localhost:8124")


@pytest.mark.parametrize(
    "options", [{"texts_per_request": 0}, {"texts_per_request": -1}, {"retries": -1}]
)
def test_numbers_that_leave_nothing_to_send_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="expected at least 1 and at least 0"):
        manyheads.Client(**options)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_sent_as_numbers() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=_predicted("John"))

    with client(answer, []) as asking:
        thresholds = {"intent": np.float32(0.5)}
        asking.predict(["a"], top_k=np.int64(2), embed=np.bool_(True), thresholds=thresholds)  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="the threshold of task 'intent' is nan"):
            asking.predict(["a"], thresholds={"intent": np.float32("nan")})  # type: ignore[dict-item]
    body = json.loads(seen[0].content)
    assert (body["top_k"], body["embed"], body["thresholds"]) == (2, True, {"intent": 0.5})


def test_a_server_that_does_not_answer_in_time_is_not_called_unreachable() -> None:
    def late(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    with (
        client(late, [], timeout=3) as asking,
        pytest.raises(RequestError, match=r"did not answer within 3 seconds\. Allow") as error,
    ):
        asking.models()
    assert "running" not in str(error.value)


def test_a_busy_server_is_asked_again_after_the_time_that_it_names() -> None:
    replies = [
        httpx.Response(429, headers={"Retry-After": "3"}),
        httpx.Response(503),
        httpx.Response(429, headers={"Retry-After": "86400"}),
        httpx.Response(200, json=_predicted("John")),
    ]
    waits: list[float] = []
    with client(lambda request: replies.pop(0), waits) as asking:
        assert asking.predict(["a"]).version == "v"
    assert waits == [3, 2, 60]


def test_a_server_that_stays_busy_is_an_error() -> None:
    waits: list[float] = []
    busy = httpx.Response(429, json={"error": {"message": "9 texts are queued already"}})
    with (
        client(lambda request: busy, waits, retries=2) as asking,
        pytest.raises(RequestError, match="status 429: 9 texts are queued already"),
    ):
        asking.encode(["a"])
    assert waits == [1, 2]


def test_a_request_whose_connection_breaks_is_sent_again() -> None:
    answer = httpx.Response(200, json={"data": []})
    events: list[httpx.Response | Exception] = [
        httpx.RemoteProtocolError("disconnected"), answer, httpx.ReadError("reset"),
        httpx.ConnectError("refused"), answer,
    ]  # fmt: skip

    def next_event(request: httpx.Request) -> httpx.Response:
        event = events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    waits: list[float] = []
    with client(next_event, waits, retries=2) as asking:
        assert asking.models() == asking.models() == []
        assert waits == [0, 0, 1]
        events += [httpx.ConnectError("refused")] * 3
        with pytest.raises(RequestError, match=r"cannot be reached \(refused\)"):
            asking.models()


def test_a_server_that_was_never_reached_is_an_error_at_once() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    waits: list[float] = []
    with client(refuse, waits) as asking, pytest.raises(RequestError, match="manyheads serve"):
        asking.models()
    assert waits == []


def test_pairs_tokens_and_the_key_are_sent() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=_predicted("John", "Mary", "Ada"))

    with manyheads.Client(api_key="key", transport=httpx.MockTransport(answer)) as asking:
        asking.predict([TextPair("a", "b"), ("c", "d"), ["e", "f"]])
    assert seen[0].headers["authorization"] == "Bearer key"
    assert json.loads(seen[0].content)["texts"] == [
        {"text": "a", "text2": "b"}, {"text": "c", "text2": "d"}, ["e", "f"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, html="<html>Bad Gateway</html>"),
        httpx.Response(200, html="<html>Please log in</html>"),
        httpx.Response(200, json={"status": "ok"}),
        httpx.Response(200, json=["ok"]),
        httpx.Response(404, json={"error": "not found"}),
    ],
)
def test_an_answer_that_is_not_the_servers_is_an_error_that_shows_it(
    answer: httpx.Response,
) -> None:
    message = (
        rf"sent status {answer.status_code} with an answer that is not Manyheads' "
        rf"\({re.escape(answer.headers['Content-Type'])}: .*\); expected the JSON of .* a proxy"
    )
    with client(lambda request: answer, [], retries=1) as asking:
        with pytest.raises(RequestError, match=message):
            asking.predict(["a"])
        with pytest.raises(RequestError, match=message):
            asking.encode(["a"])
        with pytest.raises(RequestError, match=message):
            asking.models()


def test_a_key_that_is_not_ascii_is_sent_as_the_server_reads_it() -> None:
    key = "schlüssel-ключ"
    with serving(served_model(), api_keys=(key,)) as server:
        with manyheads.Client(str(server.base_url), api_key=key) as asking:
            assert [model["id"] for model in asking.models()] == ["tiny"]
        with (
            manyheads.Client(str(server.base_url), api_key="schlussel") as asking,
            pytest.raises(RequestError, match="status 401: the request has no valid key"),
        ):
            asking.models()


@pytest.mark.parametrize("key", ["secret\n", " secret", "sec\nret", "sec\ud800ret", ""])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(RequestError, match="the API key is empty, begins or ends with") as refused:
        manyheads.Client(api_key=key)
    assert "sec" not in str(refused.value)


def test_an_address_that_is_none_is_named() -> None:
    with pytest.raises(RequestError, match="the address of the server is 'http://a:port'"):
        manyheads.Client("http://a:port")


def test_one_text_instead_of_a_list_and_a_missing_server_are_errors() -> None:
    with manyheads.Client("http://127.0.0.1:9", retries=0) as asking:
        with pytest.raises(RequestError, match="one text, 'John', where texts were expected"):
            asking.predict("John")
        with pytest.raises(RequestError, match=r"cannot be reached .* manyheads serve MODEL"):
            asking.predict(["John"])
