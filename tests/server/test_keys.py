"""Keys: which requests need one, and how they are read again."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from manyheads.cli import main
from manyheads.server import running
from server_process import RELOADS, alive_at, lines_of, server_process
from serving import becomes, logged, served_model, serving


def test_requests_need_a_key_where_keys_are_set() -> None:
    with serving(served_model(), api_keys=("first-key", "second-key")) as client:
        with logged("json") as lines:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "first-key"}):
                refused = client.get("/v1/models", headers=headers)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
            for key in ("first-key", "second-key"):
                headers = {"authorization": f"Bearer {key}"}
                assert client.get("/v1/models", headers=headers).status_code == 200
            assert client.get("/metrics").status_code == 401
            assert client.post("/v1/models/tiny:reload").status_code == 401
            assert client.post("/v1/predict", content="x").status_code == 401
            assert client.get("/v1/unknown").status_code == 401
            page = client.get("/metrics", headers=headers).text
            for method, path, number in (
                ("GET", "/v1/models", 3), ("GET", "/metrics", 1), ("GET", "other", 1),
                ("POST", "/v1/models/{name}:reload", 1), ("POST", "/v1/predict", 1),
            ):  # fmt: skip
                labels = f'{{method="{method}",path="{path}",status="401"}}'
                assert f"manyheads_requests_total{labels} {number}.0" in page
            for path in ("/", "/livez", "/readyz"):
                assert client.get(path).status_code == 200
        assert "-key" not in lines.getvalue()
        assert "wrong" not in lines.getvalue()


def test_the_schema_says_which_requests_need_a_key() -> None:
    for keys in ((), ("key",)):
        with serving(served_model(), api_keys=keys) as client:
            schema = client.get("/openapi.json").json()
        needed = {path for path, has in schema["paths"].items() if "security" in str(has)}
        assert needed == (schema["paths"].keys() - {"/livez", "/readyz"} if keys else set())
        assert ("securitySchemes" in schema["components"]) is bool(keys)
        for path in needed:
            assert all("401" in method["responses"] for method in schema["paths"][path].values())


def statuses(client: httpx.Client, *keys: str) -> list[int]:
    """The statuses of requests with these keys."""
    headers = [{"authorization": f"Bearer {key}"} for key in keys]
    return [client.get("/v1/models", headers=one).status_code for one in headers]


def of_keys(lines: io.StringIO) -> Any:
    """The log's only entry about keys; a request is logged after its answer, perhaps here."""
    entries = map(json.loads, lines.getvalue().splitlines())
    (found,) = (entry for entry in entries if entry["event"] != "request")
    return found


def test_keys_are_read_again_on_sighup_and_stay_where_the_file_is_faulty(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes("\ufefffirst\n\n second \n".encode())
    with serving(served_model(), api_keys=file) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        assert statuses(client, "first", "second", "third") == [200, 200, 401]
        file.write_text("second\nthird\n", encoding="utf-8")
        with logged("json") as lines:
            running.read_keys(service)
        entry = of_keys(lines)
        assert (entry["event"], entry["file"], entry["keys"]) == ("keys read", str(file), 2)
        assert statuses(client, "first", "second", "third") == [401, 200, 200]
        for content, reason in (
            (b"first\nk\xe4y\n", f"{file} is not UTF-8: byte 0xe4 at offset 7"),
            (b" \n", f"{file} has no key; expected one key per line"),
            (None, f"{file}: cannot be read"),
        ):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            with logged("json") as lines:
                running.read_keys(service)
            entry = of_keys(lines)
            assert (entry["level"], entry["event"]) == ("error", "keys not read")
            assert entry["error"].startswith(reason)
            assert statuses(client, "first", "second", "third") == [401, 200, 200]


def test_a_server_whose_file_of_keys_is_faulty_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(b"first\nk\xe4y\n")
    assert main(["serve", "model", "--port", "0", "--api-keys", str(file)]) == 2
    assert capsys.readouterr().err == (
        f"error: {file} is not UTF-8: byte 0xe4 at offset 7; expected one key per line, as text "
        "in UTF-8. Save the file as UTF-8.\n"
    )


def test_withdrawn_keys_are_refused_while_a_reload_is_running(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("kept\nwithdrawn\n", encoding="utf-8")
    with server_process(RELOADS, "--api-keys", str(file)) as process:
        url = alive_at(*lines_of(process, 1))
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            assert statuses(client, "kept", "withdrawn") == [200, 200]
            process.send_signal(signal.SIGHUP)
            assert lines_of(process, 1) == ["reloads\n"]
            file.write_text("kept\n", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            assert becomes(lambda: statuses(client, "kept", "withdrawn") == [200, 401], 10)
