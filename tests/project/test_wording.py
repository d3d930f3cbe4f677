"""Messages name the options of the one who reads them: the command's, or Python's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import manyheads

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
