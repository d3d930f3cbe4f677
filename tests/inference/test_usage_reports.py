"""No library that runs graphs reports what a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"


def test_onnxruntime_keeps_no_identifier_of_the_machine(tmp_path: Path) -> None:
    script = (
        "from manyheads.inference.backends.onnx import import_onnxruntime; import_onnxruntime()"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**kept, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [*tmp_path.rglob("*")] == []


def test_onnxruntime_is_imported_in_one_place() -> None:
    direct = re.compile(r"^\s*(import|from) onnxruntime", re.MULTILINE)
    found = [path for path in SRC.rglob("*.py") if direct.search(path.read_text(encoding="utf-8"))]
    assert found == []
