"""Embeddings of requests are read behind the prompt that each of them chooses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import manyheads
from manyheads.errors import RequestError
from serving import Gate, becomes, serving
from training_setup import encoder_folder, run

TEXTS = ["John lives in Paris", "where is Mary ?"]
PROMPTS = {"query": "who is ", "passage": "the weather in "}
CHOICES: list[dict[str, str]] = [
    {}, {"prompt_name": "query"}, {"prompt_name": "passage"}, {"prompt": "will "}, {"prompt": ""},
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose encoder has two prompts, the first by default."""
    folder = tmp_path_factory.mktemp("prompts")
    encoder = Path(shutil.copytree(encoder_folder(), folder / "encoder"))
    settings = {"prompts": {**PROMPTS, "long": "a " * 500}, "default_prompt_name": "query"}
    (encoder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    result, _ = run(folder, model_name=str(encoder))
    return result.best


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[httpx.Client]:
    with serving(model) as client:
        yield client


def embedded(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    """The vectors of a request to any of the routes that embed."""
    field = {"/embed": "inputs", "/v1/embeddings": "input", "/v1/predict": "texts"}[path]
    options = {"/embed": {"normalize": False}, "/v1/predict": {"embed": True}}.get(path, {})
    response = client.post(path, json={field: TEXTS, **options, **body})
    assert response.status_code == 200, response.text
    answer = response.json()
    if path == "/embed":
        return answer
    return [one["embedding"] for one in answer.get("data") or answer["predictions"]]


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/v1/predict"])
def test_every_route_embeds_behind_the_prompt_that_is_chosen(
    client: httpx.Client, model: Path, path: str
) -> None:
    own = manyheads.load(model)
    for choice in CHOICES:
        np.testing.assert_allclose(
            embedded(client, path, choice), own.encode(TEXTS, **choice), atol=1e-5
        )
    assert not np.allclose(own.encode(TEXTS, prompt_name="passage"), own.encode(TEXTS))


def test_labels_are_the_same_behind_any_prompt(client: httpx.Client) -> None:
    answers = []
    for choice in CHOICES:
        body = {"texts": TEXTS, "embed": True, **choice}
        answers.append(client.post("/v1/predict", json=body).json()["predictions"])
        for one in answers[-1]:
            del one["embedding"]
    assert all(answer == answers[0] for answer in answers)


def test_texts_with_different_prompts_that_wait_together_are_told_apart(model: Path) -> None:
    own, gate = manyheads.load(model), Gate()
    choices = CHOICES * 2
    with serving(model, gate) as client, ThreadPoolExecutor(len(choices) + 1) as pool:
        scheduler = client.app.state.service.registry.get().scheduler  # type: ignore[attr-defined]
        gate.open.clear()
        first = pool.submit(client.post, "/v1/predict", json={"texts": "first"})
        assert gate.entered.acquire(timeout=60)
        waiting = [pool.submit(embedded, client, "/embed", choice) for choice in choices]
        assert becomes(lambda: scheduler.waiting == len(TEXTS) * len(choices))
        gate.open.set()
        assert first.result(60).status_code == 200
        for answer, choice in zip(waiting, choices, strict=True):
            np.testing.assert_allclose(answer.result(60), own.encode(TEXTS, **choice), atol=1e-5)


def test_the_client_chooses_prompts(client: httpx.Client, model: Path) -> None:
    own = manyheads.load(model)
    expected = own.encode(TEXTS, prompt_name="passage")
    with manyheads.Client(str(client.base_url)) as asking:
        np.testing.assert_allclose(asking.encode(TEXTS, prompt_name="passage"), expected, atol=1e-5)
        found = asking.predict(TEXTS, embed=True, prompt=PROMPTS["passage"]).predictions
        np.testing.assert_allclose([one["embedding"] for one in found], expected, atol=1e-5)
        assert asking.encode([], prompt_name="passage").shape == (0, expected.shape[1])
        with pytest.raises(RequestError, match="no prompt 'passages'"):
            asking.encode(TEXTS, prompt_name="passages")
        with pytest.raises(RequestError, match=r"prompt is '\\ud800'; expected a text of"):
            asking.encode(TEXTS, prompt="\ud800")
        wrong: Any
        for wrong in (5, b"a", ["a"]):
            with pytest.raises(RequestError, match=r"prompt_name is .*; expected a text of"):
                asking.encode(TEXTS, prompt_name=wrong)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (
            {"prompt_name": "pasage"}, "prompt_name",
            "no prompt 'pasage' (did you mean \"passage\"?); expected one of: query, passage",
        ),
        ({"prompt_name": "query", "prompt": "a"}, "prompt_name", "expected one of the two"),
        ({"prompt": "a\x00"}, "prompt", "`prompt` has a NUL character at character 1"),
        ({"prompt": "a" * 2001}, "prompt", "at most 2000 characters"),
        ({"prompt_name": 1}, "prompt_name", "`prompt_name` is 1; expected"),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be_read_is_refused(
    client: httpx.Client, body: dict[str, Any], param: str, message: str
) -> None:
    for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        refused = client.post(path, json={field: "a", **body})
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == param
        assert message in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"prompt_name": "pasage"}, "unknown_prompt"),
        ({"prompt": "a " * 500}, "invalid_prompt"),
        ({"prompt_name": "long"}, "invalid_prompt"),
        ({"prompt_name": "query", "prompt": "a"}, "two_prompts"),
    ],
)
def test_each_fault_of_a_prompt_has_a_code_of_its_own(
    client: httpx.Client, body: dict[str, Any], code: str
) -> None:
    refused = client.post("/embed", json={"inputs": "a", **body})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, code)


def test_usage_counts_the_tokens_of_the_prompt(client: httpx.Client) -> None:
    counts = [
        client.post("/v1/embeddings", json={"input": TEXTS, **choice}).json()["usage"]
        for choice in ({"prompt": ""}, {"prompt": "will "})
    ]
    assert counts[1]["prompt_tokens"] == counts[0]["prompt_tokens"] + len(TEXTS)


def test_a_prompt_that_no_embedding_reads_is_refused(client: httpx.Client) -> None:
    refused = client.post("/v1/predict", json={"texts": "a", "prompt_name": "passage"})
    assert refused.status_code == 422
    assert refused.json()["error"]["message"] == (
        "`prompt_name` is given, but only embeddings read a prompt; add `embed`, or leave it out"
    )
