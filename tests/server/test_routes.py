"""What requests get: predictions, embeddings in the forms of other servers, and clear errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from manyheads.data.readers import Layout
from manyheads.errors import DataError, RequestError
from manyheads.inference import Runtime, load_model
from manyheads.server import create_app
from manyheads.server.examples import _plain, read_examples
from manyheads.server.settings import make_settings
from serving import served_model, serving
from training_setup import run, write_records


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(served_model(), max_body=8 << 20) as client:
        yield client


def post(client: httpx.Client, path: str, body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_one_request_answers_all_tasks_and_the_embedding_as_the_predictor_does(
    client: httpx.Client,
) -> None:
    texts = ["John lives in Paris", ["will", "Mary", "eat", "?"]]
    answer = post(client, "/v1/predict", {"texts": texts, "embed": True, "tokens": True})
    assert answer["model"] == "tiny"
    assert answer["milliseconds"] > 0
    predictor = load_model(served_model(), Runtime(threads=1)).predictor
    for got, expected in zip(
        answer["predictions"], predictor.predict(texts, embed=True), strict=True
    ):
        wanted = expected.to_json()
        np.testing.assert_allclose(got.pop("embedding"), wanted.pop("embedding"), atol=1e-5)
        assert got.pop("windows") == 1
        assert got["intent"].pop("score") == pytest.approx(wanted["intent"].pop("score"), abs=1e-4)
        assert got["ner"]["tokens"] == wanted["ner"]["tokens"]
        assert got["intent"] == wanted["intent"]


def test_tasks_tokens_and_embedding_are_returned_only_on_request(client: httpx.Client) -> None:
    (one,) = post(client, "/v1/predict", {"texts": "John", "tasks": ["intent"]})["predictions"]
    assert one.keys() == {"text", "intent", "windows"}
    (one,) = post(client, "/v1/predict", {"texts": "John", "tasks": []})["predictions"]
    assert one.keys() == {"text", "windows"}
    texts = ["John lives in Paris", "the", "\u200b"]
    answers = post(client, "/v1/predict", {"texts": texts, "tokens": False})["predictions"]
    assert any(not one["ner"]["entities"] for one in answers)
    assert not any("tokens" in one["ner"] for one in answers)
    assert post(client, "/v1/predict", {"texts": []})["predictions"] == []


def test_candidates_and_thresholds_are_those_of_the_request(client: httpx.Client) -> None:
    texts = ["John lives in Paris"] * 2
    answers = post(client, "/v1/predict", {"texts": texts, "top_k": 2})["predictions"]
    for one in answers:
        found = one["intent"]["candidates"]
        assert found[0] == {key: one["intent"][key] for key in ("label", "id", "score")}
        assert found[1]["score"] == pytest.approx(1 - found[0]["score"], abs=1e-5)
    body = {"texts": texts[0], "thresholds": {"intent": 1.0, "ner": 1.0}}
    (one,) = post(client, "/v1/predict", body)["predictions"]
    assert one["intent"]["label"] is None
    assert len(one["intent"]["candidates"]) == 2
    assert all(entity["label"] is None for entity in one["ner"]["entities"])
    (one,) = post(client, "/v1/predict", {**body, "thresholds": False})["predictions"]
    assert one["intent"]["label"]


def test_the_nearest_examples_are_returned_on_request(client: httpx.Client, tmp_path: Path) -> None:
    refused = client.post("/v1/predict", json={"texts": "a", "neighbours": 1})
    assert refused.status_code == 422
    assert "the server has no examples; start it with --examples" in refused.text
    file = tmp_path / "examples.jsonl"
    lines = [
        {"text": "Mary lives in Paris", "intent": "statement"},
        {"tokens": ["where", "is", "Mary", "?"], "intent": "question"},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(served_model(), examples=file) as asked:
        body = {"texts": ["where is Mary ?", "  "], "neighbours": 5}
        found, empty = post(asked, "/v1/predict", body)["predictions"]
        assert found["neighbours"][0]["text"] == "where is Mary ?"
        assert found["neighbours"][0]["intent"] == "question"
        assert found["neighbours"][0]["score"] == pytest.approx(1, abs=1e-4)
        assert len(found["neighbours"]) == 2
        assert "embedding" not in found
        assert "is empty" in empty["error"]["message"]
        assert asked.get("/v1/models").json()["data"][0]["examples"] == 2


def test_values_that_json_cannot_hold_are_shown_as_text(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    record = {"text": "a \ud800", "id": 10**30, "list": [2**63, -(2**63) - 1]}
    file.write_text(json.dumps(record) + "\n")
    with serving(served_model(), examples=file) as asked:
        [one] = post(asked, "/v1/predict", {"texts": "a", "neighbours": 1})["predictions"]
    [found] = one["neighbours"]
    assert 0 < found.pop("score") <= 1
    assert found == {"text": "a ?", "id": str(10**30), "list": [2**63, str(-(2**63) - 1)]}
    assert _plain({1: b"x", "day": date(2026, 1, 2)}) == {"1": "b'x'", "day": "2026-01-02"}


def test_a_file_of_examples_without_texts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"label": "a"}\n')
    with pytest.raises(DataError, match=r"examples\.jsonl:1: the example has no text"):
        read_examples(file)


def test_examples_are_read_by_a_layout_and_no_field_hides_the_similarity(tmp_path: Path) -> None:
    file = tmp_path / "examples.csv"
    file.write_text("utterance,score\nwhere is Mary,5\n")
    with pytest.raises(DataError, match=r"`layout=Layout\(names=\{"):
        read_examples(file)
    names = {"utterance": "text"}
    with pytest.raises(DataError, match=r"a field 'score', which is the similarity .* Rename it"):
        read_examples(file, Layout(names=names))
    layout = Layout(names={**names, "score": "rating"})
    with serving(served_model(), examples=file, layout=layout) as asked:
        [one] = post(asked, "/v1/predict", {"texts": "a", "neighbours": 1})["predictions"]
    [found] = one["neighbours"]
    assert 0 < found.pop("score") <= 1
    assert found == {"text": "where is Mary", "rating": "5"}
    alone = "given, but no file; expected both or neither. Name the file: `examples`"
    with pytest.raises(RequestError, match=alone):
        create_app({}, make_settings(layout=layout))


def test_a_long_text_is_read_in_windows(client: httpx.Client) -> None:
    (one,) = post(client, "/v1/predict", {"texts": "very " * 200})["predictions"]
    assert one["windows"] > 1


def test_the_openai_client_gets_embeddings(client: httpx.Client) -> None:
    import openai  # takes long, and no other test needs it

    predictor = load_model(served_model()).predictor
    expected = [p.embedding for p in predictor.predict(["a", "b"], embed=True)]
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as sdk:
        # The client asks for base64 unless told otherwise.
        answer = sdk.embeddings.create(model="tiny", input=["a", "b"])
        assert [one.index for one in answer.data] == [0, 1]
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-5)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens == 6
        floats = sdk.embeddings.create(model="tiny", input="a", encoding_format="float")
        np.testing.assert_allclose(floats.data[0].embedding, expected[0], atol=1e-5)
        short = sdk.embeddings.create(model="tiny", input="a", dimensions=4).data[0].embedding
        assert len(short) == 4
        assert np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
        assert [model.id for model in sdk.models.list()] == ["tiny"]
        with pytest.raises(openai.NotFoundError, match="there is no model 'tinny'") as missing:
            sdk.embeddings.create(model="tinny", input="a")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.UnprocessableEntityError, match="another tokenizer's"):
            sdk.embeddings.create(model="tiny", input=[1, 2])
        with pytest.raises(openai.UnprocessableEntityError, match="embedding has"):
            sdk.embeddings.create(model="tiny", input="a", dimensions=100_000)


def test_clients_of_text_embeddings_inference_get_their_forms(client: httpx.Client) -> None:
    vectors = post(client, "/embed", {"inputs": ["a", "b"], "normalize": True, "truncate": True})
    assert len(vectors) == 2
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    assert len(post(client, "/embed", {"inputs": "a", "prompt_name": None})) == 1
    single = post(client, "/predict", {"inputs": "John lives in Paris"})
    assert single[0].keys() == {"label", "score"}
    assert post(client, "/predict", {"inputs": ["John lives in Paris"]}) == single
    two = post(client, "/predict", {"inputs": [["John lives in Paris"], ["where"]]})
    assert [len(one) for one in two] == [2, 2]
    assert single[0]["score"] > single[1]["score"]
    # As the InferenceClient of huggingface_hub sends it.
    options = {"inputs": "John lives in Paris", "parameters": {}}
    assert post(client, "/predict", options) == single
    options["parameters"] = {"top_k": 1}
    assert post(client, "/predict", options) == single[:1]
    refused = client.post("/predict", json={"inputs": ["a", "b"]})
    assert refused.status_code == 422
    assert "stands for a pair" in refused.json()["error"]["message"]


def test_all_classes_are_returned_unless_fewer_are_asked_for(tmp_path: Path) -> None:
    records = [{"text": f"where is {i}", "label": f"class {i}"} for i in range(1100)]
    write_records(tmp_path / "train.jsonl", records)
    write_records(tmp_path / "valid.jsonl", records[:20])
    run(tmp_path, tasks={"label": {"kind": "classification"}}, batch_size=64)
    with serving(tmp_path / "saved" / "best") as asked:
        every = post(asked, "/predict", {"inputs": "where is 5"})
        assert sorted(one["label"] for one in every) == sorted(one["label"] for one in records)
        scores = [one["score"] for one in every]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-4)
        for top_k in (1, 1050, 1100, 10**30):
            body = {"inputs": "where is 5", "parameters": {"top_k": top_k}}
            assert post(asked, "/predict", body) == every[:top_k]


def test_the_kind_of_a_task_decides_who_classifies_and_which_tags_are_results(
    tmp_path: Path,
) -> None:
    record = {"tokens": ["where", "is", "John"], "topics": ["a"], "pos": ["W", "V", "N"]}
    records = [{**record, "label": label} for label in ("question", "statement") * 4]
    write_records(tmp_path / "train.jsonl", records)
    write_records(tmp_path / "valid.jsonl", records)
    tasks = {
        "topics": {"kind": "multilabel"}, "pos": {"kind": "tagging"},
        "label": {"kind": "classification"},
    }  # fmt: skip
    run(tmp_path, tasks=tasks)
    with serving(tmp_path / "saved" / "best") as asked:
        every = post(asked, "/predict", {"inputs": "where is John"})
        assert {one["label"] for one in every} == {"question", "statement"}
        [one] = post(asked, "/v1/predict", {"texts": "where is John"})["predictions"]
        assert [token["text"] for token in one["pos"]["tokens"]] == ["where", "is", "John"]


@pytest.mark.parametrize("path", ["/predict", "/embed", "/v1/embeddings"])
def test_a_text_without_words_is_refused_by_its_place(client: httpx.Client, path: str) -> None:
    field = "input" if path.startswith("/v1") else "inputs"
    for texts, place in (("\u200b", field), (["\u200b"], f"{field}[0]")):
        refused = client.post(path, json={field: texts})
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("text_empty", place)
        assert error["message"] == f"`{place}` has no words"


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "the body is not JSON: EOF"),
        (b"{", 400, "the body is not JSON: EOF"),
        (b'{"texts": "\xff"}', 400, "the body is not JSON: invalid unicode"),
        (b'{"texts": "\\ud800"}', 400, "the body is not JSON: .*surrogate|unexpected end of hex"),
        (b'{"texts": NaN}', 400, "the body is not JSON: expected value"),
        (b'{"texts": 1e999}', 422, "`texts` is inf; expected a valid string"),
        (b"[" * 100_000, 400, "the body is not JSON: recursion limit"),
        (b'{"texts": ' + b"[" * 50 + b"]" * 50 + b"}", 422, r"`texts.*` is \["),
        (b"null", 422, "body"),
        (b"[]", 422, "body"),
        (b"{}", 422, "`texts` is missing"),
        (b'{"texts": null}', 422, "`texts` is None; expected a valid string or a valid list"),
        (b'{"texts": 5}', 422, "`texts` is 5; expected a valid string or a valid list"),
        (
            b'{"texts": ["a", 5]}',
            422,
            r"`texts\[1\]` is 5; expected a valid string or a valid list or an object",
        ),
        (b'{"texts": [["a", null]]}', 422, r"`texts\[0\]\[1\]` is None; expected a valid string"),
        (b'{"texts": [{"text": "a"}]}', 422, r"`texts\[0\]"),
        (b'{"texts": "a", "embed": "yes"}', 422, "`embed` is 'yes'; expected a valid boolean"),
        (b'{"texts": "a", "embed": 1}', 422, "`embed` is 1; expected a valid boolean"),
        (b'{"texts": "a", "top_q": 1}', 422, "unknown field `top_q`"),
        (b'{"texts": "a", "tasks": ["x"]}', 422, r"`tasks\[0\]` is 'x', .* its tasks are: intent"),
        (b'{"texts": "a", "top_k": -1}', 422, "`top_k` is -1; expected greater than or equal to 0"),
        (
            b'{"texts": "a", "thresholds": {"x": 0.5}}',
            422,
            "`thresholds` has 'x', .* its tasks are: intent",
        ),
        (b'{"texts": "a", "thresholds": {"ner": 2}}', 422, "`thresholds.ner` is 2; expected less"),
        (b'{"texts": "a", "model": "x"}', 404, "there is no model 'x'"),
        (b'{"texts": ""}', 422, "`texts` is empty"),
        (b'{"texts": " \\n "}', 422, "`texts` is empty"),
        (b'{"texts": "a\\u0000b"}', 422, "`texts` has a NUL character at character 1"),
        (b'{"texts": "' + b"a" * (1 << 20) + b'"}', 422, "1,048,576 characters; at most 50,000"),
        (b'{"texts": "a", "texts": 5}', 422, "`texts` is 5"),
    ],
)
def test_the_error_of_an_invalid_request_names_the_place_and_the_value(
    client: httpx.Client, content: bytes, status: int, message: str
) -> None:
    response = client.post(
        "/v1/predict", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])
    assert len(error["message"]) < 500


def test_a_body_of_another_content_type_is_refused(client: httpx.Client) -> None:
    for headers in ({}, {"content-type": "text/plain"}):
        response = client.post("/v1/predict", content=b'{"texts": "a"}', headers=headers)
        assert response.status_code == 415
        assert "send application/json" in response.json()["error"]["message"]
    fine = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/predict", content=b'{"texts": "a"}', headers=fine).is_success


def test_unknown_paths_and_methods_are_errors_of_the_same_form(client: httpx.Client) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v1/predict", 405),
        ("POST", "/v1/models/other:reload", 404),
        ("POST", "/v1/models/tiny:reload?allow_new_embedding=perhaps", 422),
    ):
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/", "/docs", "/livez", "/readyz", "/metrics", "/v1/models"])
def test_head_answers_as_get_without_the_body(client: httpx.Client, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert head.status_code == whole.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert client.get("/livez").is_success, "the connection is usable after it"
    assert client.head("/v1/predict").status_code == 405
    assert client.head("/nothing").status_code == 404
    counted = [line for line in client.get("/metrics").text.splitlines() if 'method="HEAD"' in line]
    assert any(f'path="{path}"' in line for line in counted)


def test_the_examples_of_the_api_page_run(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    tried = 0
    for path, methods in schema["paths"].items():
        body = methods.get("post", {}).get("requestBody")
        if body:
            name = body["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            for example in schema["components"]["schemas"][name]["examples"]:
                post(client, path, example)
                tried += 1
    assert tried == 4


def test_the_list_of_models_has_their_tasks_and_labels(client: httpx.Client) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny"
    assert [task["name"] for task in model["tasks"]] == ["intent", "ner"]
    assert model["tasks"][0]["labels"] == ["question", "statement"]
    assert len(model["version"]) == len(model["embedding"]) == 12


def test_metrics_count_requests_and_texts(client: httpx.Client) -> None:
    post(client, "/v1/predict", {"texts": ["a", "b"]})
    client.request("STRANGE", "/v1/predict")
    page = client.get("/metrics").text
    assert 'manyheads_requests_total{method="POST",path="/v1/predict",status="200"}' in page
    assert 'manyheads_texts_total{model="tiny"}' in page
    assert 'manyheads_ready{model="tiny"} 1.0' in page
    assert "STRANGE" not in page


def test_requests_have_ids_that_clients_may_choose(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == (
        "mine-1"
    )
    assert len(client.get("/livez").headers["x-request-id"]) == 32
    hostile = client.get("/livez", headers={"x-request-id": "a b" * 100}).headers["x-request-id"]
    assert len(hostile) == 32


def test_no_other_origin_may_call_unless_allowed(client: httpx.Client) -> None:
    origin = {"origin": "https://example.org"}
    assert "access-control-allow-origin" not in client.get("/livez", headers=origin).headers
    with serving(served_model(), cors_origins=("https://example.org",)) as allowing:
        answer = allowing.get("/livez", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        other = allowing.get("/livez", headers={"origin": "https://example.com"})
        assert "access-control-allow-origin" not in other.headers


def test_a_page_of_an_allowed_origin_may_ask_with_a_key_and_read_why_it_is_refused() -> None:
    origin = {"origin": FOREIGN}
    with serving(
        served_model(), cors_origins=(FOREIGN,), api_keys=("key",), max_body=1024
    ) as allowing:
        asked = {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        preflight = allowing.options("/v1/predict", headers={**origin, **asked})
        assert preflight.status_code == 200
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        key = {"authorization": "Bearer key"}
        for status, headers, text in (
            (200, key, "John"), (422, key, ""), (413, key, "x" * 2000), (401, {}, "John"),
        ):  # fmt: skip
            answer = allowing.post(
                "/v1/predict", headers={**origin, **headers}, json={"texts": text}
            )
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == FOREIGN
            assert answer.headers["x-request-id"]
        other = {**asked, "origin": "https://example.com"}
        refused = allowing.options("/embed", headers=other)
        assert "access-control-allow-origin" not in refused.headers
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/json"
        assert refused.json()["error"]["code"] == "cross_origin"
        assert "Disallowed CORS origin; expected" in refused.json()["error"]["message"]


RELOAD = "/v1/models/tiny:reload"
FOREIGN = "https://example.org"


@pytest.mark.parametrize(
    ("headers", "page", "option"),
    [
        ({"origin": FOREIGN}, f"'{FOREIGN}'", FOREIGN),
        ({"origin": FOREIGN, "sec-fetch-site": "cross-site"}, f"'{FOREIGN}'", FOREIGN),
        ({"origin": "http://127.0.0.1"}, "'http://127.0.0.1'", "http://127.0.0.1"),
        ({"origin": "null"}, "another origin", "ORIGIN"),
        ({"sec-fetch-site": "same-site"}, "another origin", "ORIGIN"),
    ],
)
def test_what_the_page_of_another_origin_posts_is_refused(
    client: httpx.Client, headers: dict[str, str], page: str, option: str
) -> None:
    for sent in (
        client.post(RELOAD, headers=headers),
        client.post(RELOAD, headers={**headers, "content-type": "text/plain"}, content="x"),
        client.post("/v1/predict", headers=headers, json={"texts": "John"}),
    ):
        assert sent.status_code == 403
        error = sent.json()["error"]
        assert error["code"] == "cross_origin"
        assert error["message"] == (
            f"the request comes from a page of {page}; expected a page of "
            f"'{client.base_url.netloc.decode()}'. To allow the page, start the server with "
            f"--cors-origin {option}; behind a proxy, have it pass on the header Host"
        )
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_programs_and_own_pages_may_post(client: httpx.Client) -> None:
    own = str(client.base_url).rstrip("/")
    for headers in (
        {},
        {"origin": own},
        {"origin": own.replace("http:", "https:")},  # behind a proxy that ends TLS
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ):
        assert client.post(RELOAD, headers=headers).status_code == 200
        sent = client.post("/v1/predict", headers=headers, json={"texts": "John"})
        assert sent.status_code == 200


@pytest.mark.parametrize("allowed", [FOREIGN, "*"])
def test_pages_of_an_allowed_origin_may_post(allowed: str) -> None:
    with serving(served_model(), cors_origins=(allowed,)) as allowing:
        headers = {"origin": FOREIGN, "sec-fetch-site": "cross-site"}
        answer = allowing.post("/v1/predict", headers=headers, json={"texts": "John"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == allowed
        assert allowing.post(RELOAD, headers=headers).status_code == 200
        other = allowing.post(RELOAD, headers={"origin": "https://example.com"})
        assert other.status_code == (200 if allowed == "*" else 403)
