"""Imports go down only, and the lower floors work without a deep-learning framework."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from absent import without

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "manyheads"

sys.path.append(str(ROOT / "scripts"))

import house  # noqa: E402

# By room the number of its floor, counted from the ground up.
FLOOR_OF = {room: number for number, rooms in enumerate(reversed(house.FLOORS)) for room in rooms}

# What `pip install manyheads` brings, by the names under which it is imported.
BASE = {
    "numpy", "onnxruntime", "pydantic", "pydantic_core", "rich", "safetensors", "tokenizers",
    "typer", "yaml",
}  # fmt: skip

# Besides `house.WITHOUT_TORCH`, what runs without torch: predicting with an exported model from
# Python and from the command line.
RUNTIME = (
    "manyheads",
    "manyheads.api",
    "manyheads.cli",
    "manyheads.cli.data",
    "manyheads.cli.info",
    "manyheads.cli.predict",
    "manyheads.display",
    "manyheads.inference.graphs",
    "manyheads.inference.files",
    "manyheads.inference.loading",
    "manyheads.inference.predictor",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def room(module: str) -> str:
    """The room that a module of the package belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


@cache
def imported(module: str, eager: bool) -> frozenset[str]:
    """The modules that one imports anywhere in its text, or (`eager`) when it is imported."""
    names: set[str] = set()
    for node in _nodes(ast.parse(modules()[module].read_text(encoding="utf-8")), eager):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} has a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in modules() else node.module)
    return frozenset(names)


def _nodes(tree: ast.AST, eager: bool) -> Iterator[ast.AST]:
    """All nodes, or those that run on import: not in functions, nor for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        yield node
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        )
        if not (eager and lazy):
            yield from _nodes(node, eager)


def eager_closure(starts: Iterable[str]) -> dict[str, str]:
    """All that is imported along with some modules, each with the module that asks for it."""
    reached: dict[str, str] = {}
    waiting = [(start, start) for start in starts]
    while waiting:
        name, because = waiting.pop()
        if name in reached:
            continue
        reached[name] = because
        if name in modules():
            parents = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
            waiting += [(other, name) for other in (*parents, *imported(name, True))]
    return reached


def without_torch() -> list[str]:
    """The modules that the base install has to be able to import."""
    low = [name for name in modules() if room(name) in house.WITHOUT_TORCH]
    return low + list(RUNTIME)


def test_every_module_has_a_floor() -> None:
    homeless = sorted({room(name) for name in modules()} - set(FLOOR_OF) - {""})
    assert not homeless, f"add {homeless} to FLOORS in scripts/house.py"


@pytest.mark.parametrize("module", [name for name in modules() if room(name) in FLOOR_OF])
def test_imports_go_down_only(module: str) -> None:
    mine = FLOOR_OF[room(module)]
    for other in imported(module, eager=False):
        if other.startswith("manyheads.") and room(other) in FLOOR_OF:
            theirs = FLOOR_OF[room(other)]
            same_room = room(other) == room(module)
            assert same_room or theirs < mine, f"{module} must not import {other}"


@pytest.mark.parametrize("page", house.PAGES)
def test_the_pages_show_the_map_of_the_code_as_it_is(page: str) -> None:
    text = (house.ROOT / page).read_text(encoding="utf-8")
    assert house.page_with_map(text) == text, "run: make map"


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {
        name: {m for m in imported(name, True) if m in modules()} - {name} for name in modules()
    }
    # A package's face imports its modules; they do not need it back.
    assert list(TopologicalSorter(graph).static_order())


def test_the_low_floors_import_nothing_but_the_base_install() -> None:
    for name, because in eager_closure(without_torch()).items():
        package = name.split(".")[0]
        assert package in BASE | {"manyheads"} | sys.stdlib_module_names, f"{because}: {name}"


def test_rooms_without_torch_never_mention_it() -> None:
    for name in modules():
        if room(name) in house.WITHOUT_TORCH:
            packages = {other.split(".")[0] for other in imported(name, eager=False)}
            assert not packages & {"torch", "transformers", "sentence_transformers"}, name


def test_the_low_floors_can_be_imported_where_nothing_else_is_installed() -> None:
    script = without(
        "torch", "transformers", "sentence_transformers", "sklearn", "scipy", "pandas",
        "accelerate", "datasets", "pyarrow", "onnx", "onnxscript", "fastapi", "uvicorn",
    )  # fmt: skip
    script += f"""
from importlib import import_module
for name in {without_torch()!r}:
    import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_launchers_do_nothing_but_call_the_command_line() -> None:
    for name in ("train", "evaluate", "predict"):
        tree = ast.parse((PACKAGE.parent / f"{name}.py").read_text(encoding="utf-8"))
        docstring, *imports, call = tree.body
        assert isinstance(docstring, ast.Expr)
        assert all(isinstance(node, ast.Import | ast.ImportFrom) for node in imports)
        assert isinstance(call, ast.If)
        assert len(call.body) == 1
        assert f"main(command='{name}'" in ast.unparse(call.body[0])
