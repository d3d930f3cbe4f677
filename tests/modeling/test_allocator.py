"""Memory freed by a step is reused by the next one without system calls."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from manyheads.cli import main
from manyheads.modeling.cpu import allocator
from training_setup import run, settings

# In a process of its own: the setting holds for the whole process, until it ends.
_SCRIPT = """
import resource, sys
import torch
from manyheads.modeling import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    for _ in range(10):
        torch.ones(40 << 18)

torch.set_num_threads(1)
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
use()
before = faults()
use()
print(faults() - before)
"""


@pytest.mark.soak
def test_blocks_that_are_freed_are_not_mapped_again() -> None:
    faults = {}
    for setting in ("kept", "default"):
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, setting], capture_output=True, text=True, check=False
        )
        if done.returncode == 3:
            pytest.skip("the C library has no such setting")
        assert done.returncode == 0, done.stderr
        faults[setting] = int(done.stdout)
    # Blocks of 40 MB, which have 10,240 pages, are too large for the heap by default.
    assert faults["default"] > 100_000
    assert faults["kept"] < 40_000


def test_only_the_command_line_sets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def library(name: str) -> None:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(allocator, "ctypes", SimpleNamespace(CDLL=library))
    run(tmp_path)
    assert asked == []
    (tmp_path / "config.yaml").write_text(json.dumps(settings(tmp_path)))
    assert main(["train", str(tmp_path / "config.yaml"), "--overwrite"]) == 0
    assert asked == ["libc.so.6"]
