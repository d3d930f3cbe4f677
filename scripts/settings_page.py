"""The page of all keys of the configuration, written from the schema.

    python scripts/settings_page.py          write docs/configuration.md
    python scripts/settings_page.py --check  fail if the page shows another schema

The meanings are the texts under the fields, which are also the help of the flags.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from manyheads.config import (
    NESTED,
    Config,
    Group,
    Key,
    Setting,
    Strict,
    TaskConfig,
    fields_where,
    key_groups,
)

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

INTRODUCTION = """<!-- written by scripts/settings_page.py; renew it with: make configuration -->

# Configuration

A configuration is one YAML file. These keys are a complete one:

    train_file: data/train.json
    valid_file: data/valid.json
    num_classes: 2
    num_ner_labels: 5
    num_epochs: 3

They mean two tasks, `classification` and `ner`. Name your own under `tasks`:

    tasks:
      intent: {kind: classification}
      slots: {kind: tagging, field: entities, decoder: crf}

Each key without a dot below, other than `tasks` and `files`, is also a flag of `manyheads train`,
with hyphens or underscores: `--batch-size 32`. In place of `files`, the command takes data files as
arguments. Any key can be set by `--set`: `--set tasks.slots.decoder=crf`. Flags override the file.
Input paths in a file are relative to the file; output paths, and all paths among the flags, to the
working directory.
"""


def page() -> str:
    """Return the page as the schema is now."""
    return "\n".join([INTRODUCTION, *map(_section, key_groups()), *_meanings()])


def _section(group: Group) -> str:
    rows = [
        "| key | values | default | meaning |",
        "|---|---|---|---|",
        *(_row(key) for key in group.keys),
    ]
    purpose = f"{group.purpose[:1].upper()}{group.purpose[1:]}."
    return "\n".join([f"## {group.title}", "", purpose, "", *rows, ""])


def _row(key: Key) -> str:
    names = f"`{key.name}`" + "".join(f", `{alias}`" for alias in key.aliases)
    cells = (names, key.allowed, key.default, key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _meanings() -> Iterator[str]:
    """List what settings mean for runs that go on from another."""
    yield "## Resuming and starting from a trained model\n"
    yield (
        "A run is resumed with the configuration that it was started with. These keys may differ: "
        f"{_names(lambda setting: setting.resume == 'differ')}. Of "
        f"{_names(lambda setting: setting.resume == 'same name')}, only the last part of the path "
        "is compared.\n"
    )
    yield (
        "Processes that train one model may differ in "
        f"{_names(lambda setting: setting.processes == 'differ')}.\n"
    )
    yield (
        "With `init_from`, these keys are the trained model's unless you set them: "
        f"{_names(lambda setting: setting.warm_start == 'inherited')}. These are the trained "
        "model's, and another value is refused, because its parameters depend on them: "
        f"{_names(lambda setting: setting.warm_start == 'fixed')}.\n"
    )
    yield (
        "`manyheads compare` leaves these out where a task is trained alone: "
        f"{_names(lambda setting: setting.compare == 'several')}.\n"
    )


def _names(holds: Callable[[Setting], bool]) -> str:
    sections: dict[str, type[Strict]] = {"": Config, "tasks.NAME.": TaskConfig}
    sections |= {f"{name}.": section for name, section in NESTED.items()}
    names = [
        f"`{prefix}{name}`"
        for prefix, section in sections.items()
        for name in fields_where(section, lambda one: holds(one) and not one.internal)
    ]
    return ", ".join(names)


def main() -> None:
    """Write the page, or check it."""
    new = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != new:
        raise SystemExit("docs/configuration.md shows another schema; run: make configuration")


if __name__ == "__main__":
    main()
