"""Benchmarks and tests import from the packages' faces, so that a room can move its modules."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def is_face(module: str) -> bool:
    return (ROOT / "src" / Path(*module.split(".")) / "__init__.py").exists()


@cache
def shown_by(face: str, module: str) -> frozenset[str]:
    """The names of a module that a package's face has."""
    package, home = importlib.import_module(face), importlib.import_module(module)
    return frozenset(
        name
        for name in getattr(package, "__all__", ())
        if hasattr(home, name) and getattr(package, name) is getattr(home, name)
    )


@pytest.mark.parametrize("folder", ["benchmarks", "tests"])
def test_names_come_from_faces(folder: str) -> None:
    """A benchmark takes all names from faces, a test those that a face has."""
    deep = []
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            module = node.module or ""
            if not module.startswith("manyheads.") or is_face(module):
                continue
            faces = [module.rsplit(".", up)[0] for up in range(1, module.count("."))]
            names = {alias.name for alias in node.names}
            shown = names & {name for face in faces for name in shown_by(face, module)}
            if shown or (faces and folder == "benchmarks"):
                deep.append(f"{file.relative_to(ROOT)}: {module} ({', '.join(shown or names)})")
    assert not deep, "import these from a package's face:\n" + "\n".join(deep)
