"""metrics.jsonl: no line is repeated or missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manyheads.errors import ModelError
from manyheads.storage import StorageError
from manyheads.training.metrics_log import MetricsLog


def lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(3):
            log.write({"step": step})
            assert lines(path) == list(range(step + 1))


def test_the_returned_length_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        assert log.sync() == 0
        log.write({"step": 1})
        assert log.sync() == path.stat().st_size > 0


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_a_resumed_log_drops_repeated_lines_and_continues(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "metrics.jsonl"
    lengths = [0]
    with MetricsLog(path) as log:
        for step in range(3):
            log.write({"step": step})
            lengths.append(log.sync())
    with MetricsLog(path, lengths[kept]) as log:
        # Before anything is written, the length is that of the truncated file.
        assert log.sync() == path.stat().st_size == lengths[kept]
        log.write({"step": 7})
        assert log.sync() == path.stat().st_size
    assert lines(path) == [*range(kept), 7]


def test_a_new_log_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 99}\n')
    with MetricsLog(path) as log:
        log.write({"step": 1})
    assert lines(path) == [1]


@pytest.mark.parametrize("text", [None, "short"])
def test_a_log_shorter_than_the_checkpoint_recorded_is_refused(
    tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    size = len(text or "")
    with pytest.raises(ModelError, match=rf"has {size} bytes; expected at least the 99 .*`overw"):
        MetricsLog(path, 99)
    assert (path.read_text() if path.exists() else None) == text


def test_a_log_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "folder", tmp_path / "file" / "log", tmp_path):
        with pytest.raises(StorageError, match="cannot be written"):
            MetricsLog(path)
