"""YAML files read with bounded memory, each key with the line it stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from manyheads.errors import ConfigError, at, shorten

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 50

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlDocument:
    """The mapping that a file holds, and the line of each of its keys."""

    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    path: Path | None

    def where(self, key: KeyPath) -> str:
        """Name the file and line of a key, or of its closest parent that the file has."""
        if self.path is None:
            return ""
        while key and key not in self.lines:
            key = key[:-1]
        return at(self.path, self.lines.get(key))


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML mapping.

    Aliases count as often as they expand, so that a small file cannot become a large value.

    Raises:
        ConfigError: the file is missing, not UTF-8, too large, not YAML, nested too deep, not a
            mapping, or says a key twice.
    """
    node = _compose(path, _read_text(path))
    if node is None:
        return YamlDocument({}, {}, path)
    lines = dict(_walk(node, path))
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"the file holds a {node.tag.rsplit(':', 1)[-1]}",
            where=at(path, node.start_mark.line + 1),
            expected="keys and values (`key: value`)",
        )
    loader = yaml.SafeLoader("")
    try:
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(path, error) from None
    except ValueError as error:
        raise ConfigError(str(error), where=at(path), expected="plain YAML values") from None
    finally:
        loader.dispose()
    return YamlDocument(values, lines, path)


def parse_scalar(text: str) -> Any:
    """Read a value given as text on the command line, as YAML where it is YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None if text.strip() in ("", "~", "null") else text
        for _ in _walk(node, Path("value")):
            pass
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such configuration file",
            where=at(path),
            fix="Check the path, or see src/config.yaml of the project for an example.",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the configuration cannot be read ({error.strerror})", where=at(path)
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError("the configuration is larger than 1 MiB", where=at(path))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"byte {data[error.start]:#04x} is not UTF-8",
            where=at(path, line),
            expected="a UTF-8 text file",
            fix="Save the file as UTF-8.",
        ) from None


def _compose(path: Path, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(path, error) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({shorten(str(error))})", where=at(path)) from None
    except RecursionError:
        raise ConfigError(
            "values are nested too deep", where=at(path), expected=f"at most {MAX_DEPTH} levels"
        ) from None


def _yaml_error(path: Path, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    return ConfigError(
        f"not YAML ({error.problem or error.context})",
        where=at(path, mark.line + 1 if mark else None),
        expected="keys and values (`key: value`)",
    )


def _walk(root: yaml.Node, path: Path) -> Iterator[tuple[KeyPath, int]]:
    """Yield each key's path and line, visiting aliases as often as they occur."""
    count = 0
    stack: list[tuple[KeyPath, yaml.Node]] = [((), root)]
    while stack:
        key, node = stack.pop()
        count += 1
        where = at(path, node.start_mark.line + 1)
        if count > MAX_NODES or len(key) > MAX_DEPTH:
            raise ConfigError(
                "the configuration expands to too many or too deeply nested values",
                where=where,
                expected=f"at most {MAX_NODES} values and {MAX_DEPTH} levels",
                fix="Remove the repeated aliases.",
            )
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name, value in node.value:
                line = name.start_mark.line + 1
                if not isinstance(name, yaml.ScalarNode):
                    raise ConfigError("a key is not a text", where=at(path, line))
                if name.value in seen:
                    raise ConfigError(
                        f"key {shorten(name.value)} stands here a second time",
                        where=at(path, line),
                        fix="Keep one of the two.",
                    )
                seen.add(name.value)
                yield (*key, name.value), line
                stack.append(((*key, name.value), value))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(((*key, i), value) for i, value in enumerate(node.value))
