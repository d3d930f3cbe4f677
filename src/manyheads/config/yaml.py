"""Reading YAML files with bounded memory, and the line of each key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from manyheads.errors import ConfigError, at, shorten

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 50
TOO_MUCH = f"more than {MAX_NODES} values or {MAX_DEPTH} levels"

KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")

_MAPPING = "keys and values (`key: value`)"

KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """The part of YAML that a configuration needs.

    Unlike in YAML 1.1, only `true` and `false` are booleans (`no` may be a label). Dates, `=` and
    whole numbers that are not decimal (010, 1:30) are text. Explicit tags are refused.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, "a tag (`!...`) is not allowed", event.start_mark)
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES or self._depth > MAX_DEPTH:
            raise ComposerError(None, None, TOO_MUCH, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_NOT_PLAIN = (":bool", ":timestamp", ":value", ":int", ":float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if not tag.endswith(_NOT_PLAIN)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


@dataclass(frozen=True)
class YamlDocument:
    """The mapping in a file, and the line of each of its keys."""

    values: Mapping[str, Any]
    lines: Mapping[KeyPath, int]
    path: Path | None
    replaced: frozenset[KeyPath] = frozenset()

    def without(self, key: KeyPath) -> YamlDocument:
        """Drop the line of a key whose value now comes from elsewhere."""
        return replace(self, replaced=self.replaced | {key})

    def where(self, key: KeyPath) -> str:
        """Return the file and line of a key, or of its closest parent in the file."""
        if self.path is None or any(key[: len(other)] == other for other in self.replaced):
            return ""
        while key and key not in self.lines:
            key = key[:-1]
        return at(self.path, self.lines.get(key))


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML mapping.

    An alias counts each time it is expanded, so that a small file cannot become a large value.

    Raises:
        ConfigError: the file is missing, not UTF-8, too large, not YAML, nested too deep, not a
            mapping, or has a key twice.
    """
    node = _compose(path, _read_text(path))
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return YamlDocument({}, {}, path)
    lines = dict(_walk(node, path))
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"the file is a {_kind(node)}",
            where=at(path, node.start_mark.line + 1),
            expected=_MAPPING,
        )
    loader = _Loader("")
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
    """Read a command-line value as YAML; return it unchanged if it is not YAML."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None if text.strip() == "" else text
        for _ in _walk(node, Path("value")):
            pass
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, ConfigError):
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
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(path, error) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"not YAML ({shorten(str(error))})", where=at(path)) from None


def _yaml_error(path: Path, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    return ConfigError(
        f"not YAML ({error.problem or error.context})",
        where=at(path, mark.line + 1 if mark else None),
        expected=_MAPPING,
    )


def _kind(node: yaml.Node) -> str:
    name = node.tag.rsplit(":", 1)[-1]
    return {"map": "mapping", "seq": "list", "str": "text", "int": "number", "float": "number"}.get(
        name, name
    )


def _walk(root: yaml.Node, path: Path) -> Iterator[tuple[KeyPath, int]]:
    """Yield each key's path and line, visiting an alias each time it occurs."""
    count = 0
    stack: list[tuple[KeyPath, yaml.Node]] = [((), root)]
    while stack:
        key, node = stack.pop()
        count += 1
        where = at(path, node.start_mark.line + 1)
        if count > MAX_NODES or len(key) > MAX_DEPTH:
            raise ConfigError(
                f"the configuration expands to {TOO_MUCH}",
                where=where,
                expected="a configuration written by hand",
                fix="Remove the repeated aliases.",
            )
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for name, value in node.value:
                line = name.start_mark.line + 1
                if not isinstance(name, yaml.ScalarNode) or name.tag not in KEY_TAGS:
                    key_name = shorten(name.value) if isinstance(name.value, str) else ""
                    raise ConfigError(
                        f"{f'key {key_name}' if key_name else 'a key'} is a {_kind(name)}",
                        where=at(path, line),
                        expected="a text",
                        fix="Put it in quotes if it is a text.",
                    )
                if name.value in seen:
                    raise ConfigError(
                        f"key {shorten(name.value)} is repeated here",
                        where=at(path, line),
                        fix="Keep one of the two.",
                    )
                seen.add(name.value)
                yield (*key, name.value), line
                stack.append(((*key, name.value), value))
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(((*key, i), value) for i, value in enumerate(node.value))
