"""metrics.jsonl: no line is repeated or missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manyheads.storage import StorageError
from manyheads.training.metrics_log import MetricsLog, restored_log


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


@pytest.mark.parametrize(
    ("found", "kept"), [(None, []), (b"", []), (b"{}\n", []), (b"\xff\n", []),
                        (b'{"event": "step", "step": 1, "epoch": 1}\n{"ev', [1])]
)  # fmt: skip
def test_a_log_that_is_missing_or_cut_off_has_the_epochs_of_the_checkpoint(
    tmp_path: Path, found: bytes | None, kept: list[int]
) -> None:
    path = tmp_path / "metrics.jsonl"
    if found is not None:
        path.write_bytes(found)
    history = [{"epoch": epoch, "step": 10 * epoch} for epoch in (1, 2)]
    said: list[str] = []
    with restored_log(path, 999, history, said.append) as log:
        log.write({"step": 21})
    assert lines(path) == [*kept, 10, 20, 21]
    assert f"{path} is missing or cut off" in said[0]
    # Now the second epoch is lost.
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    with restored_log(path, 999, history, said.append):
        pass
    assert lines(path) == [*kept, 10, 20]


def test_a_log_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "no" / "folder", tmp_path / "file" / "log", tmp_path):
        with pytest.raises(StorageError, match="cannot be written"):
            MetricsLog(path)
