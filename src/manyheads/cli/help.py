"""The help of commands that take settings: flags by section, and the keys that have no flag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from typer.core import TyperCommand

from manyheads.config import Config, fields_where, key_groups

MOST_USED = "Settings that matter first"


class SettingsCommand(TyperCommand):
    """A command whose help groups its flags by section of the configuration."""

    defaults: ClassVar[Mapping[str, str]] = {}
    """The command's own defaults of keys that have no flag."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, those that matter first before the others."""
        records: dict[str, tuple[str, str]] = {}
        arguments: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if parameter.param_type_name == "argument":
                arguments.append(record)
            else:
                records[str(parameter.name)] = record
        _write(formatter, "Arguments", arguments)
        first = fields_where(Config, lambda setting: setting.first)
        _write(formatter, MOST_USED, [records.pop(name) for name in first if name in records])
        own = [name for name in records if name not in Config.model_fields]
        _write(formatter, "Options", [records.pop(name) for name in own])
        for group in key_groups():
            # Keys with a dot have no flag; `--set` takes them.
            keys = [
                (key.name, replace(key, default=self.defaults.get(key.name, key.default)).help)
                if "." in key.name
                else records.pop(key.name)
                for key in group.keys
                if "." in key.name or key.name in records
            ]
            flagless = any("." in key.name for key in group.keys)
            _write(formatter, f"{group.title} (--set KEY=VALUE)" if flagless else group.title, keys)


def _write(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)
