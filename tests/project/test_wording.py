"""Messages name the options of the one who reads them: the command's, or Python's."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import manyheads
from manyheads.config import Config

PACKAGE = Path(manyheads.__file__).parent
FRONTS = ("cli", "server")
"""Rooms whose messages only users of commands read."""

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMANDS = re.compile(r"\b(manyheads [a-z-]+|pip install|ray start)\b[^.;]*")
"""Whole commands, which are typed as they stand by whoever reads them."""


def texts_outside_options(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the string constants that are neither docstrings nor arguments of `option`."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Call) and getattr(child.func, "id", "") == "option":
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        yield from texts_outside_options(child)


def test_no_message_outside_the_command_names_an_option_as_it_is_typed() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in FRONTS:
            continue
        for text in texts_outside_options(ast.parse(path.read_text(encoding="utf-8"))):
            if OPTION.search(COMMANDS.sub("", text.value)):
                found.append(f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value}")
    assert not found, "\n".join(found)


def test_no_advice_outside_the_command_names_a_command() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in FRONTS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.keyword) or node.arg != "fix":
                continue
            for text in texts_outside_options(node):
                if re.search(r"\bmanyheads (?!that )[a-z]", text.value):
                    found.append(f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value}")
    assert not found, "\n".join(found)


def options_without_a_python_name(tree: ast.AST) -> Iterator[str]:
    """Yield the names that `option` derives from what is typed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "option":
            typed = node.args[0]
            if len(node.args) == 1 and isinstance(typed, ast.Constant):
                yield str(typed.value).removeprefix("--").split(" ")[0].replace("-", "_")


def test_an_option_that_is_named_alike_in_python_is_there() -> None:
    verbs = [getattr(manyheads, name) for name in manyheads.__all__]
    known = set(Config.model_fields).union(
        *(inspect.signature(verb).parameters for verb in verbs if inspect.isfunction(verb))
    )
    derived = {
        name
        for path in PACKAGE.rglob("*.py")
        for name in options_without_a_python_name(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert "overwrite" in derived
    assert derived <= known
