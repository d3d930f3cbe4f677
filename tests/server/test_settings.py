"""What a server starts with: names of models, settings and an address."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from pathlib import Path

import pytest

from manyheads.errors import RequestError
from manyheads.server import ServerSettings, model_names, running, serve
from manyheads.server.running import bind_socket
from manyheads.server.settings import make_settings
from serving import TEXT, becomes, predict, served_model, serving


def test_several_models_are_served_by_name() -> None:
    with serving({"one": served_model(), "two": served_model()}) as client:
        assert predict(client)["model"] == "one"
        answer = client.post("/v1/predict", json={"texts": TEXT, "model": "two"})
        assert answer.json()["model"] == "two"


def test_models_of_the_command_line_are_named_by_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_names(["runs/tickets/best", "b=runs/other"]) == {
        "tickets": Path("runs/tickets/best"),
        "b": Path("runs/other"),
    }
    monkeypatch.chdir(tmp_path)
    Path("runs/lr=3e-3").mkdir(parents=True)
    assert model_names(["runs/lr=3e-3", "b=runs/lr=3e-3"]) == {
        "lr=3e-3": Path("runs/lr=3e-3"),
        "b": Path("runs/lr=3e-3"),
    }
    with pytest.raises(RequestError, match="two models have the name 'a'"):
        model_names(["a", "x/a"])
    with pytest.raises(RequestError, match="'x/y' is not a name"):
        model_names(["x/y=z"])


def test_invalid_settings_are_named() -> None:
    with pytest.raises(RequestError, match="port is 70000; expected less than or equal to 65535"):
        make_settings(port=70000)
    with pytest.raises(RequestError, match=r"no setting 'prot' \(did you mean \"port\""):
        make_settings(prot=1)
    with pytest.raises(RequestError, match="host is ''; expected string should have at least 1"):
        make_settings(host="")


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("*", "*"),
        ("https://Shop.example.com/", "https://shop.example.com"),
        ("HTTPS://shop.example.com:443", "https://shop.example.com"),
        ("http://shop.example.com:443", "http://shop.example.com:443"),
        ("http://[::1]:5173", "http://[::1]:5173"),
    ],
)
def test_an_origin_is_compared_as_browsers_write_it(given: str, origin: str) -> None:
    assert make_settings(cors_origins=(given,)).cors_origins == (origin,)


@pytest.mark.parametrize("given", ["", "null", "shop.example.com", "https://a/b", "https://a b"])
def test_an_origin_that_no_page_has_is_refused(given: str) -> None:
    with pytest.raises(
        RequestError, match=rf"cors_origins is '{given}'; expected \* or an origin,"
    ):
        make_settings(cors_origins=(given,))


def test_an_address_that_another_process_listens_on_is_named_with_its_port(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.enumerate()
    bind = running.bind_socket
    with contextlib.ExitStack() as stack:

        def bind_two(settings: ServerSettings) -> socket.socket:
            # Two servers start: neither listens while it loads its model.
            ours = bind(settings)
            port = ours.getsockname()[1]
            stack.enter_context(bind(make_settings(port=port))).listen()
            return ours

        monkeypatch.setattr(running, "bind_socket", bind_two)
        message = r"cannot listen on 127.0.0.1:0 \(Address already in use\); expected an address"
        with pytest.raises(RequestError, match=message):
            serve(model, port=0, threads=1)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert becomes(lambda: not any(thread.is_alive() for thread in left), 60)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_address_of_ipv6_stands_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(running, "_run", lambda server, listening: listening.close())
    serve(served_model(), host="::1", port=0, threads=1, report=lines.append)
    assert re.search(r" at http://\[::1\]:\d+ \(API", lines[0])
    with bind_socket(make_settings(host="::1", port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RequestError, match=rf"cannot listen on \[::1\]:{port} \("):
            bind_socket(make_settings(host="::1", port=port))


def test_answers_are_sent_without_delay() -> None:
    # asyncio sets TCP_NODELAY on a connection only if its socket states the protocol.
    with bind_socket(make_settings(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP
