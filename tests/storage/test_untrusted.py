"""Untrusted files are read with limits, inside their folder, without running code."""

from __future__ import annotations

import json
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import ManyheadsError, ModelError
from manyheads.storage import (
    StorageError,
    inside,
    parse_json,
    read_bytes,
    read_json,
    refuse_code,
    refuse_sizes,
    vocabulary_size,
)
from manyheads.storage.untrusted import walk


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "é": "\ud83d\ude00"}
    assert read_json(write(tmp_path, json.dumps(value))) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not JSON: Expecting value \(line 1, column 1\)"),
        ('{"a": 1,\n "b" 2}', r"is not JSON: Expecting ':' delimiter \(line 2, column 6\)"),
        (b'{"a": "\xff\xfe"}', "is not JSON: 'utf-8' codec|is not JSON: .*can't decode"),
        ("9" * 10_000, "is not JSON: .*integer string conversion"),
        ("[" * 10_000, "nested more than 100 levels deep"),
        ("[" * 10_000 + "]" * 10_000, "nested more than 100 levels deep"),
        ("[" * 101 + "1" + "]" * 101, "nested more than 100 levels deep"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested more than 100 levels deep"),
        ('{"a": [NaN]}', "is not JSON: it has the number nan; expected finite numbers"),
        ("-1e999", "is not JSON: it has the number -inf"),
    ],
)
def test_broken_or_hostile_json_is_refused_by_name(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ModelError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_json_as_deep_as_the_limit_is_read() -> None:
    assert parse_json("[" * 100 + "]" * 100, "text")


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room
    with pytest.raises(StorageError, match=r"it has 1099511627776 bytes; expected at most 1000"):
        read_bytes(path, 1000)
    assert read_bytes(write(tmp_path, "x" * 1000), 1000) == b"x" * 1000


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is a device or a pipe; expected a file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is a folder; expected a file"):
        read_json(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(StorageError, match="it is a socket or a device; expected a file"):
            read_json(tmp_path / "socket")
    with pytest.raises(StorageError, match="missing: cannot be read: there is no such file"):
        read_json(tmp_path / "missing")
    with pytest.raises(StorageError, match=r"path 'a\\x00b' is not valid"):
        read_json("a\0b")


def test_reading_a_small_file_does_not_ask_for_the_memory_of_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_bytes(tmp_path / "small", 1 << 30) == b"small"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=100)
def test_every_value_survives_json(value: Any) -> None:
    assert parse_json(json.dumps(value), "text") == value


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:0123456789eE+-.\\u \n', max_size=40))
@settings(max_examples=100)
def test_any_bytes_are_parsed_or_refused_with_one_kind_of_error(data: bytes | str) -> None:
    try:
        parse_json(data, "text")
    except ManyheadsError as error:
        assert str(error).startswith("text: ")  # noqa: PT017


@given(JSON)
@settings(max_examples=50)
def test_a_walk_yields_every_value_once(value: Any) -> None:
    def count(item: Any) -> int:
        inner = item.values() if isinstance(item, dict) else item
        return 1 + (sum(map(count, inner)) if isinstance(item, dict | list) else 0)

    assert sum(1 for _ in walk(value)) == count(value)


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModel": "modeling_evil.Evil"}},
        {"text_config": [{"auto_map": {"AutoConfig": "evil--repo"}}]},
        {"trust_remote_code": True},
        {"custom_pipelines": {"evil": {"impl": "evil.Evil"}}},
    ],
)
def test_a_configuration_that_asks_for_its_own_code_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"asks for code from the model to be run") as caught:
        refuse_code(config, "best/config.json")
    assert str(caught.value).startswith("best/config.json: ")


def test_a_configuration_that_asks_for_nothing_is_accepted() -> None:
    refuse_code({"model_type": "bert", "trust_remote_code": False, "auto_map": None}, "config")


@pytest.mark.parametrize(
    "config",
    [
        {"num_labels": 10**9},
        {"num_hidden_layers": 5000},
        {"encoder": {"n_layers": 10**9}},
        {"vocab_size": 2**62},
        {"pads": [1, 10**12]},
    ],
)
def test_a_number_that_no_encoder_has_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r'config: has \d+ as ".*"; expected at most \d+'):
        refuse_sizes(config, "config")


def test_the_numbers_of_large_encoders_are_accepted() -> None:
    refuse_sizes({"num_hidden_layers": 64, "vocab_size": 1_000_000, "pad_token_id": -1}, "config")


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"model": []},
        {"model": {"vocab": 1}},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [["a"]]},
        {"model": {"vocab": {"a": 0}}, "added_tokens": 1},
    ],
)
def test_a_vocabulary_that_cannot_be_counted_is_refused(values: Any) -> None:
    with pytest.raises(ModelError, match=r"folder: tokenizer\.json is not a tokenizer"):
        vocabulary_size(json.dumps(values).encode(), "folder")


def test_a_vocabulary_ends_at_its_highest_id() -> None:
    tokens = [{"id": 7}, {"content": "x"}]
    for vocabulary, size in (({"a": 0, "b": 9}, 10), ([["a", -1.0]] * 3, 8)):
        values = {"model": {"vocab": vocabulary}, "added_tokens": tokens}
        assert vocabulary_size(json.dumps(values).encode(), "folder") == size


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "a\\..\\..\\secret",
        "C:\\secret",
        "\\\\host\\secret",
        "a\0b",
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"leads out of the folder; .* a source that you trust"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["link/secret", "link", "file-link"])
def test_links_out_of_the_folder_are_refused_as_links(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").touch()
    (folder / "link").symlink_to(tmp_path)
    (folder / "file-link").symlink_to("../secret")
    with pytest.raises(ModelError, match=r"symbolic link .* leads out of the folder; .*cp -rL"):
        inside(folder, name)


def test_names_that_stay_in_the_folder_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    for name in ("config.json", "1_Pooling/config.json", "...", "a..b", "link", "é"):
        assert inside(tmp_path, name) == tmp_path / name


def test_the_links_of_a_hub_cache_count_as_inside_and_no_others(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--mine/snapshots/0123abc"
    blobs = tmp_path / "models--me--mine/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0f").touch()
    (tmp_path / "secret").touch()
    (snapshot / "config.json").symlink_to("../../blobs/0f")
    (snapshot / "bad.json").symlink_to("../../../secret")
    assert inside(snapshot, "config.json").is_file()
    with pytest.raises(ModelError, match=r"the symbolic link .* leads out of the folder"):
        inside(snapshot, "bad.json")
