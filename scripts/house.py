"""The map of the code: the order of imports, and a tree with the purpose of each package.

    python scripts/house.py          write the map into README.md and CONTRIBUTING.md
    python scripts/house.py --check  fail if one of them is out of date

The text is the first line of each package's docstring.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "manyheads"
PAGES = ("README.md", "CONTRIBUTING.md")
BEGIN, END = "<!-- map: written by scripts/house.py -->", "<!-- end of map -->"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("server",),
    ("api",),
    ("display",),
    ("training", "exporting"),
    ("evaluation",),
    ("inference",),
    ("modeling", "data"),
    ("config",),
    ("tasks",),
    ("text", "storage"),
    ("errors", "lazy", "sampling", "version"),
)
"""The rooms of each floor, from the top down. A room imports from lower floors only."""

WITHOUT_TORCH = (
    "errors",
    "lazy",
    "sampling",
    "version",
    "storage",
    "text",
    "tasks",
    "config",
    "data",
    "evaluation",
)
"""The rooms that never import PyTorch or transformers, not even lazily."""


def first_line(file: Path) -> str:
    """Return the first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{file.relative_to(ROOT)} has no docstring")
    return text.splitlines()[0].removesuffix(".")


def entries(folder: Path) -> dict[str, Path]:
    """Return the modules and packages in a folder by name, each with the file of its docstring."""
    found = {}
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            found[path.name] = path / "__init__.py"
        elif path.suffix == ".py" and path.stem != "__init__":
            found[path.stem] = path
    return found


def tree() -> str:
    """Return the map: the rooms from the top floor down, with their sub-packages."""
    rooms = entries(PACKAGE)
    known = [room for floor in FLOORS for room in floor]
    if missing := sorted(set(rooms) - set(known)):
        raise SystemExit(f"no floor for {', '.join(missing)}: add it to FLOORS in scripts/house.py")
    lines = []
    for room in known:
        if room not in rooms:
            continue
        file = rooms[room]
        inner = entries(file.parent) if file.name == "__init__.py" else {}
        lines.append(_line(0, room + ("/" if file.name == "__init__.py" else ".py"), file))
        lines += [
            _line(1, f"{name}/", path) for name, path in inner.items() if path.name == "__init__.py"
        ]
    return "\n".join(["```", "src/manyheads/", *lines, "```"])


def _line(depth: int, name: str, file: Path) -> str:
    return f"{'  ' * (depth + 1) + name:<18}{first_line(file)}"


def page_with_map(text: str) -> str:
    """Return a page's text with the current map."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tree()}\n{END}{after}"


def main() -> None:
    """Write or check the map."""
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        if BEGIN not in text or END not in text:
            raise SystemExit(f"{name} has no place for the map ({BEGIN} ... {END})")
        new = page_with_map(text)
        if "--check" not in sys.argv[1:]:
            page.write_text(new, encoding="utf-8")
        elif new != text:
            raise SystemExit(f"{name} shows an old map; run: make map")


if __name__ == "__main__":
    main()
