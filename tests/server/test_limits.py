"""Every limit of the server, its status, and what happens to requests that are refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from serving import Gate, answer_of, becomes, connection, served_model, serving


def predict(client: httpx.Client, texts: Any, **options: Any) -> httpx.Response:
    return client.post("/v1/predict", json={"texts": texts, **options})


def error(response: httpx.Response) -> Any:
    return response.json()["error"]


def test_each_limit_of_a_request_has_its_status_and_names_the_field() -> None:
    with serving(served_model(), max_body=4096, max_texts=3, max_characters=100) as client:
        response = predict(client, "a" * 5000)
        assert response.status_code == 413
        assert "at most 4,096 are allowed" in error(response)["message"]
        chunked = client.post("/v1/predict", content=(b"x" * 1000 for _ in range(10)))
        assert chunked.status_code == 413

        response = predict(client, ["a"] * 4)
        assert response.status_code == 422
        assert error(response) == {
            "message": "`texts` has 4 texts; at most 3 are allowed in a request",
            "type": "invalid_request_error",
            "param": "texts",
            "code": "too_many_texts",
        }

        response = predict(client, "a" * 101)
        assert response.status_code == 422
        assert error(response)["message"] == "`texts` has 101 characters; at most 100 are allowed"
        response = client.post("/v1/embeddings", json={"input": ["a", "b" * 101]})
        assert response.status_code == 422
        assert error(response)["param"] == "input[1]"
        assert predict(client, ["a"] * 3).status_code == 200


def test_one_bad_text_of_a_list_fails_alone() -> None:
    with serving(served_model(), max_characters=100) as client:
        texts = ["John lives in Paris", "", "a" * 101, "\u200b", "a\u0000b", [], "Mary"]
        response = predict(client, texts, embed=True)
        assert response.status_code == 200
        answers = response.json()["predictions"]
        assert [a["error"]["param"] for a in answers if "error" in a] == [
            "texts[1]", "texts[2]", "texts[4]", "texts[5]"
        ]  # fmt: skip
        assert answers[0]["intent"]["label"] in {"question", "statement"}
        assert len(answers[0]["embedding"]) == len(answers[6]["embedding"])
        assert answers[3]["empty"] is True
        faulty = ["Mary", "a" * 101]
        for path, body in (
            ("/v1/embeddings", {"input": faulty}),
            ("/embed", {"inputs": faulty}),
            ("/predict", {"inputs": [[text] for text in faulty]}),
        ):
            whole = client.post(path, json=body)
            assert whole.status_code == 422
            assert error(whole)["code"] == "text_too_long"


def test_a_full_queue_gets_429_with_retry_after_and_recovers() -> None:
    gate = Gate()
    with (
        serving(served_model(), gate, max_queue=1) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        scheduler = client.app.state.service.registry.get().scheduler  # type: ignore[attr-defined]
        gate.open.clear()
        first = pool.submit(predict, client, "first")
        assert gate.entered.acquire(timeout=60)
        second = pool.submit(predict, client, ["second", "third"])
        assert becomes(lambda: scheduler.waiting == 2)
        refused = predict(client, "fourth")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert error(refused)["type"] == "rate_limit_error"
        gate.open.set()
        assert first.result(60).status_code == second.result(60).status_code == 200
        assert predict(client, "fifth").status_code == 200


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
def test_a_full_queue_refuses_without_reading_the_body(close: bytes) -> None:
    body = b'{"texts": "x"}'
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"X-Request-ID: mine\r\n%sContent-Length: %d\r\n" % (close, len(body))
    )
    key = b"Authorization: Bearer key\r\n\r\n"
    gate = Gate()
    with (
        serving(served_model(), gate, max_queue=1, api_keys=("key",)) as client,
        ThreadPoolExecutor(2) as pool,
        connection(client) as raw,
    ):
        scheduler = client.app.state.service.registry.get().scheduler  # type: ignore[attr-defined]
        client.headers["authorization"] = "Bearer key"
        gate.open.clear()
        first = pool.submit(predict, client, "first")
        assert gate.entered.acquire(timeout=60)
        second = pool.submit(predict, client, "second")
        assert becomes(lambda: scheduler.waiting == 1)
        raw.sendall(head + key + body * bool(close))
        answer = answer_of(raw)
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"\r\nx-request-id: mine\r\n" in answer
        assert b"1 texts are queued already" in answer
        if not close:
            # The body arrives now and is skipped; the next request needs a key first.
            raw.sendall(body + head + b"\r\n" + body)
            assert answer_of(raw).startswith(b"HTTP/1.1 401 ")
        gate.open.set()
        assert first.result(60).status_code == second.result(60).status_code == 200
        if not close:
            raw.sendall(head + key + body)
            assert answer_of(raw).startswith(b"HTTP/1.1 200 ")
        counted = 'manyheads_requests_total{method="POST",path="/v1/predict",status="429"} 1.0'
        assert counted in client.get("/metrics").text


def test_a_request_that_takes_too_long_gets_504() -> None:
    gate = Gate()
    with serving(served_model(), gate, timeout=0.3) as client:
        gate.open.clear()
        response = predict(client, "slow")
        assert response.status_code == 504
        assert error(response)["code"] == "timeout"


def test_a_client_that_leaves_frees_its_place() -> None:
    gate = Gate()
    with serving(served_model(), gate, max_queue=1) as client, ThreadPoolExecutor(4) as pool:
        scheduler = client.app.state.service.registry.get().scheduler  # type: ignore[attr-defined]
        gate.open.clear()
        first = pool.submit(predict, client, "first")
        assert gate.entered.acquire(timeout=60)
        body = b'{"texts": "gone"}'
        with connection(client) as raw:
            raw.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            assert becomes(lambda: scheduler.waiting == 1)
            assert predict(client, "refused").status_code == 429
        # The server notices within a moment; until then the queue is full.
        assert becomes(lambda: not scheduler.waiting)
        second = pool.submit(predict, client, "second")
        assert becomes(lambda: scheduler.waiting == 1 or second.done())
        gate.open.set()
        assert first.result(60).status_code == second.result(60).status_code == 200


def test_the_computation_of_a_long_text_ends_when_its_client_leaves() -> None:
    gate = Gate()
    with serving(served_model(), gate, timeout=600) as client:
        scheduler = client.app.state.service.registry.get().scheduler  # type: ignore[attr-defined]
        left = 'manyheads_requests_total{method="POST",path="/v1/predict",status="499"} 1.0'
        long = "the weather in London " * 500
        assert predict(client, long).json()["predictions"][0]["windows"] > 20
        gate.open.clear()
        body = json.dumps({"texts": long}).encode()
        with connection(client) as raw:
            raw.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            assert gate.entered.acquire(timeout=60)
        assert becomes(lambda: left in client.get("/metrics").text)
        runs = gate.runs
        gate.open.set()
        assert becomes(lambda: not scheduler.computing)
        assert gate.runs == runs


def test_more_connections_than_allowed_get_503_but_probes_are_answered() -> None:
    gate = Gate()
    with serving(served_model(), gate, max_connections=1) as client, ThreadPoolExecutor(2) as pool:
        gate.open.clear()
        first = pool.submit(predict, client, "first")
        assert gate.entered.acquire(timeout=60)
        refused = client.get("/v1/models")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert client.get("/livez").status_code == 200
        gate.open.set()
        assert first.result(60).status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_bodies_that_do_not_arrive_take_no_place_where_no_key_is_needed() -> None:
    with (
        serving(served_model(), max_connections=1, api_keys=("key",)) as client,
        ExitStack() as stack,
    ):
        for path, status in ((b"/", b"405"), (b"/livez", b"405"), (b"/unknown", b"401")):
            raw = stack.enter_context(connection(client))
            raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n" % path)
            assert answer_of(raw).startswith(b"HTTP/1.1 " + status)
            assert (
                client.get("/v1/models", headers={"authorization": "Bearer key"}).status_code == 200
            )
            # The body that arrives after the answer is skipped.
            raw.sendall(b"0123456789GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer_of(raw).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_does_not_arrive_gets_408() -> None:
    with serving(served_model(), timeout=0.3) as client, connection(client) as raw:
        raw.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")
